"""Imports go downwards only, every module has its place, and each library is known where it belongs and nowhere else.

A new module is named here in the layer where it belongs: above all that it imports, beside none of it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Lowest first. A module may import from the layers below its own, never from its own.
SERVICE = (
    # leaves
    "service api batch client cores decoders durations errors hardware heap joined leash lifecycle logs newcomers png "
    "room settings statistics tally",
    "deadlines manifest sums uptake wanted",
    "jobs jobs.confusion jobs.errors jobs.names jobs.progress keys metrics providers tracing version_metrics",
    # what knows one thing, and no other thing beside it
    "acceptor batcher board bucket drawings flags images jobs.shards occlusion preprocess repository samples session",
    "completion features jobs.pictures problems",
    "fetch jobs.decoding rollback served supervisor verify",
    # what is loaded, and for whom
    "jobs.pool mirror registry",
    "fleet follower journey source watchdog",
    "classifier watcher",
    "explainer",
    # offline jobs
    "jobs.records",
    "jobs.journal jobs.results jobs.summary",
    "jobs.files",
    "jobs.job",
    # doors: HTTP, from its parts to its endpoints
    "api.json_tensors api.reply api.schemas",
    "api.batch_json api.errors api.instances_v1 api.pages api.schemas_explain api.schemas_v1 api.tensors_v2",
    "api.body api.connection api.documented api.outputs_v2 api.schemas_v2",
    "api.compression api.documents api.guard api.hot api.middleware api.origins api.urgency",
    "api.classify api.docs api.explain api.infer_v2 api.models api.models_v2 api.ops api.playground api.predict_v1 "
    "api.repository_v2",
    "api.openapi_protocols",
    "api.openapi",
    "wire",
    "app cli_batch cli_keys cli_models offline",
    "worker",
    "server",
    "cli",
)

TRAINING = (
    # leaves
    "training averages datasets.cache draws errors filters frugal fused options page prefetch published waiting "
    "architectures.kernels architectures.layers",
    "circle clock costs datasets.listing files foreign_graph graph pictures recipes.base shares",
    "colour datasets.base distributed graph_join grid rewrites",
    "architectures.alexnet architectures.cifar_resnet architectures.convnetjs architectures.googlenet "
    "architectures.lenet architectures.mlp architectures.resnet architectures.resnet9 architectures.vgg "
    "architectures.xo architectures.zfnet",
    "adapt augment on_device datasets.cifar10 datasets.folder datasets.imagenette datasets.mnist datasets.xo "
    "graph_rows network_rows noise pretrained quantize "
    "recipes.cifar10_convnetjs recipes.cifar10_fast recipes.cifar10_resnet20 recipes.fine_tune recipes.imagenet "
    "recipes.imagenette recipes.mnist_lenet5 recipes.mnist_mlp recipes.own_pictures recipes.xo runs schedules servable "
    "versions",
    "architectures backend batches checkpoint convert datasets optimizers plots recipes tensorboard validation",
    "agreed callbacks compare describe evaluate inputs maps",
    "original sources",
    # a run, and what is made of it
    "card classes fitting report service_path",
    "calibration guesses keras_applications trainer variant_card",
    "earlier measure parity samples",
    "features sweep variants version_folder",
    "ensemble export foreign",
    "retrain",
    "cli.compare cli.describe cli.ensemble cli.evaluate cli.export cli.features cli.foreign cli.quantize cli.recipes "
    "cli.report cli.retrain cli.run",
    "cli.sweep",
    "cli",
)

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


def layers_of(half: str, layers: tuple[str, ...]) -> dict[str, int]:
    """The height of each module of a half."""
    names = [(name, height) for height, layer in enumerate(layers) for name in layer.split()]
    return {name if name == half else f"{half}.{name}": height for name, height in names}


HEIGHTS = layers_of("service", SERVICE) | layers_of("training", TRAINING)


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


def test_every_module_has_its_layer_and_every_layer_its_modules() -> None:
    assert sorted(MODULES.keys() - HEIGHTS.keys()) == [], "name these in the layer where they belong"
    assert sorted(HEIGHTS.keys() - MODULES.keys()) == [], "these are gone: take them out"


def test_no_module_stands_in_two_layers() -> None:
    named = [name for half in (SERVICE, TRAINING) for layer in half for name in layer.split()]
    assert len(named) == len(HEIGHTS)


@pytest.mark.parametrize("module", sorted(MODULES.keys() & HEIGHTS.keys()))
def test_imports_go_downwards(module: str) -> None:
    half = module.split(".")[0]
    ours = {name for name in imported_by(module) & HEIGHTS.keys() if name.split(".")[0] == half}
    assert sorted(name for name in ours if HEIGHTS[name] >= HEIGHTS[module]) == []


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
