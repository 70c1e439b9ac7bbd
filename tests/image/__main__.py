"""Builds the images and uses each of them as a user would: `python -m tests.image`, or `make image-test`.

Needs root and Debian's packages buildah, debootstrap and runc. Exits with 1 if an image fails a check, and with 2 if a
tool is missing.
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from tests.bench.processes import free_ports
from tests.image import builder
from tests.image.checks import TIMEOUT_S, CheckFailed, build_image, is_answering, require, transcript, wait_until
from tests.image.container import Container

TOOLS = ("buildah", "debootstrap", "runc")
SEVEN = builder.ROOT / "tests/data/seven.png"
DISTRIBUTED = builder.ROOT / "k8s/jobs/distributed/job.yaml"
MAX_LAYERS_MB = 300
NO_CUDA = "CUDAExecutionProvider cannot be used"
FORBIDDEN = (
    *("usr/bin/gcc", "usr/bin/cc", "usr/bin/g++", "opt/convoy/bin/convoy-train"),
    *(f"opt/convoy/lib/python3*/site-packages/{name}" for name in ("keras", "tensorflow", "training", "onnx")),
    *(f"{place}/bin/pip*" for place in ("opt/convoy", "usr", "usr/local")),
    *(f"{place}/lib/python3*/*-packages/pip" for place in ("opt/convoy", "usr", "usr/local")),
)
BASE_PYTHON = "import sys; print(sys._base_executable)"
HAS_PIP = "import importlib.util; print(importlib.util.find_spec('pip'))"


def main() -> int:
    args = _arguments()
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        print(f"SKIPPED: install {', '.join(missing)} (Debian packages of these names).", file=sys.stderr)
        return 2
    base = args.base or builder.base()
    transcript(f"{base}: {builder.bytes_in(base) / 1e6:.0f} MB")
    try:
        for target in args.targets or DEFAULT_TARGETS:
            started_s = time.monotonic()
            TARGETS[target](base)
            transcript(f"{target}: all checks passed in {time.monotonic() - started_s:.0f} s")
    except (CheckFailed, subprocess.CalledProcessError, httpx.HTTPError, TimeoutError) as error:
        print(f"FAILED: {error}")
        return 1
    print("PASSED")
    if args.report:
        transcript.write(args.report, "images", shlex.join(["python", "-m", "tests.image", *sys.argv[1:]]))
    return 0


def _cpu(base: str) -> None:
    image, config = build_image("service/Dockerfile", "cpu", base, MAX_LAYERS_MB)
    require(config.get("Healthcheck"), "the image has no HEALTHCHECK")
    with builder.mounted(image) as tree:
        _check_no_build_tools(tree)
        for workers in (1, 2):
            _serve_and_stop(tree, config, workers)


def _check_no_build_tools(tree: Path) -> None:
    forbidden_files = [str(file.relative_to(tree)) for pattern in FORBIDDEN for file in tree.glob(pattern)]
    require(not forbidden_files, f"the image contains {', '.join(forbidden_files)}")


def _gpu(base: str) -> None:
    """Checks the GPU image without a GPU: it serves on the CPU, but fails if CUDA is required."""
    image, config = build_image("service/Dockerfile", "gpu", base)
    with builder.mounted(image) as tree:
        _check_no_build_tools(tree)
        _serve_and_stop(tree, config, workers=1)
        (port,) = free_ports()
        settings = {"CONVOY_HOST": "127.0.0.1", "CONVOY_PORT": str(port), "CONVOY_DEVICE": "cuda"}
        with Container(tree, config, environment=settings) as container:
            wait_until(lambda: NO_CUDA in container.log(), "asked for CUDA", container)
            require(
                not _healthy(container, config), "the container is healthy without the GPU that CONVOY_DEVICE requires"
            )
            error_line = next(json.loads(line) for line in container.log().splitlines() if NO_CUDA in line)
            transcript(f"  CONVOY_DEVICE=cuda without a GPU: not healthy; {error_line['reason']}")


def _serve_and_stop(tree: Path, config: dict[str, Any], workers: int) -> None:
    (port,) = free_ports()
    settings = {"CONVOY_HOST": "127.0.0.1", "CONVOY_PORT": str(port), "CONVOY_WORKERS": str(workers)}
    started_s = time.monotonic()
    with Container(tree, config, environment=settings) as container:
        wait_until(lambda: _healthy(container, config), "healthy", container)
        healthy_s = time.monotonic() - started_s
        url = f"http://127.0.0.1:{port}/api/v1/models/mnist-lenet5/classify?top_k=1"
        answer = httpx.post(url, content=SEVEN.read_bytes()).raise_for_status().json()
        require(answer["predictions"][0]["label"] == "7", f"a 7 is classified incorrectly: {answer}")
        _classifies_what_is_piped(container)
        _check_no_pip(container)
        _check_confined(container)
        container.send(signal.SIGTERM)
        stopped_s = time.monotonic()
        code = container.exit_code()
        require(code == 0, f"the container exited with {code} after SIGTERM")
    stop_s = time.monotonic() - stopped_s
    seven = f"{answer['predictions'][0]['label']} {answer['predictions'][0]['probability']:.2%}"
    transcript(
        f"  {workers} worker(s): healthy after {healthy_s:.1f} s; {SEVEN.name}: {seven}; stopped in {stop_s:.1f} s"
    )


def _check_no_pip(container: Container) -> None:
    """Checks that neither Convoy's environment nor the base Python can import pip."""
    for python in ("python", container.exec("python", "-c", BASE_PYTHON).stdout.strip()):
        answer = container.exec(python, "-c", HAS_PIP)
        require(answer.stdout.strip() == "None", f"{python} has pip: {answer.stdout or answer.stderr}")


