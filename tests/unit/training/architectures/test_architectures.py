"""Every network of the table builds in any size, can be saved and loaded, and rejects images that are too small."""

import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from training.architectures import ARCHITECTURES, build, build_without_weights, without_auxiliary_classifiers
from training.architectures.layers import Normalization
from training.errors import TrainingError

SMALL = {"alexnet": 67, "zfnet": 53, "mlp": 8, "xo": 9, "lenet5": 16, "convnetjs": 16}  # others: sides of 32 pixels
ONE_OF_A_FAMILY = ["mlp", "xo", "lenet5", "convnetjs", "vgg-a-lrn", "googlenet", "resnet18", "cifar-resnet20"]


def images(model: keras.Model, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *model.input.shape[1:])).astype("float32")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_input_classes_and_normalization(name: str) -> None:
    side = SMALL.get(name, 32)
    gray = Normalization((0.5,), (0.25,))
    model = build_without_weights(name, input_shape=(side, side + 1, 1), classes=7, normalization=gray)
    assert model.input.shape == (None, side, side + 1, 1)
    assert model.output.shape == (None, 7)
    assert model.get_layer("normalize").scale == 1 / (255 * 0.25)
    assert model.get_layer("normalize").offset == -2.0
    assert model.get_layer("logits").activation is keras.activations.linear


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_builder_takes_the_same_first_options(name: str) -> None:
    assert list(inspect.signature(ARCHITECTURES[name]).parameters)[:3] == ["input_shape", "classes", "normalization"]
    assert inspect.getdoc(ARCHITECTURES[name])


@pytest.mark.parametrize("name", ONE_OF_A_FAMILY)
def test_a_saved_network_loads_and_answers_the_same(name: str, tmp_path: Path) -> None:
    side = SMALL.get(name, 32)
    options = {"units": 64} if name.startswith("vgg") else {}
    model = build(name, input_shape=(side, side, 1), classes=3, **options)
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(np.asarray(loaded(images(model))), np.asarray(model(images(model))))


def test_building_without_weights_allocates_no_values() -> None:
    model = build_without_weights("vgg-e")
    assert model.count_params() == 143_667_240
    assert all(weight._value is None for weight in model.weights)
    with keras.StatelessScope():
        pass  # at the end of such a scope, Keras creates all values that the thread has deferred
    assert all(weight._value is None for weight in model.weights)


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet-50", "did you mean 'resnet50'?"), ("yolo", "the networks are mlp, xo")]
)
def test_an_unknown_name_is_reported_with_the_nearest_or_all(name: str, hint: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(f"There is no network named '{name}'; {hint}")):
        build(name)


@pytest.mark.parametrize(
    ("name", "input_shape", "least"),
    [("alexnet", (32, 32, 3), 67), ("vgg-d", (224, 16, 3), 32), ("lenet5", (5, 5, 1), 12), ("xo", (2, 2, 1), 3)],
)
def test_too_small_images_are_rejected_with_the_minimum_size(
    name: str, input_shape: tuple[int, int, int], least: int
) -> None:
    with pytest.raises(TrainingError, match=f"{name} needs images of at least {least} pixels per side"):
        build(name, input_shape=input_shape)
    channels = input_shape[2]
    assert build_without_weights(name, input_shape=(least, least, channels)).output.shape[0] is None


def test_other_errors_keep_their_own_error() -> None:
    with pytest.raises(ValueError, match=r"Unknown kernel 'blur'"):
        build("xo", features=("blur",))


def test_a_network_without_auxiliary_classifiers_is_returned_unchanged() -> None:
    model = build("lenet5")
    assert without_auxiliary_classifiers(model) is model
