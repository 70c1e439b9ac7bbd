"""The halves meet in the contract only, and each library is imported where it belongs and nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What must be the same on both sides. The service knows nothing of training.
SHARED = {
    f"service.{name}"
    for name in (
        *("cores", "errors", "hardware", "images", "manifest", "preprocess", "providers", "repository", "samples"),
        "session",
    )
}

ARCHITECTURES_KNOW = {"training.architectures.layers", "training.architectures.kernels"}

# Libraries that are known in some places only.
LIBRARIES = {
    "click": {
        "service.cli",
        "service.cli_batch",
        "service.cli_keys",
        "service.cli_models",
        "service.completion",
        "service.flags",
        "training.cli",
        "training.options",
    },
    "fastapi": {"service.api", "service.app"},
    "httpx": {"service.client"},
    "jax": {"training.distributed"},
    "keras": {"training"},
    "matplotlib": {"training"},
    "onnx": {"training"},
    "onnxruntime": {"service.session", "training.original", "training.quantize"},
    "prometheus_client": {
        "service.durations",
        "service.metrics",
        "service.sums",
        "service.tally",
        "service.version_metrics",
    },
    "pyspng": {"service.png"},
    "opentelemetry": {"service.tracing"},
    "pyarrow": {"service.jobs.results"},
    "pydantic_settings": {"service.settings"},
    "starlette": {"service.api", "service.app", "service.worker"},
    "tensorflow": {"training.backend", "training.convert", "training.fused"},
    "tf2onnx": {"training.convert", "training.frugal"},
    "uvicorn": {"service.wire", "service.worker"},
}


def modules_of(half: str) -> dict[str, Path]:
    """Every module of a half by its dotted name; a package goes by its own name."""
    files = sorted((ROOT / half).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


MODULES = modules_of("service") | modules_of("training")


def imported_by(module: str) -> set[str]:
    """Dotted names of all that a module imports, wherever in its text: modules of ours, or libraries."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", modules_of("service"))
def test_the_service_knows_nothing_of_training(module: str) -> None:
    assert not any(within(name, {"training"}) for name in imported_by(module))


@pytest.mark.parametrize("module", modules_of("training"))
def test_training_shares_only_the_contract(module: str) -> None:
    assert {name for name in imported_by(module) if within(name, {"service"})} <= SHARED


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("training.architectures.")])
def test_an_architecture_knows_only_layers(module: str) -> None:
    assert {name for name in imported_by(module) if within(name, {"training"})} <= ARCHITECTURES_KNOW


@pytest.mark.parametrize("module", MODULES)
def test_libraries_are_known_where_they_belong(module: str) -> None:
    used = {name.split(".")[0] for name in imported_by(module)} & LIBRARIES.keys()
    assert sorted(library for library in used if not within(module, LIBRARIES[library])) == []


def test_a_running_service_has_nothing_of_training_in_memory() -> None:
    program = (
        "import sys, service.cli, service.app, service.offline; print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert not set(loaded.stdout.split()) & {"training", "keras", "tensorflow", "onnx", "tf2onnx", "matplotlib"}
