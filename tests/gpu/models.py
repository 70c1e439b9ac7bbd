"""Writes the models of a check: the shipped models and ResNet-50 with random weights, each in float32 and float16."""

import shutil
from pathlib import Path

import onnx

from service.model_store.checksums import sha256_of
from service.model_store.manifest import Preprocessing, Variant, read_manifest, write_manifest
from service.model_store.repository import Repository
from tests.gpu.plan import RESNET50, Plan
from tests.gpu.weightless_graphs import GRAPHS, fill_weights
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import out_of_memory_graph
from training.export.quantization.convert_precision import to_float16

SHIPPED = Path(__file__).parents[2] / "models"
SHAPE, CLASSES = (224, 224, 3), 1000
OUT_OF_MEMORY, OUT_OF_MEMORY_SHAPE = "hungry", (8, 8, 1)


def write_models(plan: Plan) -> list[str]:
    """Writes plan.models. Returns the names of the models with both precisions."""
    repository = Repository(SHIPPED)
    for name in repository.models():
        newest = SHIPPED / name / str(repository.versions(name)[-1])
        shutil.copytree(newest, plan.models / name / "1")
        _write_precisions(plan, name)
    graph = onnx.load(GRAPHS / f"{RESNET50}.onnx")
    fill_weights(graph)
    preprocessing = Preprocessing(resize="shorter", shorter=256)
    write_version(plan.models, RESNET50, shape=SHAPE, classes=CLASSES, graph=graph, preprocessing=preprocessing)
    _write_precisions(plan, RESNET50)
    graph = out_of_memory_graph(OUT_OF_MEMORY_SHAPE, 4)
    write_version(plan.models, OUT_OF_MEMORY, shape=OUT_OF_MEMORY_SHAPE, graph=graph)
    return [*repository.models(), RESNET50]


def _write_precisions(plan: Plan, name: str) -> None:
    folder = plan.models / name / "1"
    (folder / "model.onnx").rename(plan.graph(name, "float32"))
    to_float16(plan.graph(name, "float32"), plan.graph(name, "float16"))
    variants = [_variant(plan.graph(name, precision), precision) for precision in ("float32", "float16")]
    write_manifest(read_manifest(folder).model_copy(update={"variants": variants, "samples": None}), folder)


def _variant(file: Path, precision: str) -> Variant:
    return Variant(file=file.name, sha256=sha256_of(file), precision=precision, bytes=file.stat().st_size)  # type: ignore[arg-type]
