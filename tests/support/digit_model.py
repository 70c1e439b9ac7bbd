"""A stand-in for LeNet-5 in the tests of the load tests and the bench: a linear model that knows the drawn digits."""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.model_store.checksums import sha256_of
from service.model_store.manifest import File, read_manifest, write_manifest
from tests.load.draw_digits import SIDE_PX, draw_digit
from tests.support.model_versions import linear_graph, write_version

HANDS = 40
SHARPNESS = 10.0


def write_digit_model(root: Path, model: str = "mnist-lenet5", labels: str = "0123456789") -> Path:
    """Writes root/model/1, whose class i is the digit i, called `labels[i]`. Returns the folder."""
    folder = write_version(root, model, 1, (SIDE_PX, SIDE_PX, 1), 10)
    graph, names = folder / "model.onnx", folder / "labels.txt"
    graph.write_bytes(linear_graph(_weights(), (SIDE_PX, SIDE_PX, 1)).SerializeToString())
    names.write_text("".join(f"{label}\n" for label in labels))
    manifest = read_manifest(folder)
    variant = manifest.variants[0].model_copy(update={"sha256": sha256_of(graph), "bytes": graph.stat().st_size})
    changes = {"variants": [variant], "labels": File(file=names.name, sha256=sha256_of(names))}
    write_manifest(manifest.model_copy(update=changes), folder)
    return folder


@functools.cache
def _weights() -> NDArray[np.float32]:
    """Ridge regression from pixels to one-hot digits, (784, 10)."""
    pixels = np.stack([draw_digit(digit, hand).ravel() for hand in range(HANDS) for digit in range(10)]) / 255
    target = np.tile(np.eye(10), (HANDS, 1))
    fitted = np.linalg.solve(pixels.T @ pixels + np.eye(pixels.shape[1]), pixels.T @ target)
    return (SHARPNESS * fitted).astype(np.float32)
