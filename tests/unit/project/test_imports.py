"""Libraries are imported only where it is allowed, and no package uses another's private names.

Which package may import which other is laid down in the contracts of import-linter, `[tool.importlinter]` in
pyproject.toml, which `make lint` checks.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for half in ("service", "training")
    for path in sorted((ROOT / half).rglob("*.py"))
}

# Library -> the packages and modules that may import it.
LIBRARIES = {
    "click": {"service.cli", "service.command_group", "training.cli"},
    "fastapi": {"service.api", "service.app"},
    "httpx": {"service.client"},
    "jax": {"training.fit.distributed"},
    "keras": {"training"},
    "matplotlib": {"training"},
    "onnx": {"training"},
    "onnxruntime": {
        "service.inference.openvino_plugin",
        "service.inference.session",
        "training.export.quantization.convert_precision",
        "training.onnx_import.reference_model",
    },
    "opentelemetry": {"service.observability.tracing"},
    "prometheus_client": {"service.observability"},
    "pydantic_settings": {"service.settings"},
    "starlette": {"service.api", "service.app", "service.server.worker"},
    "tensorflow": {
        "training.export.graph.keras_to_onnx",
        "training.export.keras_files",
        "training.fit.fused_batchnorm",
        "training.keras_setup",
        "training.runs.tensorboard",
    },
    "tf2onnx": {"training.export.graph.keras_to_onnx"},
    "uvicorn": {"service.server"},
}


def imports_of(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yields (module, name) of every import in a file, at any place. The name is None for `import module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def package_of(module: str) -> str:
    """Returns the package below `service` or `training` that contains a module. A leaf module is its own package."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    packages = tuple(LIBRARIES[library])
    importing = {
        module
        for module, path in MODULES.items()
        if any(imported.split(".")[0] == library for imported, _ in imports_of(path))
    }
    assert importing
    assert sorted(module for module in importing if not f"{module}.".startswith(tuple(f"{p}." for p in packages))) == []


def test_no_package_imports_a_private_name_of_another() -> None:
    private = [
        f"{module} imports {imported}.{name}"
        for module, path in MODULES.items()
        for imported, name in imports_of(path)
        if name is not None and name.startswith("_") and package_of(imported) != package_of(module)
    ]
    assert private == []


def test_no_module_uses_a_private_attribute_of_a_module_of_another_package() -> None:
    private = []
    for module, path in MODULES.items():
        modules = {name: f"{imported}.{name}" for imported, name in imports_of(path) if f"{imported}.{name}" in MODULES}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and isinstance(node.value, ast.Name):
                owner = modules.get(node.value.id)
                if owner is not None and package_of(owner) != package_of(module):
                    private.append(f"{module} uses {owner}.{node.attr}")
    assert private == []


def test_imports_are_absolute() -> None:
    relative = [
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_a_running_service_does_not_import_training() -> None:
    program = (
        "import sys, service.cli, service.app, service.batch_jobs.classify_files;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert not set(loaded.stdout.split()) & {"training", "keras", "tensorflow", "onnx", "tf2onnx", "matplotlib"}
