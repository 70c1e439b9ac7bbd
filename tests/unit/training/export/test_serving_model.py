"""Any Keras classifier takes the one served form, or is refused with the reason."""

import keras
import numpy as np
import pytest
from keras import layers

from training.errors import TrainingError
from training.export.serving_model import Scaling, classes_of, detect_outputs, input_of, to_serving_model

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), np.uint8)


def network(activation: str | None = None, shape: tuple = (6, 5, 3), classes: int = 4) -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(classes, activation=activation)])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def answers(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    return model.predict(images.astype(np.float32), verbose=0)


def test_logits_get_a_softmax() -> None:
    model = network()
    np.testing.assert_allclose(
        answers(to_serving_model(model, Scaling(), "detect", IMAGES)), softmax(answers(model)), atol=1e-6
    )


def test_probabilities_stay_as_they_are() -> None:
    model = network("softmax")
    scaling = Scaling(scale=1 / 255)
    expected = answers(model, IMAGES / 255)
    np.testing.assert_allclose(answers(to_serving_model(model, scaling, "detect", IMAGES)), expected, atol=1e-6)


def test_the_user_may_decide() -> None:
    model = network("sigmoid")
    with pytest.raises(TrainingError, match=r"do not sum to 1: say --logits.*or --probabilities"):
        to_serving_model(model, Scaling(), "detect", IMAGES)
    raw = answers(model)
    np.testing.assert_allclose(answers(to_serving_model(model, Scaling(), "probabilities", IMAGES)), raw, atol=1e-6)
    np.testing.assert_allclose(answers(to_serving_model(model, Scaling(), "logits", IMAGES)), softmax(raw), atol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (Scaling(1 / 127.5, (1.0,), (1.0,)), IMAGES / 127.5 - 1),
        (Scaling(1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), (IMAGES / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]),
        (Scaling(1.0, (100, 110, 120), (1.0,)), IMAGES - np.array([100.0, 110, 120])),
    ],
)
def test_scaling_is_done_inside(scaling: Scaling, expected: np.ndarray) -> None:
    model = network("softmax")
    actual = answers(to_serving_model(model, scaling, "detect", IMAGES))
    np.testing.assert_allclose(actual, answers(model, expected), atol=2e-5)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        (Scaling(mean=(1.0, 2.0)), "--mean has 2 values; the network has 3 channels"),
        (Scaling(std=(1.0, 2.0)), "--std has 2 values"),
        (Scaling(std=(0.0,)), "--std must be positive"),
    ],
)
def test_a_scaling_that_does_not_fit_is_refused(scaling: Scaling, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        to_serving_model(network(), scaling, "detect", IMAGES)


def test_random_layers_rest() -> None:
    model = keras.Sequential([keras.Input((6, 5, 3)), layers.Flatten(), layers.Dropout(0.9), layers.Dense(4)])
    serving_model = to_serving_model(model, Scaling(), "detect", IMAGES)
    np.testing.assert_array_equal(answers(serving_model), answers(serving_model))
    np.testing.assert_allclose(answers(serving_model), softmax(answers(model)), atol=1e-6)


def test_the_input_is_one_image_of_a_fixed_size() -> None:
    assert input_of(network()).shape == (6, 5, 3)
    for shape in [(None, None, 3), (6, 5, 4), (30,)]:
        model = keras.Sequential([keras.Input(shape), layers.Activation("relu")])
        with pytest.raises(TrainingError, match="fixed height and width is needed"):
            input_of(model)
    both = [keras.Input((6, 5, 3)), keras.Input((6, 5, 3))]
    with pytest.raises(TrainingError, match="2 known inputs"):
        input_of(keras.Model(both, layers.Add()(both)))
    with pytest.raises(TrainingError, match="0 known inputs"):
        input_of(keras.Sequential([layers.Dense(3)]))


def test_the_output_is_one_row_of_classes() -> None:
    assert classes_of(network()) == 4
    with pytest.raises(TrainingError, match="two classes need two outputs"):
        classes_of(network("sigmoid", classes=1))
    image = keras.Input((6, 5, 3))
    with pytest.raises(TrainingError, match=r"one output of shape \(None, classes\)"):
        classes_of(keras.Model(image, layers.Conv2D(4, 3)(image)))
    flat = layers.Flatten()(image)
    with pytest.raises(TrainingError, match="one output"):
        classes_of(keras.Model(image, [layers.Dense(2)(flat), layers.Dense(2)(flat)]))


def test_outputs_are_told_apart_by_what_they_are() -> None:
    assert detect_outputs(np.array([[0.2, 0.8], [1.0, 0.0]])) == "probabilities"
    assert detect_outputs(np.array([[2.0, -1.0]])) == "logits"
    assert detect_outputs(np.array([[0.5, 0.5], [0.5, 1.5]])) == "logits"
