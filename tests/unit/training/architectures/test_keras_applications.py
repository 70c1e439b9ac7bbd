"""Keras Applications networks: preprocessing, weights, trainable layers, and errors with advice."""

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from training.architectures.keras_applications import APPLICATIONS, build, freeze
from training.errors import TrainingError

SHAPE = (32, 32, 3)
SMALL = "keras:MobileNetV3Small"
PIXELS = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.float32)


def preprocessing_of(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from the Keras module that defines an application."""
    return sys.modules[getattr(keras.applications, name).__module__].preprocess_input


def base_of(name: str) -> keras.Model:
    """Returns the application as Keras builds it with random weights, and with batch statistics measured on noise."""
    base = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=SHAPE, pooling="avg")
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    base(preprocessing_of(name)(np.random.default_rng(2).uniform(0, 255, (32, *SHAPE))), training=True)
    return base


def legacy_weights_file(base: keras.Model, folder: Path) -> Path:
    """Writes a weights file like those in Keras' cache, in the layer-by-layer layout used before Keras 3."""
    path = folder / "weights_no_top.h5"
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, base)
    return path


@pytest.mark.parametrize("name", APPLICATIONS)
def test_pixels_become_what_the_application_expects(name: str) -> None:
    preprocessing = APPLICATIONS[name]
    ours = PIXELS * np.array(preprocessing.scale, np.float32) + np.array(preprocessing.offset, np.float32)
    expected = preprocessing_of(name)(PIXELS.copy())
    np.testing.assert_allclose(ours[..., ::-1] if preprocessing.bgr else ours, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "VGG16"])
def test_a_file_of_weights_gives_the_application_for_rgb_pixels(name: str, tmp_path: Path) -> None:
    """VGG16 was trained on BGR, and MobileNetV3 scales its pixels itself."""
    base = base_of(name)
    network = build(f"keras:{name}", SHAPE, classes=5, weights=legacy_weights_file(base, tmp_path))
    assert network.output_shape == (None, 5)
    pooled = keras.Model(network.input, network.get_layer("head_dropout").input)
    expected = np.asarray(base(preprocessing_of(name)(PIXELS.copy()), training=False))
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(np.asarray(pooled(PIXELS, training=False)), expected, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build(SMALL, SHAPE, classes=5)


def test_while_the_base_is_frozen_only_the_last_layer_learns(network: keras.Model) -> None:
    freeze(network, frozen=True)
    assert [v.path for v in network.trainable_variables] == ["logits/kernel", "logits/bias"]


def test_after_unfreezing_all_layers_learn_except_statistics(network: keras.Model) -> None:
    before = {v.path for v in network.variables}
    freeze(network, frozen=False)
    learning = {v.path for v in network.trainable_variables}
    assert {"logits/kernel", "conv/kernel"} <= learning
    measured = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(measured) > 20
    assert not learning & {v.path for layer in measured for v in layer.variables}
    assert {v.path for v in network.variables} == before


@pytest.mark.parametrize(
    ("architecture", "shape", "message"),
    [
        ("keras:ResNet5", SHAPE, "no application 'ResNet5' to start from: did you mean 'ResNet50'?"),
        ("keras:", SHAPE, "the choices are DenseNet121, "),
        (SMALL, (32, 32, 1), "takes color images; these have 1 channel"),
    ],
)
def test_an_application_that_cannot_be_built_is_reported(
    architecture: str, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(TrainingError, match=message.replace("?", r"\?")):
        build(architecture, shape, classes=5)


def test_weights_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(TrainingError, match=r"does not contain the weights of MobileNetV3Small without its last layer"):
        build(SMALL, SHAPE, 5, legacy_weights_file(other, tmp_path))
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(TrainingError, match=r"text\.h5 does not contain the weights"):
        build(SMALL, SHAPE, 5, tmp_path / "text.h5")
    with pytest.raises(TrainingError, match=r"none\.h5 does not exist"):
        build(SMALL, SHAPE, 5, tmp_path / "none.h5")
    (tmp_path / "mine.keras").write_text("")
    with pytest.raises(TrainingError, match=r"mine\.keras is not an \.h5 file"):
        build(SMALL, SHAPE, 5, tmp_path / "mine.keras")


def test_without_a_connection_the_error_names_the_option_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise Exception("URL fetch failure on https://...: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", unreachable)
    with pytest.raises(
        TrainingError, match=r"could not be downloaded: URL fetch failure.*Use --weights to name a file"
    ):
        build(SMALL, SHAPE, 5, "imagenet")
