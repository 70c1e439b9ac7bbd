"""Generates a ResNet-50 with random weights, so that no trained weights need to be shipped. It is as fast as a trained
one."""

from pathlib import Path

import onnx

from service.model_store.manifest import Preprocessing
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import Sizes
from tests.bench.sample_images import Samples, load_samples
from tests.gpu.weightless_graphs import GRAPHS, fill_weights
from tests.support.model_versions import write_version
from training.export.quantization.convert_precision import to_int8

FLOAT32, INT8 = "resnet50", "resnet50-int8"
CLASSES = 1000
SHAPE = (224, 224, 3)
CALIBRATION_IMAGES = 16


def write_float32(root: Path, images: Path | None) -> Samples:
    """Writes the model as `write_models_folder` does. Returns photographs and their classes."""
    write_models_folder(root)
    return load_samples(LocalModel(root / FLOAT32, FLOAT32), Sizes.of(SHAPE).samples, images)


def write_models_folder(root: Path) -> Path:
    """Writes the model into its own models folder, `root`/resnet50, and returns the folder."""
    graph = onnx.load(GRAPHS / "resnet50.onnx")
    fill_weights(graph)
    _write(root / FLOAT32, FLOAT32, graph)
    return root / FLOAT32


def write_int8(root: Path, samples: Samples) -> None:
    """Writes the int8 form of the model from `write_float32` into its own models folder."""
    graph = LocalModel(root / FLOAT32, FLOAT32).graph
    int8 = root / "int8.onnx"
    to_int8(graph, samples.tensors[:CALIBRATION_IMAGES], int8, reduce_range=False, method="minmax")
    _write(root / INT8, INT8, onnx.load(int8))


def _write(models: Path, name: str, graph: onnx.ModelProto) -> None:
    preprocessing = Preprocessing(resize="shorter", shorter=256)
    write_version(models, name, shape=SHAPE, classes=CLASSES, graph=graph, preprocessing=preprocessing)
