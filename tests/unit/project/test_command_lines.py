"""Every command of convoy and convoy-train has help with an example, completion, and errors without a traceback."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from service.cli import cli as convoy
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.service_process import CONVOY
from training.cli import main as convoy_train

PROGRAMS = {"convoy": convoy, "convoy-train": convoy_train}


def commands_below(group: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands_below(command, (*path, name))


COMMANDS = [path for name, program in PROGRAMS.items() for path in commands_below(program, (name,))]


def invoke(*arguments: str) -> Result:
    """Runs a command as on a terminal, where errors are text. `convoy serve` would otherwise log them as JSON."""
    runner = CliRunner(env={"CONVOY_LOG_FORMAT": "text"})
    return runner.invoke(PROGRAMS[arguments[0]], arguments[1:], prog_name=arguments[0])


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_states_what_the_command_does_and_shows_an_example(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0, result.output
    usage, about = result.output.split("\n\n")[:2]
    assert usage.startswith(f"Usage: {' '.join(path)}")
    assert about.strip().endswith((".", ":"))
    assert "Example" in result.output
    assert f"{path[0]} " in result.output.partition("Example")[2], "the example is a command line"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_unknown_option_is_an_error(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--no-such-option")
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert f"Try '{' '.join(path)} --help' for help." in result.output


@pytest.fixture(autouse=True)
def restore_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores signal handlers, which commands change for their own process."""
    monkeypatch.setattr("service.observability.logs.configure", lambda *_, **__: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with a model, a valid and a damaged image, an empty folder, and files of other formats."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("CONVOY_", "JOB_")):
            monkeypatch.delenv(name)
    write_version(tmp_path / "models", "linear", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "good.png").write_bytes(image_bytes())
    for name in ("bad.png", "text.txt", "broken.onnx", "broken.keras"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    (tmp_path / "blank.onnx").write_bytes(b"")
    return tmp_path


# Command lines, and the advice that their error messages contain.
MISTAKES = {
    "convoy sevre": "No such command 'sevre'",
    "convoy serve more": "unexpected extra argument (more)",
    "convoy serve --port 99999": "--port or CONVOY_PORT is '99999'",
    "convoy serve --device tpu": "is 'tpu': it must be auto, cpu, cuda, or cuda: and indices of GPUs, such as cuda:0,1",
    "convoy serve --device cuda:0,1 --workers 3": "2 GPUs need a multiple of 2 workers, not 3",
    "convoy serve --device cuda:0": "No GPU can be used: libcuda.so.1: cannot open shared object file",
    "convoy serve --keys-file none": "none cannot be read",
    "convoy classify": "Missing argument 'MODEL'",
    "convoy classify linear": "Missing argument 'FILES...'",
    "convoy classify linear none.png": "'none.png' does not exist",
    "convoy classify linear empty": "is a directory",
    "convoy classify linear good.png --top-k 0": "not in the range",
    "convoy classify linear good.png --version 9": "has no version '9'",
    "convoy classify nope good.png": "`convoy models`, lists the models",
    "convoy classify ../linear good.png": "`convoy models`, lists the models",
    "convoy classify linear good.png --models s3://": "Use s3://bucket/folder",
    "convoy batch": "Missing argument 'INPUT...'",
    "convoy batch good.png -m linear": "Missing option '--output'",
    "convoy batch good.png -m nope -o r.csv": "`convoy models`, lists the models",
    "convoy batch good.png -m linear -o r.xlsx": "must end in .jsonl, .csv, .parquet",
    "convoy batch good.png -m linear -o empty": "is a directory",
    "convoy batch good.png -m linear -o text.txt/r.csv": "cannot be written",
    "convoy batch none -m linear -o r.csv": "Check the path, or the pattern",
    "convoy batch empty -m linear -o r.csv": "Name a folder, a glob, a .tar",
    "convoy batch text.txt::x -m linear -o r.csv": "does not exist",
    "convoy batch http://x/y -m linear -o r.csv": "Use s3://bucket/folder",
    "convoy batch good.png -m linear -o r.csv --shard 9/8": "Use --shard 1/8 to --shard 8/8",
    "convoy models nope": "No such command 'nope'",
    "convoy models show nope": "`convoy models`, lists the models",
    "convoy models show linear --version 9": "9",
    "convoy models rollback linear": "Export one, or name a version with --to",
    "convoy models prune linear": "Missing option '--keep'",
    "convoy models prune linear --keep 0": "not in the range",
    "convoy key": "Missing argument 'NAME'",
    "convoy key shop --scopes everything": "the scopes are inference, repository, metrics",
    "convoy-train rnu": "No such command 'rnu'",
    "convoy-train run nope": "the choices are",
    "convoy-train run mnist-lenet5 --epochs many": "is not a valid integer",
    "convoy-train run mnist-lenet5 --set epochs": "write --set epochs=VALUE",
    "convoy-train run mnist-lenet5 --data-dir empty": "add the official files",
    "convoy-train run mnist-lenet5 --resume empty": "is not the folder of a run",
    "convoy-train sweep xo": "Missing option '--grid'",
    "convoy-train sweep xo --grid lr": "write --grid KEY=VALUE,VALUE",
    "convoy-train describe nope": "the networks are",
    "convoy-train describe broken.onnx": "broken.onnx",
    "convoy-train describe blank.onnx": "blank.onnx",
    "convoy-train describe alexnet --input 1x2": "write HEIGHTxWIDTHxCHANNELS",
    "convoy-train describe xo --maps none/here.png": "could not be written",
    "convoy-train evaluate none": "is not the folder of a run",
    "convoy-train evaluate models/linear/1": "specify a data set with --dataset",
    "convoy-train compare empty": "is not the folder of a run",
    "convoy-train report empty": "is not the folder of a run",
    "convoy-train export none --name x": "Specify the folder of a run, or a .keras file",
    "convoy-train export broken.keras --name x": "broken.keras needs images and labels",
    "convoy-train export broken.keras --name x --scale a": "is neither a number",
    "convoy-train import broken.onnx --name x --labels text.txt": "is not an ONNX file",
    "convoy-train quantize empty": "such as models/mnist-lenet5/3",
    "convoy-train ensemble models/linear/1 --name x": "at least two members",
}


@pytest.mark.parametrize(("line", "message"), MISTAKES.items(), ids=MISTAKES)
def test_an_error_is_reported_in_a_sentence_with_exit_code_2(work_folder: Path, line: str, message: str) -> None:
    result = invoke(*line.split())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert "Traceback" not in result.output


def test_a_permission_error_is_reported(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "models/linear")

    monkeypatch.setattr("service.model_store.repository.Repository.scan", refuse)
    result = invoke("convoy", "models", "list")
    assert (result.exit_code, result.output) == (2, "Error: models/linear: Permission denied.\n")


def completions(line: str) -> list[str]:
    """Returns the shell completions for the last word of a line."""
    program, *arguments = line.split(" ")
    shell = ShellComplete(PROGRAMS[program], {}, program, "_COMPLETE")
    return [item.value for item in shell.get_completions(arguments[:-1], arguments[-1])]


def test_commands_options_and_names_are_completed(work_folder: Path) -> None:
    assert completions("convoy ba") == ["batch"]
    assert completions("convoy models ver") == ["verify"]
    assert "--output" in completions("convoy batch --o")
    assert completions("convoy classify li") == ["linear"]
    assert completions("convoy classify x") == []
    assert completions("convoy classify --models models ") == ["linear"]
    assert completions("convoy classify --models none ") == []
    assert completions("convoy batch --model li") == ["linear"]
    assert completions("convoy models show ") == ["linear"]
    assert completions("convoy-train ru") == ["run"]
    assert completions("convoy-train run mnist-l") == ["mnist-lenet5"]


def test_completion_survives_a_wrong_variable(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_PORT", "many")
    assert completions("convoy classify li") == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_completion_script_of_each_shell_is_available(program: str) -> None:
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    command = CONVOY.with_name(program)
    for shell in ("zsh", "fish"):
        env = {**os.environ, variable: f"{shell}_source"}
        result = subprocess.run([command], env=env, capture_output=True, text=True, check=True, timeout=30)
        assert f"{variable}={shell}_complete" in result.stdout
