"""AlexNet layer by layer, and what ZFNet changes in it."""

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


def test_dropout_is_the_papers(golden) -> None:
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


def test_zfnet_is_alexnet_with_a_finer_start(shapes) -> None:
    model = build_without_weights("zfnet")
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    sides = [(110, 96), (55, 96), (26, 256), (13, 256), (13, 512), (13, 1024), (13, 512), (6, 512)]
    assert shapes(model, *names) == [[side, side, channels] for side, channels in sides]
    first, second = model.get_layer("conv1"), model.get_layer("conv2")
    assert (first.kernel_size, first.strides) == ((7, 7), (2, 2))
    assert (second.kernel_size, second.strides) == ((5, 5), (2, 2))


def test_zfnet_of_figure_3(shapes) -> None:
    model = build_without_weights("zfnet", filters=(384, 384, 256))
    assert shapes(model, "conv5", "pool5", "fc6") == [[13, 13, 256], [6, 6, 256], [4096]]
