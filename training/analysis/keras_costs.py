"""The costs of a Keras network, layer by layer. Only shapes are read, so the network may have no weights."""

import math
from collections.abc import Iterator
from dataclasses import replace

import keras
from keras import layers

from training.analysis.costs import LayerCosts, layer_label, rounding_rule
from training.architectures.cifar_resnet import PadChannels
from training.architectures.layers import LocalResponseNormalization

# These layers need no memory of their own: they change the previous output in place or belong to the next layer.
IN_PLACE_LAYERS = (
    *(layers.Rescaling, layers.Normalization, layers.Flatten, layers.Dropout, layers.ZeroPadding2D),
    *(layers.Activation, layers.ReLU),
)

LABELS = {
    layers.InputLayer: "INPUT",
    layers.Dense: "FC",
    layers.GlobalAveragePooling2D: "AVGPOOL",
    layers.BatchNormalization: "BN",
    layers.Add: "ADD",
    layers.Concatenate: "CONCAT",
    LocalResponseNormalization: "LRN",
    PadChannels: "PAD",
}
POOLS = {layers.MaxPooling2D: "POOL", layers.AveragePooling2D: "AVGPOOL"}
BIAS_NAMES = ("bias", "beta")
RUNNING_STATISTICS = ("moving_mean", "moving_variance")


def layer_costs(model: keras.Model) -> Iterator[LayerCosts]:
    """Yields one row per layer, in the order of computation."""
    for layer in model.layers:
        if not isinstance(layer, IN_PLACE_LAYERS):
            yield _layer_costs(layer)


def count_running_statistics(model: keras.Model) -> int:
    """Counts the values that are measured, not learned, in training: means and variances of batch normalization."""
    return sum(math.prod(weight.shape) for weight in model.weights if weight.name in RUNNING_STATISTICS)


def _layer_costs(layer: layers.Layer) -> LayerCosts:
    learned = [weight for weight in layer.weights if weight.name not in RUNNING_STATISTICS]
    row = LayerCosts(
        name=layer.name,
        layer=LABELS.get(type(layer), type(layer).__name__.upper()),
        output=tuple(layer.output.shape[1:]),
        weights=sum(math.prod(weight.shape) for weight in learned if weight.name not in BIAS_NAMES),
        biases=sum(math.prod(weight.shape) for weight in learned if weight.name in BIAS_NAMES),
    )
    if isinstance(layer, layers.Conv2D):
        positions = math.prod(row.output[:2])
        name = layer_label("CONV", layer.kernel_size, layer.strides[0], 1, layer.filters)
        return replace(
            row, layer=name, multiply_adds=positions * row.weights, rounding=_rounding(layer, layer.kernel_size)
        )
    if isinstance(layer, layers.DepthwiseConv2D):
        name = layer_label("DWCONV", layer.kernel_size, layer.strides[0], 1)
        positions = math.prod(row.output[:2])
        return replace(
            row, layer=name, multiply_adds=positions * row.weights, rounding=_rounding(layer, layer.kernel_size)
        )
    if isinstance(layer, layers.Dense):
        return replace(row, multiply_adds=row.weights)
    if type(layer) in POOLS:
        name = layer_label(POOLS[type(layer)], layer.pool_size, layer.strides[0], layer.pool_size[0])
        return replace(row, layer=name, rounding=_rounding(layer, layer.pool_size))
    return row


def _rounding(layer: layers.Layer, window: tuple[int, int]) -> str:
    """Returns the rule that made the height, or else the width, whole.

    "same" pads an odd pixel at the right and bottom.
    """
    for axis in (0, 1):
        size, stride = layer.input.shape[1 + axis], layer.strides[axis]
        out = layer.output.shape[1 + axis]
        padding = max(0, (out - 1) * stride + window[axis] - size) if layer.padding == "same" else 0
        if rule := rounding_rule(size, window[axis], stride, padding // 2, padding - padding // 2):
            return rule
    return ""
