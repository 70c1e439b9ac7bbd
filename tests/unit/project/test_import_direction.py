"""The halves meet in the contract only, and each library is imported where it belongs and nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# What must be the same on both sides. The service knows nothing of training.
SHARED = {
    f"service.{name}"
    for name in (
        "command_group",
        "errors",
        "hardware",
        "imaging.decode",
        "imaging.preprocess",
        "imaging.render",
        "inference.providers",
        "inference.session",
        "model_store.checksums",
        "model_store.golden_samples",
        "model_store.manifest",
        "model_store.repository",
    )
}

ARCHITECTURES_KNOW = {"training.architectures.layers", "training.architectures.kernels"}

# Libraries that are known in some places only.
LIBRARIES = {
    "click": {
        "service.cli",
        "service.cli.batch",
        "service.cli.keys",
        "service.cli.models",
        "service.cli.options",
        "service.command_group",
        "training.cli",
        "training.cli.options",
    },
    "fastapi": {"service.api", "service.app"},
    "httpx": {"service.client"},
    "jax": {"training.fit.distributed.data_parallel"},
    "keras": {"training"},
    "matplotlib": {"training"},
    "onnx": {"training"},
    "onnxruntime": {
        "service.inference.session",
        "training.onnx_import.reference_model",
        "training.export.quantization.precision",
    },
    "prometheus_client": {
        "service.observability.collectors",
        "service.observability.metrics",
        "service.observability.multiprocess",
    },
    "pyspng": {"service.imaging.fast_png"},
    "opentelemetry": {"service.observability.tracing"},
    "pyarrow": {"service.batch_jobs.writers"},
    "pydantic_settings": {"service.settings"},
    "starlette": {"service.api", "service.app", "service.server.worker"},
    "tensorflow": {"training.keras_setup", "training.export.graph.keras_to_onnx", "training.fit.fused_batchnorm"},
    "tf2onnx": {"training.export.graph.keras_to_onnx"},
    "uvicorn": {"service.server.connection_limits", "service.server.worker"},
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


OWN_NETWORKS = [n for n in MODULES if n.startswith("training.architectures.") and not n.endswith("keras_applications")]


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", modules_of("service"))
def test_the_service_knows_nothing_of_training(module: str) -> None:
    assert not any(within(name, {"training"}) for name in imported_by(module))


@pytest.mark.parametrize("module", modules_of("training"))
def test_training_shares_only_the_contract(module: str) -> None:
    assert {name for name in imported_by(module) if within(name, {"service"})} <= SHARED


@pytest.mark.parametrize("module", OWN_NETWORKS)
def test_an_architecture_knows_only_layers(module: str) -> None:
    assert {name for name in imported_by(module) if within(name, {"training"})} <= ARCHITECTURES_KNOW


@pytest.mark.parametrize("module", MODULES)
def test_libraries_are_known_where_they_belong(module: str) -> None:
    used = {name.split(".")[0] for name in imported_by(module)} & LIBRARIES.keys()
    assert sorted(library for library in used if not within(module, LIBRARIES[library])) == []


def test_a_running_service_has_nothing_of_training_in_memory() -> None:
    program = (
        "import sys, service.cli, service.app, service.batch_jobs.classify_files;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert not set(loaded.stdout.split()) & {"training", "keras", "tensorflow", "onnx", "tf2onnx", "matplotlib"}
