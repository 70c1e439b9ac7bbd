"""The MLP has the shapes and parameters of its source."""

import keras

from training.architectures import ARCHITECTURES


def test_mlp(golden, trainable) -> None:
    model = ARCHITECTURES["mlp"]()
    source = golden("mnist_mlp")
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [784, *(layer.units for layer in dense)] == source["layers"]
    assert [layer.activation.__name__ for layer in dense] == ["sigmoid", "sigmoid", "linear"]
    assert trainable(model) == source["parameters"]


def test_mlp_drops_the_configured_fraction() -> None:
    model = ARCHITECTURES["mlp"](hidden=(30, 20, 10), dropout=0.8)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.8] * 3
    assert model.get_layer("fc3").units == 10
