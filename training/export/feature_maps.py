"""Exports a second ONNX graph that outputs the first layer's filters and the feature maps."""

from pathlib import Path

import keras
import numpy as np
import onnx
from keras import layers
from numpy.typing import NDArray

from service.inference.session import FeatureSession
from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    FEATURES_GRAPH,
    FILTERS_PREFIX,
    MAPS_PREFIX,
    ExtraGraph,
    Input,
    Manifest,
    read_manifest,
    write_manifest,
)
from training.errors import TrainingError, service_errors_as_training_errors
from training.export.graph import editor
from training.export.graph.keras_to_onnx import to_onnx
from training.export.output_activation import OutputOptions
from training.export.parity import ParitySample, check_feature_maps, check_parity, sample_split
from training.export.precision_copy import float64_copy
from training.export.prepare_network import PrepareOptions, is_channels_first, prepare_network
from training.export.scaling import Scaling
from training.export.serving_model import DETECTION_IMAGES, apply_scaling, to_serving_model
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.fit.callbacks import Log

FEATURES_FILE = "features.onnx"
MIN_LIMIT_BYTES = 1_200_000
LIMIT_DIVISOR = 4
"""The graph stores a second copy of the weights that it needs. The size limit of this copy is MIN_LIMIT_BYTES, or for a
large network the size of its weights divided by LIMIT_DIVISOR."""

_ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
_POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)
_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)


def write_feature_maps(
    folder: Path, model: keras.Model, scaling: Scaling, model_input: Input, sample: ParitySample, log: Log
) -> ExtraGraph | None:
    """Writes the graph into a version's folder and logs its layers. Returns None for a network without feature maps.

    `model` is the trained network. Raises TrainingError if the graph fails the parity check.
    """
    if is_channels_first(model):
        log("no feature maps: the network takes images with channels first")
        return None
    map_layers = feature_map_layers(model, max(MIN_LIMIT_BYTES, _weight_bytes(model) // LIMIT_DIVISOR))
    if not map_layers:
        log("no feature maps: no layer of the network outputs images")
        return None
    network = feature_map_network(model, scaling, map_layers)
    graph = to_onnx(network)
    for name, kernels in first_convolution_kernels(model).items():
        editor.add_constant_output(graph, f"{FILTERS_PREFIX}{name}", kernels)
    onnx.save(graph, folder / FEATURES_FILE)
    session = FeatureSession(folder / FEATURES_FILE, model_input)
    parity = check_feature_maps(network, session, sample, float64_copy(network))
    log(f"feature maps of {', '.join(layer.name for layer in map_layers)}: parity over {parity.images} images")
    return ExtraGraph(file=FEATURES_FILE, sha256=sha256_of(folder / FEATURES_FILE), parity=parity)


def add_feature_maps(folder: Path, source: Source, log: Log) -> None:
    """Adds the graph to a published version. The version's other files do not change.

    The version keeps its number, because its predictions do not change. Raises TrainingError if `source` has no data
    set or is not the network of this version; both must give the same results, as in an export.
    """
    if source.dataset is None:
        raise TrainingError("The parity check needs real images: use a run, or --dataset NAME.")
    manifest = _read_manifest(folder)
    sample = sample_split(source.dataset.test, manifest.input, manifest.preprocessing)
    pipeline = ServingPipeline.from_manifest(folder / manifest.variants[0].file, manifest)
    model = prepare_network(source.model, PrepareOptions(), log)
    images = sample.images[:DETECTION_IMAGES]
    serving = to_serving_model(model, Scaling(), OutputOptions(), images, manifest.flip_averaged)
    check_parity(serving.network, pipeline, sample, float64_copy(serving.network))
    extra = write_feature_maps(folder, model, Scaling(), manifest.input, sample, log)
    if extra is not None:
        manifest = _read_manifest(folder)  # read again: variants may have been added meanwhile
        graphs = manifest.extra_graphs | {FEATURES_GRAPH: extra}
        write_manifest(manifest.model_copy(update={"extra_graphs": graphs}), folder)


def feature_map_layers(model: keras.Model, limit_bytes: int) -> list[keras.layers.Layer]:
    """Returns the first layer with feature maps, and the last layer of each map size, in the network's order.

    Layers that need more than `limit_bytes` of weights are left out.
    """
    candidates = [
        layer
        for layer in model.layers
        if _outputs_feature_maps(layer) and _weight_bytes_up_to(model, layer) <= limit_bytes
    ]
    last_by_size = {layer.output.shape[1:3]: layer.name for layer in candidates}
    return [layer for at, layer in enumerate(candidates) if at == 0 or layer.name in last_by_size.values()]


def feature_map_network(model: keras.Model, scaling: Scaling, map_layers: list[keras.layers.Layer]) -> keras.Model:
    """Returns a network that maps pixels 0..255 to the layers' outputs, float32 (n, height, width, channels), by
    name."""
    image = keras.Input(model.inputs[0].shape[1:], name="image")
    maps = keras.Model(model.inputs, {f"{MAPS_PREFIX}{layer.name}": layer.output for layer in map_layers})
    return keras.Model(image, maps(apply_scaling(image, scaling), training=False))


def first_convolution_kernels(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Returns the kernels of the first convolution, (filters, height, width, 1 or 3), by the layer's name.

    The result is empty if the network has no convolution or the first one does not read the image directly.
    """
    first = next((layer for layer in model.layers if isinstance(layer, layers.Conv2D)), None)
    if first is None or first.kernel.shape[2] not in (1, 3):
        return {}
    kernels = keras.ops.convert_to_numpy(first.kernel).astype(np.float32)
    return {first.name: np.ascontiguousarray(np.moveaxis(kernels, -1, 0))}


def _read_manifest(folder: Path) -> Manifest:
    with service_errors_as_training_errors():
        return read_manifest(folder)


def _outputs_feature_maps(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer outputs activated, pooled or joined maps with channels last."""
    try:
        shape = layer.output.shape
    except AttributeError:  # the layer was called never, or several times
        return False
    if len(shape) != 4 or None in shape[1:] or shape[1] * shape[2] == 1:
        return False
    is_activated = isinstance(layer, _CONVOLUTIONS) and layer.activation is not keras.activations.linear
    return is_activated or isinstance(layer, (*_ACTIVATIONS, *_POOLINGS, layers.Concatenate))


def _weight_bytes_up_to(model: keras.Model, layer: keras.layers.Layer) -> int:
    return _weight_bytes(keras.Model(model.inputs, layer.output))


def _weight_bytes(model: keras.Model) -> int:
    return int(model.count_params()) * np.dtype(np.float32).itemsize
