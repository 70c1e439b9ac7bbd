"""Small version folders: linear classifiers as ONNX with labels and manifest, one of them for digits."""

import functools
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    Activation,
    File,
    Input,
    Manifest,
    Preprocessing,
    Provenance,
    Variant,
    read_manifest,
    write_manifest,
)
from tests.load.draw_digits import SIDE_PX, draw_digit

DIGIT_SEEDS = 40
LOGIT_SCALE = 10.0


def linear_graph(
    weights: NDArray[np.float32], shape: tuple[int, int, int], activation: Activation = "softmax"
) -> onnx.ModelProto:
    """Returns a graph from uint8 `image`, (batch, *shape), to `probabilities`: softmax or sigmoid of flatten(image /
    255) @ weights."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Sigmoid" if activation == "sigmoid" else "Softmax", ["logits"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", weights.shape[1]])
    initial = [numpy_helper.from_array((weights / 255).astype(np.float32), "weights")]
    graph = helper.make_graph(nodes, "linear", [image], [out], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_version(
    root: Path,
    model: str = "linear",
    version: int = 1,
    shape: tuple[int, int, int] = (8, 8, 1),
    classes: int = 4,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    graph: onnx.ModelProto | None = None,
    activation: Activation = "softmax",
) -> Path:
    """Writes root/model/version with a linear classifier whose weights are drawn with `seed`, or with the given graph.

    Returns the version's folder.
    """
    folder = root / model / str(version)
    folder.mkdir(parents=True)
    height, width, channels = shape
    weights = np.random.default_rng(seed).normal(size=(height * width * channels, classes)).astype(np.float32)
    (folder / "model.onnx").write_bytes((graph or linear_graph(weights, shape, activation)).SerializeToString())
    (folder / "labels.txt").write_text("".join(f"class-{i}\n" for i in range(classes)))
    file, labels = folder / "model.onnx", folder / "labels.txt"
    manifest = Manifest(
        input=Input(height=height, width=width, channels=channels),  # type: ignore[arg-type]
        preprocessing=preprocessing or Preprocessing(background=0),
        classes=classes,
        activation=activation,
        labels=File(file="labels.txt", sha256=sha256_of(labels)),
        variants=[Variant(file="model.onnx", sha256=sha256_of(file), precision="float32", bytes=file.stat().st_size)],
        provenance=Provenance(source="made by the tests", created_utc="2026-01-01T00:00:00Z"),
    )
    write_manifest(manifest, folder)
    return folder


def write_digit_model(root: Path, model: str = "mnist-lenet5", labels: str = "0123456789") -> Path:
    """Writes root/model/1, whose class i is the digit i with the label `labels[i]`. Returns the folder."""
    folder = write_version(root, model, 1, (SIDE_PX, SIDE_PX, 1), 10)
    graph, names = folder / "model.onnx", folder / "labels.txt"
    graph.write_bytes(linear_graph(_digit_weights(), (SIDE_PX, SIDE_PX, 1)).SerializeToString())
    names.write_text("".join(f"{label}\n" for label in labels))
    manifest = read_manifest(folder)
    variant = manifest.variants[0].model_copy(update={"sha256": sha256_of(graph), "bytes": graph.stat().st_size})
    changes = {"variants": [variant], "labels": File(file=names.name, sha256=sha256_of(names))}
    write_manifest(manifest.model_copy(update=changes), folder)
    return folder


@functools.cache
def _digit_weights() -> NDArray[np.float32]:
    """Fits a ridge regression from pixels to one-hot digits, (784, 10)."""
    pixels = np.stack([draw_digit(digit, seed).ravel() for seed in range(DIGIT_SEEDS) for digit in range(10)]) / 255
    one_hot = np.tile(np.eye(10), (DIGIT_SEEDS, 1))
    weights = np.linalg.solve(pixels.T @ pixels + np.eye(pixels.shape[1]), pixels.T @ one_hot)
    return (LOGIT_SCALE * weights).astype(np.float32)