def _classifies_what_is_piped(container: Container) -> None:
    """Checks the last of the five commands of docs/kubernetes.md, which classifies an image from standard input."""
    with subprocess.Popen(["cat", SEVEN], stdout=subprocess.PIPE) as pipe:
        answer = container.exec("convoy", "classify", "mnist-lenet5", "/dev/stdin", stdin=pipe.stdout)
    require(answer.stdout.startswith("/dev/stdin: 7 "), f"a 7 on standard input gives {answer.stdout or answer.stderr}")


def _healthy(container: Container, config: dict[str, Any]) -> bool:
    return container.exec(*config["Healthcheck"]["Test"][1:]).returncode == 0


def _check_confined(container: Container) -> None:
    """Checks that process 1 is Convoy, runs as its own user, and can write only to /tmp."""
    require("convoy\0serve" in container.exec("cat", "/proc/1/cmdline").stdout, "process 1 is not Convoy")
    status = dict(line.split(":\t", 1) for line in container.exec("cat", "/proc/1/status").stdout.splitlines())
    require("0" not in status["Uid"].split(), f"process 1 runs as root: {status['Uid']}")
    require(int(status["CapEff"], 16) == 0, f"process 1 has capabilities: {status['CapEff']}")
    for place in ("/models/x", "/opt/convoy/x", "/x"):
        require(container.exec("touch", place).returncode, f"{place} is writable")


def _load(base: str) -> None:
    (port, page) = free_ports(2)
    cpu, cpu_config = build_image("service/Dockerfile", "cpu", base)
    load, load_config = build_image("service/Dockerfile", "load", base)
    with ExitStack() as stack:
        service_tree, locust_tree = (stack.enter_context(builder.mounted(image)) for image in (cpu, load))
        settings = {"CONVOY_HOST": "127.0.0.1", "CONVOY_PORT": str(port)}
        service = stack.enter_context(Container(service_tree, cpu_config, environment=settings))
        wait_until(lambda: _healthy(service, cpu_config), "healthy", service)
        command = [f"http://127.0.0.1:{port}", f"--web-port={page}"]
        locust = stack.enter_context(Container(locust_tree, load_config, command=command))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{page}"))
        wait_until(lambda: is_answering(client, "/"), "shown", locust)
        client.post("/swarm", data={"user_count": 2, "spawn_rate": 2}).raise_for_status()
        wait_until(lambda: _total(client)["num_requests"] > 100, "loading", locust)
        client.post("/stop").raise_for_status()
        total = _total(client)
        require(total["num_failures"] == 0, f"{total['num_failures']} of {total['num_requests']} requests failed")
        transcript(f"  locust's page: {total['num_requests']} requests, none failed")


