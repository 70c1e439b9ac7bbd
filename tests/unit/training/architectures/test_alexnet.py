"""AlexNet layer by layer."""

import keras
import numpy as np

from training.architectures import ARCHITECTURES, build_without_weights

LAYERS = {
    "CONV1": "conv1",
    "MAXPOOL1": "pool1",
    "NORM1": "norm1",
    "CONV2": "conv2",
    "MAXPOOL2": "pool2",
    "NORM2": "norm2",
    "CONV3": "conv3",
    "CONV4": "conv4",
    "CONV5": "conv5",
    "MAXPOOL3": "pool3",
    "FC6": "fc6",
    "FC7": "fc7",
    "FC8": "logits",
}


def test_shapes_and_parameters(golden, trainable, shapes) -> None:
    source = golden("alexnet")
    model = build_without_weights("alexnet")
    assert list(model.input.shape[1:]) == source["input"]
    for name, shape, description in source["layers"]:
        layer = model.get_layer(LAYERS[name])
        assert list(layer.output.shape[1:]) == shape, name
        if name.startswith("CONV"):
            filters, size, _, stride = description.split()[:4]
            assert layer.filters == int(filters)
            assert layer.kernel_size == (int(size.split("x")[0]),) * 2
            assert layer.strides == (int(stride),) * 2
    assert trainable(model) == source["parameters_with_biases_single_tower"]
    order = [layer.name for layer in model.layers if layer.name in LAYERS.values()]
    assert order == list(LAYERS.values())


def test_dropout_matches_the_paper(golden) -> None:
    model = build_without_weights("alexnet")
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [golden("alexnet")["recipe"]["dropout"]] * 2


def test_weights_start_as_in_the_paper() -> None:
    model = ARCHITECTURES["alexnet"](input_shape=(67, 67, 3), classes=10, units=128)
    layers_with_ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name in set(LAYERS.values()) - {"pool1", "pool2", "pool3", "norm1", "norm2"}:
        kernel, bias = (np.asarray(weight) for weight in model.get_layer(name).get_weights())
        assert (bias == (name in layers_with_ones)).all(), name
        assert 0.009 < kernel.std() < 0.011, name
