"""A scaling that the images contradict is rejected with the flags of a better scaling; other scalings pass."""

import keras
import numpy as np
import pytest
from keras import layers

from training.errors import TrainingError
from training.export.output_activation import Head, OutputOptions
from training.export.scaling import (
    COMMON_SCALINGS,
    MIN_KNOWN_IMAGES,
    LabeledImages,
    NetworkToCheck,
    Scaling,
    check_scaling,
    format_number,
    is_no_better_than_chance,
    probabilities_of,
    scales_itself,
    unscaled_warning,
)

UNIT, IDENTITY = Scaling(1 / 255), Scaling()


class BrightnessNetwork:
    """Distinguishes bright from dark images by the mean of pixels from 0 to `white`. With `offset` 0 it has no
    biases."""

    def __init__(self, white: float, offset: float = 0.5, channels_first: bool = False) -> None:
        self.white, self.offset, self.channels_first = white, offset, channels_first

    def predict(self, pixels: np.ndarray, verbose: int = 0) -> np.ndarray:
        assert pixels.shape[1 if self.channels_first else -1] == 1
        logits = (pixels.mean(axis=(1, 2, 3)) / self.white - self.offset) * 20
        return np.stack([-logits, logits], axis=1)


class ContrastNetwork(BrightnessNetwork):
    """Compares the two halves of an image, so that the scale of the pixels does not affect its prediction."""

    def predict(self, pixels: np.ndarray, verbose: int = 0) -> np.ndarray:
        logits = (pixels[:, :2].mean(axis=(1, 2, 3)) - pixels[:, 2:].mean(axis=(1, 2, 3))) / self.white * 5
        return np.stack([-logits, logits], axis=1)


def brightness_images(count: int = 40) -> LabeledImages:
    levels = np.linspace(0, 255, count).astype(np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (count, 4, 4, 1)).copy()
    return LabeledImages(images, (levels > 127).astype(np.int64))


def contrast_images() -> LabeledImages:
    """A tenth of the labels is wrong, as in real data."""
    images, classes = np.full((40, 4, 4, 1), 100, np.uint8), np.arange(40) % 2
    images[:, :2] += (classes[:, None, None, None] * 100 + np.arange(40)[:, None, None, None]).astype(np.uint8)
    images[:, 2:] += 70
    classes[::10] = 1 - classes[::10]
    return LabeledImages(images, classes)


def to_check(model: BrightnessNetwork) -> NetworkToCheck:
    return NetworkToCheck(model, OutputOptions("logits"), None, model.channels_first)


def check(model: BrightnessNetwork, stated: Scaling, known: LabeledImages, *, force: bool = False) -> list[str]:
    lines: list[str] = []
    check_scaling(to_check(model), stated, known, lines.append, force=force)
    return lines


@pytest.mark.parametrize(
    ("white", "stated", "better"),
    [(1, IDENTITY, "--scale 1/255"), (255, UNIT, "--scale 1:"), (1, Scaling(1 / 127.5, (1.0,)), "--scale 1/255")],
)
def test_a_scaling_that_spoils_the_accuracy_is_rejected(white: float, stated: Scaling, better: str) -> None:
    with pytest.raises(TrainingError, match=rf"With {stated.flags}, accuracy [3-8]\d\.\d% on 40 .*with {better}"):
        check(BrightnessNetwork(white), stated, brightness_images())


@pytest.mark.parametrize(("white", "stated"), [(1, UNIT), (255, IDENTITY)])
@pytest.mark.parametrize("channels_first", [False, True])
def test_the_right_scaling_passes(white: float, stated: Scaling, channels_first: bool) -> None:
    assert check(BrightnessNetwork(white, channels_first=channels_first), stated, brightness_images()) == []


def test_errors_that_are_too_confident_show_a_wrong_scaling_at_the_same_accuracy() -> None:
    known, model = contrast_images(), ContrastNetwork(1)
    results = [to_check(model).measure(stated, known) for stated in (IDENTITY, UNIT)]
    assert results[0].accuracy == results[1].accuracy > 0.7
    with pytest.raises(TrainingError, match="Use these flags, or --force"):
        check(model, IDENTITY, known)
    assert check(ContrastNetwork(255), IDENTITY, known) == []


