"""The commands of rendered Jobs work as local processes with the environment that Kubernetes gives to each pod."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.images import image_bytes
from tests.support.kubernetes_manifests import K8S, Manifest, environment, of_kind, render
from tests.support.model_versions import write_version
from training.runs.run_folder import Run

pytestmark = pytest.mark.slow

IMAGES = 43
TIMEOUT_S = 300
EXIT_BROKEN_IMAGES = 1


def pods(
    job: str,
    folder: Path,
    instead: dict[str, str] | None = None,
    *more: str,
    only: Sequence[int] | None = None,
    **overrides: str,
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Runs the container of every pod of the Job with the Job's parallelism. `folder` is its working folder.

    `instead` replaces words of the command, `more` appends words, and `overrides` changes the environment. `only`
    contains the indexes of the pods to run.
    """
    manifests = render(K8S / "jobs" / job)
    spec: Manifest = of_kind(manifests, "Job")["spec"]
    program, *words = spec["template"]["spec"]["containers"][0]["command"]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CONVOY_", "JOB_"))}
    from_manifest = {key: value.replace("/work", str(folder)) for key, value in environment(manifests).items()}

    def run(index: int) -> subprocess.CompletedProcess[str]:
        environ = {**inherited, **from_manifest, **overrides, "JOB_COMPLETION_INDEX": str(index)}
        arguments = [(instead or {}).get(word, word) for word in words]
        command = [Path(sys.executable).with_name(program), *arguments, *more]
        return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S)

    with ThreadPoolExecutor(spec["parallelism"]) as pool:
        yield from pool.map(run, range(spec["completions"]) if only is None else only)


def test_the_pods_of_the_batch_job_classify_all_images(tmp_path: Path) -> None:
    write_version(tmp_path / "models", "mnist-lenet5", 1)
    photos = tmp_path / "data/photos"
    photos.mkdir(parents=True)
    for number in range(IMAGES):
        (photos / f"{number}.png").write_bytes(image_bytes())
    (photos / "broken.png").write_bytes(b"nothing of the kind")
    processes = list(pods("batch", tmp_path))
    assert sorted(one.returncode for one in processes) == [0] * 7 + [EXIT_BROKEN_IMAGES], [
        one.stderr for one in processes
    ]
    files = sorted((tmp_path / "results").glob("*.jsonl"))
    answers = [file for file in files if not file.name.endswith(".errors.jsonl")]
    assert len(answers) == 8
    assert sorted(names(answers)) == sorted(f"{number}.png" for number in range(IMAGES)), "each exactly once"
    assert names([file for file in files if file not in answers]) == ["broken.png"]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_the_pods_of_the_distributed_job_train_one_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    tiny = {"cifar10-resnet20": "xo"}, "--limit", "64", "--epochs", "1"
    processes = list(pods("distributed", tmp_path, *tiny, CONVOY_COORDINATOR=coordinator))
    assert [one.returncode for one in processes] == [0, 0], [one.stderr for one in processes]
    (run,) = (tmp_path / "runs/xo").glob("[0-9]*")
    assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] >= 0


def test_a_pod_of_the_sweep_job_trains_the_combination_of_its_number_and_continues(tmp_path: Path) -> None:
    tiny = {"mnist-lenet5": "xo"}, "--limit", "256", "--epochs", "1"
    processes = list(pods("sweep", tmp_path, *tiny, only=[0, 5]))
    assert [one.returncode for one in processes] == [0, 0], [one.stderr for one in processes]
    runs = [Run(next((tmp_path / f"runs/xo-sweep-{index}").glob("[0-9]*"))).recipe() for index in (0, 5)]
    assert [(recipe.learning_rate, recipe.batch_size) for recipe in runs] == [(0.01, 64), (0.05, 128)]
    (again,) = pods("sweep", tmp_path, *tiny, only=[5])
    assert again.returncode == 0, again.stderr
    assert "has finished already" in again.stdout


def names(files: list[Path]) -> list[str]:
    """Returns the names of the images in result files."""
    records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [Path(record["file"]).name for record in records]
