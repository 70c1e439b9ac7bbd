"""The `convoy` command: output, exit codes, and errors without a traceback."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service import cli
from service.batch_jobs.errors import OutputBusy, OutputConflict
from service.errors import ConvoyError, UnknownModel, VersionUnavailable
from service.exit_codes import EXIT_BUG, EXIT_RETRY, EXIT_USAGE_ERROR
from service.model_store.mirror import CannotMirror
from service.model_store.object_store import BucketUnreachable
from service.settings import Settings
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.service_process import CONVOY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_version(tmp_path / "models", "linear", 1, seed=1)
    write_version(tmp_path / "models", "linear", 2, seed=2)
    (tmp_path / "good.png").write_bytes(image_bytes())
    (tmp_path / "bad.png").write_bytes(b"no image")
    return tmp_path


def convoy(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CONVOY, *arguments], cwd=root, capture_output=True, text=True, timeout=30)


def test_classify_prints_one_line_per_file(root: Path) -> None:
    result = convoy(root, "classify", "linear", "good.png", "--top-k", "2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("good.png: class-")
    assert result.stdout.count("%") == 2


def test_classify_as_json_with_a_version(root: Path) -> None:
    result = convoy(root, "classify", "linear", "good.png", "--json", "--version", "1")
    line = json.loads(result.stdout)
    assert line["file"] == "good.png"
    assert [set(p) for p in line["predictions"]] == [{"index", "label", "probability"}] * 4


def test_a_broken_file_is_named_and_the_others_are_classified(root: Path) -> None:
    result = convoy(root, "classify", "linear", "bad.png", "good.png")
    assert result.returncode == 1
    assert result.stderr.startswith("bad.png: ")
    assert result.stdout.startswith("good.png: ")


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_classified(root: Path) -> None:
    result = convoy(root, "classify", "linear", "/proc/self/mem", "good.png")
    assert result.returncode == 1
    assert result.stderr == "/proc/self/mem: The file cannot be read: Input/output error.\n"
    assert result.stdout.startswith("good.png: ")


def test_many_files_may_have_more_pixels_together_than_a_request(root: Path) -> None:
    """A request with 40 such images would be rejected, because its limit is 2 x 1000 pixels."""
    names = [f"{number:02}.jpg" for number in range(40)]
    for seed, name in enumerate(names):
        (root / name).write_bytes(image_bytes(30, 30, seed=seed, image_format="JPEG"))
    result = convoy(root, "classify", "linear", *names, "--max-pixels", "1000")
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == names
    alone = convoy(root, "classify", "linear", names[-1], "--max-pixels", "1000")
    assert alone.stdout.splitlines() == result.stdout.splitlines()[-1:]


def test_models_lists_every_version_and_the_broken_ones(root: Path) -> None:
    (root / "models/linear/1/model.onnx").write_bytes(b"changed")
    (root / "models/linear/2/labels.txt").write_bytes(b"changed")
    lines = convoy(root, "models").stdout.splitlines()
    assert lines[0] == "linear 1: 8x8x1 -> 4 classes"
    assert lines[1].startswith("linear 2: BROKEN: ")


def test_models_lists_entries_that_are_not_versions(root: Path) -> None:
    (root / "models/README.md").write_text("")
    (root / "models/linear/latest").mkdir()
    (root / "models/linear/latest/manifest.json").write_text("")
    write_version(root / "models", "linear", 3).rename(root / "models/linear/002")
    lines = convoy(root, "models").stdout.splitlines()
    assert lines[:3] == [
        "README.md: skipped, it is not a folder",
        "linear/latest: skipped, its name is not a version number (a positive number of at most 18 digits)",
        "linear 1: 8x8x1 -> 4 classes",
    ]
    assert lines[3].startswith("linear 2: BROKEN: ")
    assert "'002' and '2'" in lines[3]
    (root / "models").rename(root / "bucket")
    assert convoy(root, "models", "--models", f"file://{root}/bucket").stdout.splitlines()[:3] == lines[:3]


def test_models_list_show_rollback_and_prune(root: Path) -> None:
    assert convoy(root, "models", "list").stdout == convoy(root, "models", "--models", "models", "list").stdout
    output = convoy(root, "models", "show", "linear").stdout
    assert output.startswith("linear 2: 8x8x1 -> 4 classes\npreprocessing: resize squash")
    assert "float32: model.onnx, " in output
    assert json.loads(convoy(root, "models", "show", "linear", "--version", "1", "--json").stdout)["version"] == 1
    assert convoy(root, "models", "rollback", "linear").stdout.startswith(
        "linear is at version 1; withdrawn: 2. A running service"
    )
    assert convoy(root, "models").stdout.splitlines()[1] == "linear 2: withdrawn by a rollback"
    assert convoy(root, "models", "rollback", "linear", "--undo").returncode == 0
    assert convoy(root, "models", "prune", "--keep", "1").stdout == "linear 1: removed\n"
    assert not (root / "models/linear/1").exists()


def test_verify_ends_with_1_when_a_version_is_wrong(root: Path) -> None:
    valid = convoy(root, "models", "verify")
    assert (valid.returncode, valid.stdout.count("float32: sha256 matches")) == (0, 2)
    (root / "models/linear/1/model.onnx").write_bytes(b"changed")
    invalid = convoy(root, "models", "verify", "linear")
    assert invalid.returncode == 1
    assert invalid.stdout.splitlines()[0].startswith("linear 1 float32: WRONG: ")


MISTAKES = {
    "unknown model to show": (["models", "show", "nope"], 2, "There is no model 'nope' in models."),
    "unknown version to verify": (["models", "verify", "linear", "--version", "7"], 2, "no version 7; it has 1, 2"),
    "nothing to go back to": (["models", "rollback", "linear", "--to", "3"], 2, "no version 3; it has 1, 2"),
    "undo to a version": (["models", "rollback", "linear", "--to", "1", "--undo"], 2, "leave out --to"),
    "prune without a number": (["models", "prune"], 2, "--keep"),
    "prune in a bucket": (["models", "prune", "--keep", "1", "--models", "s3://b/m"], 2, "are in a bucket"),
    "roll back a bucket": (["models", "rollback", "m", "--models", "s3://b/m"], 2, "with --state"),
    "unknown model": (["classify", "nope", "good.png"], 2, "There is no model 'nope'"),
    "unknown version": (["classify", "linear", "good.png", "--version", "9"], 2, "version '9'"),
    "missing file": (["classify", "linear", "none.png"], 2, "none.png"),
    "no models": (["models", "--models", "empty"], 2, "Add a model as"),
    "bad setting": (["serve", "--port", "many"], 2, "--port or CONVOY_PORT is 'many'"),
    "setting out of range": (["serve", "--max-batch-size", "1025"], 2, "--max-batch-size or CONVOY_MAX_BATCH_SIZE"),
    "unknown command": (["sevre"], 2, "sevre"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES.values(), ids=MISTAKES)
def test_an_error_is_reported_in_a_sentence(root: Path, arguments: list[str], code: int, message: str) -> None:
    result = convoy(root, *arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_misspelt_variable_is_reported(root: Path) -> None:
    env = {**os.environ, "CONVOY_PROT": "9000", "CONVOY_MODELS": "s4://nowhere/at-all"}
    result = subprocess.run([CONVOY, "serve"], cwd=root, env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode == 2
    line = json.loads(result.stderr.splitlines()[0])
    assert (line["variable"], line["nearest"]) == ("CONVOY_PROT", "CONVOY_PORT")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("log_format", ["json", "auto", "text"])
def test_an_error_at_the_start_has_the_format_of_the_log(root: Path, log_format: str) -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        result = convoy(root, "serve", "--port", str(port), "--log-format", log_format)
    *_, last = result.stderr.splitlines()
    reason = f"Cannot listen on 127.0.0.1:{port}: Address already in use. Stop the program that listens there"
    assert result.returncode == EXIT_RETRY
    if log_format == "text":
        assert last.startswith(f"Error: {reason}")
    else:
        line = json.loads(last)
        assert (line["level"], line["event"]) == ("critical", "cannot start")
        assert line["reason"].startswith(reason)


WRONG_STARTS = {
    "bad flag": (["--prot", "80"], {}, "No such option"),
    "bad argument": (["more"], {}, "Got unexpected extra argument (more)"),
    "bad setting": ([], {"CONVOY_PORT": "many"}, "--port or CONVOY_PORT is 'many'"),
    "bad key": (["--keys", "shop"], {}, "CONVOY_KEYS, line 1 has 1 words"),
    "no keys file": (["--keys-file", "none"], {}, "none cannot be read"),
    "bad log format": ([], {"CONVOY_LOG_FORMAT": "xml"}, "--log-format or CONVOY_LOG_FORMAT is 'xml'"),
}


@pytest.mark.parametrize(("arguments", "variables", "reason"), WRONG_STARTS.values(), ids=WRONG_STARTS)
@pytest.mark.parametrize("log_format", ["json", "auto", "text"])
def test_every_wrong_start_has_the_format_of_the_log(
    root: Path, arguments: list[str], variables: dict[str, str], reason: str, log_format: str
) -> None:
    env = {**os.environ, "CONVOY_LOG_FORMAT": log_format, **variables}
    command = [CONVOY, "serve", *arguments]
    result = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=30)
    *_, last = result.stderr.splitlines()
    assert result.returncode == 2
    if log_format == "text" and "CONVOY_LOG_FORMAT" not in variables:
        assert last.startswith(f"Error: {reason}")
    else:
        (line,) = [json.loads(text) for text in result.stderr.splitlines()]
        assert (line["level"], line["event"]) == ("critical", "cannot start")
        assert line["reason"].startswith(reason)


@pytest.mark.parametrize("command", ["serve", "classify", "models"])
def test_help_shows_an_example(root: Path, command: str) -> None:
    assert "Example: " in convoy(root, command, "--help").stdout


def failed_because_of(cause: Exception) -> ConvoyError:
    error = CannotMirror("The folder cannot be written.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (OutputBusy("taken"), EXIT_RETRY),
        (VersionUnavailable("later"), EXIT_RETRY),
        (BucketUnreachable("away"), EXIT_RETRY),
        (failed_because_of(OSError(errno.ENOSPC, "full")), EXIT_RETRY),
        (failed_because_of(PermissionError(errno.EACCES, "denied")), EXIT_USAGE_ERROR),
        (OutputConflict("other"), EXIT_USAGE_ERROR),
        (UnknownModel("none"), EXIT_USAGE_ERROR),
    ],
)
def test_only_temporary_errors_have_the_retry_exit_code(error: ConvoyError, exit_code: int) -> None:
    _, described_code = cli._describe_error(error)
    assert described_code == exit_code


def test_an_unexpected_error_is_not_reported_as_a_finished_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(SystemExit) as raised:
        cli.main()
    assert raised.value.code == EXIT_BUG
    assert "ValueError: a bug" in capsys.readouterr().err


SIGNAL_DURING_IMPORT = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "service.batch_jobs.job":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["convoy", "batch", "photos", "--model", "linear", "--output", "r.jsonl"]
from service.cli import main
main()
"""


def test_a_batch_job_that_is_stopped_while_it_starts_does_not_say_that_it_is_done(root: Path) -> None:
    command = [sys.executable, "-c", SIGNAL_DURING_IMPORT]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 130
    assert "Stopped." in result.stderr
    assert "Traceback" not in result.stderr


def test_the_help_of_serve_lists_every_setting_once_under_its_heading(root: Path) -> None:
    text = convoy(root, "serve", "--help").stdout
    headings = [line.strip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[:3] == ["Address", "Models", "Batches and queues"]
    address = text.partition("Address:")[2].partition("Models:")[0]
    assert "--port" in address
    assert "--bucket-cache" not in address
    for name in Settings.model_fields:
        assert text.count(f"\n  --{name.replace('_', '-')} ") == 1, name