def test_answers_that_another_factor_would_make_more_confident_pass() -> None:
    known = contrast_images()
    known.classes[::10] = 1 - known.classes[::10]  # now all labels are correct
    hesitant = ContrastNetwork(20)
    others = list(to_check(hesitant).others(UNIT, known))
    assert min(other.loss for other in others) < to_check(hesitant).measure(UNIT, known).loss
    assert check(hesitant, UNIT, known) == []


def test_force_publishes_with_a_warning() -> None:
    (line,) = check(BrightnessNetwork(1), IDENTITY, brightness_images(), force=True)
    assert line.startswith("warning: accuracy")
    assert "--scale 1/255" in line


def test_an_accuracy_of_chance_gets_a_warning() -> None:
    known = brightness_images()
    mixed = LabeledImages(known.images, np.arange(40) % 2)
    (line,) = check(BrightnessNetwork(1), UNIT, mixed)
    assert "no better than chance" in line


def test_too_few_images_decide_nothing() -> None:
    known = brightness_images()
    few = LabeledImages(known.images[: MIN_KNOWN_IMAGES - 1], known.classes[: MIN_KNOWN_IMAGES - 1])
    assert check(BrightnessNetwork(1), IDENTITY, few) == []


@pytest.mark.parametrize(
    ("accuracy", "outputs", "images", "is_chance"),
    [(1.0, 2, 20, False), (0.6, 2, 100, True), (0.61, 2, 100, False), (0.05, 1000, 20, False), (0.0, 1000, 20, True)],
)
def test_chance_depends_on_classes_and_images(accuracy: float, outputs: int, images: int, is_chance: bool) -> None:
    assert is_no_better_than_chance(accuracy, outputs, images) == is_chance


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 255, "1/255"),
        (1 / 127.5, "1/127.5"),
        (0.485, "0.485"),
        (0.25, "0.25"),
        (1 / 128, "1/128"),
        (123.675, "123.675"),
        (1.0, "1"),
        (2.0, "2"),
    ],
)
def test_numbers_are_written_as_in_commands(value: float, text: str) -> None:
    assert format_number(value) == text


def test_flags_and_description_of_a_scaling() -> None:
    assert [scaling.flags for scaling in COMMON_SCALINGS] == [
        "--scale 1",
        "--scale 1/255",
        "--scale 1/127.5 --mean 1",
        "--scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        "--scale 1 --mean 123.68,116.779,103.939",
    ]
    assert [scaling.describe() for scaling in COMMON_SCALINGS[:4]] == [
        "0 to 255, unchanged",
        "pixel * 1/255",
        "pixel * 1/127.5 - 1",
        "(pixel * 1/255 - 0.485,0.456,0.406) / 0.229,0.224,0.225",
    ]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (Head("softmax", True), [0.5, 0.5]),
        (Head("softmax", False), [0.0, 0.0]),
        (Head("sigmoid", True), [0.5, 0.5]),
    ],
)
def test_the_activation_is_applied_where_it_is_missing(head: Head, expected: list[float]) -> None:
    np.testing.assert_allclose(probabilities_of(np.zeros((1, 2)), head), [expected])


def test_a_binary_output_becomes_two_columns() -> None:
    np.testing.assert_allclose(probabilities_of(np.array([[0.25]]), Head("binary", False)), [[0.75, 0.25]])
    np.testing.assert_allclose(probabilities_of(np.zeros((1, 1)), Head("binary", True)), [[0.5, 0.5]])


def network(*first: layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), *first, layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])


def divided() -> keras.Model:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, layers.Conv2D(2, 3)(image / 255.0))


@pytest.mark.parametrize(
    ("model", "does"),
    [
        (network(), False),
        (network(layers.ZeroPadding2D()), False),
        (network(layers.Rescaling(1 / 255)), True),
        (network(layers.RandomFlip(), layers.BatchNormalization()), True),
        (keras.Sequential([keras.Input((8, 8, 3)), network(layers.Normalization(mean=1.0, variance=2.0))]), True),
        (keras.Sequential([keras.Input((8, 8, 3)), network()]), False),
        (divided(), True),
    ],
)
def test_scaling_inside_a_network_is_detected(model: keras.Model, does: bool) -> None:
    assert scales_itself(model) == does
    warning = unscaled_warning(model, IDENTITY)
    assert (warning is None) == does
    assert does or "--scale 1/255 (0 to 1) or --scale 1/127.5 --mean 1 (-1 to 1)" in str(warning)
    assert unscaled_warning(model, UNIT) is None
