"""The error for a weights file that does not match a Keras Applications network states the cause and the remedy."""

from pathlib import Path

import keras
import pytest
from keras import layers

from training.architectures.keras_applications import load_weights
from training.errors import TrainingError


def network(classes: int = 1000, filters: int = 4, extra: bool = False) -> keras.Model:
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(filters, 3, name="conv")(image)
    x = layers.Conv2D(filters, 1, name="extra")(x) if extra else x
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(classes, name="predictions")(x))


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"classes": 5}, "the last layer in the file has 5 classes instead of 1000. Save the whole network"),
        ({"filters": 6}, "a layer has the shape .* instead of .*belongs to another network"),
    ],
)
def test_weights_of_another_network_are_reported(tmp_path: Path, suffix: str, other: dict, message: str) -> None:
    path = tmp_path / f"other{suffix}"
    model = network(**other)
    if suffix == ".h5":
        model.save(path)
    else:
        model.save_weights(path)
    with pytest.raises(TrainingError, match=f"does not contain the weights of ResNet50 with its last layer: {message}"):
        load_weights(network(), "ResNet50", path, "with its last layer")


def test_more_layers_are_reported(tmp_path: Path) -> None:
    network(extra=True).save(tmp_path / "more.h5")
    with pytest.raises(
        TrainingError, match=r"it has 3 layers with weights instead of 2. It belongs to another network, or"
    ):
        load_weights(network(), "ResNet50", tmp_path / "more.h5", "with its last layer")


def test_other_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(TrainingError, match="it is not a weights file"):
        load_weights(network(), "ResNet50", tmp_path / "text.h5", "with its last layer")
    network(classes=5).save(tmp_path / "whole.keras")
    with pytest.raises(TrainingError, match="it contains a whole network: export it"):
        load_weights(network(), "ResNet50", tmp_path / "whole.keras", "with its last layer")


def test_weights_that_fit_are_loaded(tmp_path: Path) -> None:
    model, other = network(), network()
    model.save_weights(tmp_path / "fits.weights.h5")
    load_weights(other, "ResNet50", tmp_path / "fits.weights.h5", "with its last layer")
    for expected, actual in zip(model.get_weights(), other.get_weights(), strict=True):
        assert (expected == actual).all()
