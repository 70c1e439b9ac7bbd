"""Creates the models of a check: the shipped models and two large networks with random weights, in float32 and
float16."""

import shutil
from pathlib import Path

import onnx

from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    File,
    Input,
    Manifest,
    Preprocessing,
    Provenance,
    Variant,
    read_manifest,
    write_manifest,
)
from service.model_store.repository import Repository
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row
from tests.gpu.weightless_graphs import GRAPHS, fill_weights
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import out_of_memory_graph
from training.export.quantization.convert_precision import to_float16

SHIPPED = Path(__file__).parents[3] / "models"
IMAGENET = Input(height=224, width=224, channels=3)
CLASSES = 1000
OUT_OF_MEMORY, OUT_OF_MEMORY_SHAPE = "hungry", (8, 8, 1)
FLOAT32, FLOAT16 = "model.onnx", "model.fp16.onnx"


def measure(plan: Plan, add: Add) -> None:
    """Writes the models to plan.models."""
    for name in _shipped():
        _copy_shipped(name, plan.models / name / "1")
        add(Row(name, "as it ships, and its float32 graph as float16"))
    for name in plan.sizes.random_weights:
        _write_random_network(name, plan.models / name / "1")
        add(Row(name, "random weights, float32 and float16"))
    write_version(
        plan.models, OUT_OF_MEMORY, shape=OUT_OF_MEMORY_SHAPE, graph=out_of_memory_graph(OUT_OF_MEMORY_SHAPE, 4)
    )


def networks(plan: Plan) -> list[str]:
    """Returns the complete models in the order of creation."""
    return [
        name for name in (*_shipped(), *plan.sizes.random_weights) if (plan.models / name / "1/manifest.json").exists()
    ]


def graph(plan: Plan, name: str, precision: str) -> Path:
    return plan.models / name / "1" / (FLOAT16 if precision == "float16" else FLOAT32)


def manifest(plan: Plan, name: str) -> Manifest:
    return read_manifest(plan.models / name / "1")


def folder_with_only(plan: Plan, name: str) -> Path:
    """Returns a models folder with only this model."""
    folder = plan.work / f"only-{name}"
    if not folder.exists():
        folder.mkdir()
        (folder / name).symlink_to(plan.models / name)
    return folder


def _shipped() -> list[str]:
    return Repository(SHIPPED).models()


def _copy_shipped(name: str, to: Path) -> None:
    newest = SHIPPED / name / str(Repository(SHIPPED).versions(name)[-1])
    shipped = read_manifest(newest)
    to.mkdir(parents=True)
    for file in (FLOAT32, shipped.labels.file):
        shutil.copy(newest / file, to / file)
    _add_float16(to, shipped.model_copy(update={"extra_graphs": {}, "samples": None}))


def _write_random_network(name: str, to: Path) -> None:
    model = onnx.load(GRAPHS / f"{name}.onnx")
    fill_weights(model)
    to.mkdir(parents=True)
    onnx.save(model, to / FLOAT32)
    (to / "labels.txt").write_text("".join(f"class {number}\n" for number in range(CLASSES)))
    labels = File(file="labels.txt", sha256=sha256_of(to / "labels.txt"))
    preprocessing = Preprocessing(resize="shorter", shorter=256)
    provenance = Provenance(source="random weights", created_utc="2026-01-01T00:00:00Z")
    variants = [_variant(to / FLOAT32, "float32")]
    _add_float16(
        to,
        Manifest(
            input=IMAGENET,
            preprocessing=preprocessing,
            classes=CLASSES,
            labels=labels,
            variants=variants,
            provenance=provenance,
        ),
    )


def _add_float16(folder: Path, manifest: Manifest) -> None:
    to_float16(folder / FLOAT32, folder / FLOAT16)
    variants = [_variant(folder / FLOAT32, "float32"), _variant(folder / FLOAT16, "float16")]
    write_manifest(manifest.model_copy(update={"variants": variants}), folder)


def _variant(file: Path, precision: str) -> Variant:
    return Variant(file=file.name, sha256=sha256_of(file), precision=precision, bytes=file.stat().st_size)  # type: ignore[arg-type]
