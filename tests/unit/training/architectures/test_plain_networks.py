"""MLP, LeNet-5 and the ConvNetJS network have the shapes and parameters of their sources."""

import keras

from training.architectures import ARCHITECTURES


def test_mlp(golden, trainable) -> None:
    model = ARCHITECTURES["mlp"]()
    source = golden("mnist_mlp")
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [784, *(layer.units for layer in dense)] == source["layers"]
    assert [layer.activation.__name__ for layer in dense] == ["sigmoid", "sigmoid", "linear"]
    assert trainable(model) == source["parameters"]


def test_mlp_drops_the_share_it_is_told() -> None:
    model = ARCHITECTURES["mlp"](hidden=(30, 20, 10), dropout=0.8)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.8] * 3
    assert model.get_layer("fc3").units == 10


def test_lenet5(golden, trainable, shapes) -> None:
    model = ARCHITECTURES["lenet5"]()
    assert shapes(model, "c1", "s2", "c3", "s4", "c5", "f6", "logits") == golden("lenet5")["shapes"]
    assert trainable(model) == golden("lenet5")["parameters"]


def test_convnetjs(golden, trainable, shapes) -> None:
    model = ARCHITECTURES["convnetjs"]()
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "logits")
    assert shapes(model, *names) == golden("convnetjs_cifar10")["shapes"]
    assert trainable(model) == golden("convnetjs_cifar10")["parameters"]
