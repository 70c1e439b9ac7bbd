"""Two processes train one network with the same losses as one process, even if they are stopped and resumed."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from service.model_store.manifest import read_manifest
from training.architectures import ARCHITECTURES
from training.architectures.layers import UNIT_RANGE, Normalization, conv_norm, logits_layer, normalized_input, relu
from training.cli import main
from training.errors import PeerLost
from training.runs.run_folder import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
]

PROGRAM = """
from tests.integration.training.test_distributed import batchnorm_network
from training.architectures import ARCHITECTURES
from training.cli import main
ARCHITECTURES["batchnorm"] = batchnorm_network
main()
"""
ROOT = Path(__file__).parents[3]
EPOCHS = 3
SETTINGS = ("architecture=batchnorm", "batch_size=16", "validation=32", "keep=best")
EXIT_TIMEOUT_S = 300

Process = subprocess.Popen[str]
PROCESSES: list[Process] = []


def batchnorm_network(
    input_shape: tuple[int, int, int] = (24, 24, 1), classes: int = 2, normalization: Normalization = UNIT_RANGE
) -> keras.Model:
    """Returns a network with batch normalization that compiles in a second. It is smaller than all networks in the
    zoo."""
    image, x = normalized_input(input_shape, normalization)
    x = relu(conv_norm(x, 4, 3, 2, "only"), "only")
    return keras.Model(image, logits_layer(keras.layers.Flatten()(x), classes))


@pytest.fixture(scope="module", autouse=True)
def kill_leftovers() -> Iterator[None]:
    yield
    for process in PROCESSES:
        process.kill()
        process.communicate()


def command(runs_dir: Path, *more: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    recipe = [] if "--resume" in more else ["--limit", "64", "--epochs", str(EPOCHS), *settings]
    return [sys.executable, "-c", PROGRAM, "run", "xo", "--runs-dir", str(runs_dir), *recipe, *more]


def start(line: list[str], **environment: str) -> Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CONVOY_", "JOB_"))}
    env = inherited | {"KERAS_BACKEND": "jax"} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    PROCESSES.append(subprocess.Popen(line, env=env, cwd=ROOT, text=True, **pipes))
    return PROCESSES[-1]


def start_two(*lines: list[str]) -> list[Process]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    names = {"CONVOY_COORDINATOR": f"127.0.0.1:{port}", "CONVOY_NUM_PROCESSES": "2"}
    return [
        start([*line, "--distributed"], **names, CONVOY_PROCESS_ID=str(process)) for process, line in enumerate(lines)
    ]


def wait_for_exit(process: Process) -> tuple[int, str]:
    """Returns the exit code and the last line of standard error."""
    try:
        _, errors = process.communicate(timeout=EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, errors.strip().splitlines()[-1] if errors.strip() else ""


def only_run(runs_dir: Path) -> Run:
    [folder] = (runs_dir / "xo").iterdir()
    return Run(folder)


def losses(run: Run) -> np.ndarray:
    return np.array([[row[name] for name in ("loss", "val_loss")] for row in run.history()])


@pytest.fixture(scope="module")
def single_process_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns the run of one process, which is the reference for the other runs."""
    runs_dir = tmp_path_factory.mktemp("alone")
    assert wait_for_exit(start(command(runs_dir)))[0] == 0
    return only_run(runs_dir)


@pytest.fixture(scope="module")
def two_process_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns the run of two processes, which were both killed after the first epoch and resumed."""
    runs_dir = tmp_path_factory.mktemp("shared")
    two = start_two(*[command(runs_dir)] * 2)
    for line in iter(two[0].stdout.readline, ""):
        if line.startswith("epoch 1/"):
            break
    for process in two:
        process.send_signal(signal.SIGKILL)
    assert [wait_for_exit(process)[0] for process in two] == [-signal.SIGKILL] * 2
    assert len(only_run(runs_dir).history()) < EPOCHS
    assert [wait_for_exit(process)[0] for process in start_two(*[command(runs_dir, "--resume")] * 2)] == [0, 0]
    return only_run(runs_dir)


def test_two_processes_reach_the_losses_of_one(single_process_run: Run, two_process_run: Run) -> None:
    """Batch normalization uses the statistics of the whole batch, not of each process's half."""
    np.testing.assert_allclose(losses(two_process_run), losses(single_process_run), rtol=1e-5)
    assert two_process_run.info()["distributed"] == {"processes": 2, "devices": 2, "device": "cpu"}
    assert two_process_run.metrics()["test"]["accuracy"] == single_process_run.metrics()["test"]["accuracy"]
    assert two_process_run.metrics()["test"]["images"] == 64


def test_a_network_trained_with_jax_is_exported_with_tensorflow(
    two_process_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "batchnorm", batchnorm_network)
    words = [
        "export",
        str(two_process_run.folder),
        "--name",
        "shared",
        "--models-dir",
        str(tmp_path),
        "--no-features",
        "--logits",
    ]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    [variant] = read_manifest(tmp_path / "shared" / "1").variants
    assert variant.precision == "float32"
    assert variant.parity.images == 1000
    assert variant.parity.max_abs_difference < 1e-5


def test_processes_with_other_numbers_of_steps_are_rejected_before_they_train(tmp_path: Path) -> None:
    two = start_two(command(tmp_path), command(tmp_path, "--limit", "48"))
    for code, last in map(wait_for_exit, two):
        assert code == 2
        assert "number of steps per epoch is 4 in process 0, 3 in process 1" in last
    assert not list(tmp_path.iterdir())


def test_when_one_is_killed_the_other_ends_and_states_how_to_continue(tmp_path: Path) -> None:
    first, second = start_two(*[command(tmp_path, "--epochs", "100000")] * 2)
    for line in iter(first.stdout.readline, ""):
        if line.startswith("epoch 1/"):
            break
    second.kill()
    code, last = wait_for_exit(first)
    assert wait_for_exit(second)[0] == -signal.SIGKILL
    assert code == PeerLost.exit_code == 5, "a Job must be able to distinguish it from an invalid command"
    assert last.startswith("Error: ")
    assert "Process 1 of 2 was lost" in last or "Another process was lost" in last
    assert last.endswith("with --resume, in all processes.")