def _total(client: httpx.Client) -> dict[str, Any]:
    total: dict[str, Any] = client.get("/stats/requests").raise_for_status().json()["stats"][-1]
    return total


def _train(base: str) -> None:
    train, train_config = build_image("training/Dockerfile", "train", base)
    tensorboard_image, board_config = build_image("training/Dockerfile", "tensorboard", base)
    with TemporaryDirectory(prefix="convoy-train-") as name, builder.mounted(train) as tree:
        binds = {f"/work/{part}": Path(name, part) for part in ("runs", "models")}
        for folder in binds.values():
            folder.mkdir()
            folder.chmod(0o777)
        Path(name).chmod(0o755)
        run = ["run", "xo", "--epochs=2", "--limit=64", "--tensorboard"]
        _run_to_end(tree, train_config, run, binds)
        (run_folder,) = binds["/work/runs"].glob("xo/*")
        _run_to_end(tree, train_config, ["export", f"runs/xo/{run_folder.name}", "--name=xo"], binds)
        require((binds["/work/models"] / "xo/1/model.onnx").exists(), "no version was exported")
        _train_distributed(tree, train_config, binds)
        _show_tensorboard(tensorboard_image, board_config, binds["/work/runs"])


def _train_distributed(tree: Path, config: dict[str, Any], binds: dict[str, Path]) -> None:
    """Trains one run in as many containers as the distributed Job has pods, each with the Job's environment."""
    spec = yaml.safe_load(DISTRIBUTED.read_text())["spec"]
    environment = {entry["name"]: entry["value"] for entry in spec["template"]["spec"]["containers"][0]["env"]}
    (port,) = free_ports()
    environment["CONVOY_COORDINATOR"] = f"127.0.0.1:{port}"
    command = ["run", "xo", "--distributed", "--epochs=1", "--limit=64"]
    with ExitStack() as stack:
        pods = []
        for index in range(spec["completions"]):
            pod_environment = environment | {"JOB_COMPLETION_INDEX": str(index)}
            pods.append(
                stack.enter_context(Container(tree, config, command=command, environment=pod_environment, binds=binds))
            )
        for pod in pods:
            require(pod.exit_code(TIMEOUT_S) == 0, f"{' '.join(command)} failed:\n{pod.log()}")
        transcript(f"  {len(pods)} containers on {environment['KERAS_BACKEND']}: {_last_line(pods[0])}")


def _run_to_end(tree: Path, config: dict[str, Any], command: list[str], binds: dict[str, Path]) -> None:
    """Runs the command to its end and prints its last line."""
    with Container(tree, config, command=command, binds=binds) as container:
        require(container.exit_code(TIMEOUT_S) == 0, f"{' '.join(command)} failed:\n{container.log()}")
        transcript(f"  {_last_line(container)}")


def _last_line(container: Container) -> str:
    return container.log().strip().rpartition("\n")[2]


def _show_tensorboard(image: str, config: dict[str, Any], runs: Path) -> None:
    (port,) = free_ports()
    command = ["--logdir=/work/runs", f"--port={port}"]
    with (
        builder.mounted(image) as tree,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
        Container(tree, config, command=command, binds={"/work/runs": runs}) as container,
    ):
        tags = "/data/plugin/scalars/tags"
        wait_until(lambda: is_answering(client, tags) and client.get(tags).json(), "shown", container)
        transcript(f"  TensorBoard shows {', '.join(sorted(next(iter(client.get(tags).json().values()))))}")


TARGETS: dict[str, Callable[[str], None]] = {"cpu": _cpu, "load": _load, "train": _train, "gpu": _gpu}
DEFAULT_TARGETS = ("cpu", "load", "train")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.image", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, []], help=f"which; default: {' '.join(DEFAULT_TARGETS)}"
    )
    parser.add_argument("--report", type=Path, help="Markdown file whose section `images` receives the output")
    parser.add_argument("--base", help="an image with python3 and venv; default: built from Debian packages")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
