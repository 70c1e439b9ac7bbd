"""`convoy batch` as a process: a kill at any time loses and repeats nothing, and exit codes are correct."""

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.batch_jobs.journal import Journal
from service.exit_codes import EXIT_PARTIAL, EXIT_RETRY
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import slow_graph
from tests.support.service_process import CONVOY, is_alive

IMAGES = 250
TIMEOUT_S = 180


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns 250 images (every 50th is damaged) and a slow model, so that the job is still running when it is
    killed."""
    write_version(tmp_path / "models", "slow", 1, graph=slow_graph((8, 8, 1), 4, rounds=60))
    for index in range(IMAGES):
        path = tmp_path / f"photos/class-{index % 4}/{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"broken" if index % 50 == 0 else image_bytes(seed=index % 10))
    return tmp_path


class JobStarter:
    """Starts jobs and kills the remaining ones at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CONVOY_", "JOB_"))}
        options = ["--model", "slow", "--max-batch-size", "8", "--decode-threads", "2"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [CONVOY, "batch", "photos", *options, *arguments]
        self.started.append(subprocess.Popen(command, cwd=self._root, env=inherited | environment, **pipes))
        return self.started[-1]


@pytest.fixture
def start(root: Path) -> Iterator[JobStarter]:
    starter = JobStarter(root)
    yield starter
    for process in starter.started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until_more(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while lines_of(path) <= lines:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def files(path: Path) -> list[str]:
    return [json.loads(line)["file"] for line in path.read_text().splitlines()]


def children_of(parent: int) -> list[int]:
    children = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if re.search(rf"^PPid:\s+{parent}$", text, re.MULTILINE):
            children.append(int(status.parent.name))
    return children


def workers_of(parent: int) -> list[int]:
    """Returns the descendants of `parent`: the fork server, its decoders and the resource tracker."""
    children = children_of(parent)
    return children + [below for child in children for below in workers_of(child)]


def first_decoder(process: subprocess.Popen[str]) -> int:
    """Returns the first decoding process, while the model is still loading and most images are being decoded."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline_s
        for fork_server in children_of(process.pid):
            if decoders := children_of(fork_server):
                return decoders[0]
        time.sleep(0.005)


@pytest.mark.slow
def test_a_job_killed_repeatedly_counts_every_image_once(root: Path, start: JobStarter) -> None:
    partial, done_count = root / "r.jsonl.part", 0
    workers: list[int] = []
    for _ in range(3):
        process = start("-o", "r.jsonl")
        wait_until_more(partial, done_count + 8, process)
        process.send_signal(signal.SIGSTOP)  # stop the process, because finding its children takes time
        workers += workers_of(process.pid)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        assert not (root / "r.jsonl").exists()
        assert lines_of(partial) > done_count
        done_count = lines_of(partial)
    exit_code, out, err = finish(start("-o", "r.jsonl"))
    assert exit_code == 1, err
    counts = Counter(files(root / "r.jsonl")) + Counter(files(root / "r.jsonl.errors.jsonl"))
    assert counts == Counter(f"photos/class-{index % 4}/{index:03}.png" for index in range(IMAGES))
    assert len(files(root / "r.jsonl.errors.jsonl")) == IMAGES / 50
    remaining = int(re.search(r"This run: (\d+) images", out).group(1))  # type: ignore[union-attr]
    assert remaining <= IMAGES - done_count + 1, "finished images are not repeated"
    assert not partial.exists()
    _assert_no_orphans(workers)


def _assert_no_orphans(workers: list[int]) -> None:
    assert workers
    deadline_s = time.monotonic() + 10
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline_s, "decoding processes outlive the job"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("signal_number", "expected_code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_stop_is_reported_and_keeps_what_is_done(
    root: Path, start: JobStarter, signal_number: signal.Signals, expected_code: int
) -> None:
    process = start("-o", "r.csv", "--overwrite")
    wait_until_more(root / "r.csv.part", 20, process)
    process.send_signal(signal_number)
    exit_code, _, err = finish(process)
    assert exit_code == expected_code
    assert "Run the same command again, without --overwrite, to resume the job." in err
    assert "Traceback" not in err
    assert not (root / "r.csv").exists()


def test_a_dead_decoder_ends_the_job_with_4_and_the_same_command_continues(root: Path, start: JobStarter) -> None:
    process = start("-o", "r.jsonl")
    os.kill(first_decoder(process), signal.SIGKILL)
    exit_code, _, err = finish(process)
    assert exit_code == EXIT_RETRY, err
    assert "A decoding process died" in err
    assert "to resume the job" in err
    exit_code, out, err = finish(start("-o", "r.jsonl"))
    assert exit_code == EXIT_PARTIAL, err
    assert "slow version 1: 245 classified, 5 broken." in out


def test_an_unreachable_bucket_ends_the_job_with_4(root: Path, start: JobStarter) -> None:
    exit_code, _, err = finish(start("-o", "r.jsonl", "file:///nowhere/at/all"))
    assert exit_code == EXIT_RETRY
    assert "cannot be read" in err


def test_concurrent_jobs_cannot_share_an_output(root: Path, start: JobStarter) -> None:
    with Journal(root / "r.jsonl.part"):
        exit_code, _, err = finish(start("-o", "r.jsonl"))
    assert exit_code == EXIT_RETRY
    assert "Another process is writing r.jsonl.part" in err


@pytest.mark.slow
def test_the_pods_of_an_indexed_job_divide_the_images(root: Path, start: JobStarter) -> None:
    pods = [start("-o", "r.jsonl", JOB_COMPLETION_INDEX=str(index), JOB_COMPLETIONS="2") for index in range(2)]
    ends = [finish(pod) for pod in pods]
    assert {exit_code for exit_code, _, _ in ends} <= {0, 1}, ends
    good = files(root / "r-1-of-2.jsonl") + files(root / "r-2-of-2.jsonl")
    assert len(good) == len(set(good)) == IMAGES - IMAGES // 50
    again, out, _ = finish(start("-o", "r.jsonl", JOB_COMPLETION_INDEX="1", JOB_COMPLETIONS="2"))
    assert again == ends[1][0]
    assert "nothing was left to do" in out


def test_a_clean_job_ends_with_0_and_its_summary(root: Path, start: JobStarter) -> None:
    (root / "photos/class-0").rename(root / "apart")  # this class contains the damaged images
    (root / "photos/class-2").rename(root / "apart too")
    exit_code, out, err = finish(start("-o", "deep/er/r.jsonl"))
    assert exit_code == 0, err
    assert out.startswith("slow version 1: 125 classified, 0 broken.")
    assert "Accuracy: " in out
    summary: dict[str, Any] = json.loads((root / "deep/er/r.jsonl.summary.json").read_text())
    assert summary["classified"] == 125
