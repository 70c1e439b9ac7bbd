"""Creates versions of a shipped model with permuted classes, so that each version's predictions are different and
known."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from service.model_store.checksums import sha256_of
from service.model_store.manifest import PROBABILITIES, read_manifest, write_manifest
from service.settings import Settings


def permute_classes(probabilities: NDArray[np.float32], version: int) -> NDArray[np.float32]:
    """Returns the probabilities of `version`, given the probabilities of version 1, (n, classes)."""
    return np.roll(probabilities, version - 1, axis=-1)


def copy_shipped(model: str, models: Path) -> None:
    """Copies the newest shipped version of `model` into `models`, as version 1."""
    newest = max(
        Path(Settings.model_fields["models"].default, model).glob("[0-9]*"), key=lambda folder: int(folder.name)
    )
    shutil.copytree(newest, models / model / "1")


def publish(models: Path, model: str, version: int) -> None:
    """Creates `version` from version 1 with permuted classes, and publishes it atomically."""
    folder = models / model
    hidden_folder = folder / f".{version}.part"
    hidden_folder.mkdir()
    shutil.copy(folder / "1" / "labels.txt", hidden_folder)
    manifest = read_manifest(folder / "1")
    (variant,) = [one for one in manifest.variants if one.precision == "float32"]
    graph = hidden_folder / variant.file
    onnx.save(_with_permuted_classes(onnx.load(folder / "1" / variant.file), manifest.classes, version), graph)
    new_variant = variant.model_copy(update={"sha256": sha256_of(graph), "bytes": graph.stat().st_size})
    write_manifest(
        manifest.model_copy(update={"variants": [new_variant], "extra_graphs": {}, "samples": None}), hidden_folder
    )
    hidden_folder.rename(folder / str(version))


def delete(models: Path, model: str, version: int) -> None:
    """Hides a version atomically, and then removes it."""
    folder = models / model / str(version)
    hidden_folder = folder.rename(folder.with_name(f".{version}.gone"))
    shutil.rmtree(hidden_folder)


def _with_permuted_classes(network: onnx.ModelProto, classes: int, version: int) -> onnx.ModelProto:
    order = permute_classes(np.arange(classes), version)  # type: ignore[arg-type]
    for node in network.graph.node:
        node.output[:] = ["straight" if name == PROBABILITIES else name for name in node.output]
    network.graph.initializer.append(numpy_helper.from_array(order.astype(np.int64), "order"))
    network.graph.node.append(helper.make_node("Gather", ["straight", "order"], [PROBABILITIES], axis=1))
    return network
