"""Makes small but real version folders: a linear classifier as ONNX, its labels and its manifest."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.model_store.checksums import sha256_of
from service.model_store.manifest import File, Input, Manifest, Preprocessing, Provenance, Variant, write_manifest


def linear_graph(weights: NDArray[np.float32], shape: tuple[int, int, int]) -> onnx.ModelProto:
    """softmax(flatten(image / 255) @ weights): uint8 `image` (batch, *shape) to float32 `probabilities`."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
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
) -> Path:
    """Writes root/model/version, a linear classifier whose weights follow from the seed, or the given graph.

    Returns the folder.
    """
    folder = root / model / str(version)
    folder.mkdir(parents=True)
    height, width, channels = shape
    weights = np.random.default_rng(seed).normal(size=(height * width * channels, classes)).astype(np.float32)
    (folder / "model.onnx").write_bytes((graph or linear_graph(weights, shape)).SerializeToString())
    (folder / "labels.txt").write_text("".join(f"class-{i}\n" for i in range(classes)))
    file, labels = folder / "model.onnx", folder / "labels.txt"
    manifest = Manifest(
        input=Input(height=height, width=width, channels=channels),  # type: ignore[arg-type]
        preprocessing=preprocessing or Preprocessing(background=0),
        classes=classes,
        labels=File(file="labels.txt", sha256=sha256_of(labels)),
        variants=[Variant(file="model.onnx", sha256=sha256_of(file), precision="float32", bytes=file.stat().st_size)],
        provenance=Provenance(source="made by the tests", created_utc="2026-01-01T00:00:00Z"),
    )
    write_manifest(manifest, folder)
    return folder
