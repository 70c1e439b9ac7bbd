"""Keras classifiers are converted to the form that is served, or rejected with the reason."""

import keras
import numpy as np
import pytest
from keras import layers

from service.model_store.manifest import Preprocessing
from training.errors import TrainingError
from training.export.output_activation import Head, OutputOptions
from training.export.scaling import Scaling
from training.export.serving_model import ServingModel, input_of, last_activation, outputs_of, to_serving_model

NO_SCALING, DETECT = Scaling(), OutputOptions()
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), np.uint8)


def network(activation: str | None = None, shape: tuple = (6, 5, 3), classes: int = 4) -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(classes, activation=activation)])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def answers(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    return model.predict(images.astype(np.float32), verbose=0)


def serving(
    model: keras.Model, scaling: Scaling = NO_SCALING, options: OutputOptions = DETECT, images: np.ndarray = IMAGES
) -> ServingModel:
    return to_serving_model(model, scaling, options, images)


def serving_answers(model: keras.Model, scaling: Scaling = NO_SCALING, options: OutputOptions = DETECT) -> np.ndarray:
    return answers(serving(model, scaling, options).network)


def test_logits_get_a_softmax() -> None:
    model = network()
    np.testing.assert_allclose(serving_answers(model), softmax(answers(model)), atol=1e-6)
    assert serving(model).head == Head("softmax", True)


def test_assumptions_and_added_layers_are_reported() -> None:
    assert serving(network()).describe(NO_SCALING, Preprocessing()) == (
        "input 6x5 (height x width; both sides scaled to it), RGB; pixels: 0 to 255, unchanged; 4 classes; "
        "softmax added"
    )
    scaling = Scaling(1 / 127.5, (1.0,), (1.0,))
    model = serving(network("sigmoid", (6, 5, 1)), scaling, images=IMAGES[..., :1])
    assert model.describe(scaling, Preprocessing(resize="shorter", shorter=8)) == (
        "input 6x5 (height x width; shorter side scaled to 8, center cropped), gray; pixels: pixel * 1/127.5 - 1; "
        "4 classes; sigmoid as in the network"
    )


def test_probabilities_stay_as_they_are() -> None:
    model = network("softmax")
    scaling = Scaling(scale=1 / 255)
    expected = answers(model, IMAGES / 255)
    np.testing.assert_allclose(serving_answers(model, scaling), expected, atol=1e-6)


def test_a_sigmoid_is_served_as_labels_with_their_own_probabilities() -> None:
    model = network("sigmoid")
    assert serving(model).head == Head("sigmoid", False)
    np.testing.assert_allclose(serving_answers(model), answers(model), atol=1e-6)
    logits = network()
    options = OutputOptions(activation="sigmoid")
    assert serving(logits, options=options).head == Head("sigmoid", True)
    np.testing.assert_allclose(
        serving_answers(logits, options=options), 1 / (1 + np.exp(-answers(logits).astype(np.float64))), atol=1e-6
    )


@pytest.mark.parametrize(("activation", "is_logits"), [("sigmoid", False), (None, True)])
def test_one_output_is_the_probability_of_the_second_of_two_labels(activation: str | None, is_logits: bool) -> None:
    model = network(activation, classes=1)
    scaling = Scaling(1 / 64, (2.0,))
    second = answers(model, IMAGES / 64 - 2).astype(np.float64)
    second = 1 / (1 + np.exp(-second)) if is_logits else second
    assert 0 < second.min() < 0.5 < second.max() < 1
    assert serving(model, scaling).head == Head("binary", is_logits)
    assert serving(model, scaling).classes == 2
    expected = np.concatenate([1 - second, second], axis=1)
    np.testing.assert_allclose(serving_answers(model, scaling), expected, atol=1e-6)


def test_the_user_may_decide() -> None:
    model = network("tanh")
    np.testing.assert_allclose(
        serving_answers(model, options=OutputOptions("logits")), softmax(answers(model)), atol=1e-6
    )
    with pytest.raises(TrainingError, match="ends in a sigmoid: leave out --logits"):
        serving(network("sigmoid"), options=OutputOptions("logits"))
    with pytest.raises(TrainingError, match=r"lie between .* not probabilities"):
        serving(network(), options=OutputOptions("probabilities"))
    with pytest.raises(TrainingError, match="outputs 4 numbers per image, which does not fit --activation binary"):
        serving(model, options=OutputOptions(activation="binary"))


@pytest.mark.parametrize(("last", "name"), [("softmax", "softmax"), (None, "linear"), ("sigmoid", "sigmoid")])
def test_the_last_activation_is_found(last: str | None, name: str) -> None:
    model = network(last)
    assert last_activation(model) == name
    image = keras.Input((6, 5, 3))
    assert last_activation(keras.Model(image, model(image))) == name
    assert last_activation(keras.Sequential([network(), layers.Activation(last)])) == name


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (Scaling(1 / 127.5, (1.0,), (1.0,)), IMAGES / 127.5 - 1),
        (Scaling(bgr=True), IMAGES[..., ::-1]),
        (Scaling(1.0, (103.9, 116.8, 123.7), bgr=True), IMAGES[..., ::-1] - np.array([103.9, 116.8, 123.7])),
        (Scaling(1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), (IMAGES / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]),
        (Scaling(1.0, (100, 110, 120), (1.0,)), IMAGES - np.array([100.0, 110, 120])),
    ],
)
def test_scaling_is_done_inside(scaling: Scaling, expected: np.ndarray) -> None:
    model = network("softmax")
    actual = serving_answers(model, scaling)
    np.testing.assert_allclose(actual, answers(model, expected), atol=2e-5)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        (Scaling(mean=(1.0, 2.0)), "--mean has 2 values; the network has 3 channels"),
        (Scaling(std=(1.0, 2.0)), "--std has 2 values"),
        (Scaling(std=(0.0,)), "--std must be positive"),
    ],
)
def test_a_scaling_that_does_not_fit_is_rejected(scaling: Scaling, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        serving(network(), scaling)


def test_random_layers_are_inactive() -> None:
    model = keras.Sequential([keras.Input((6, 5, 3)), layers.Flatten(), layers.Dropout(0.9), layers.Dense(4)])
    serving_model = serving(model).network
    np.testing.assert_array_equal(answers(serving_model), answers(serving_model))
    np.testing.assert_allclose(answers(serving_model), softmax(answers(model)), atol=1e-6)


def test_the_input_is_one_image_of_a_fixed_size() -> None:
    assert input_of(network()).shape == (6, 5, 3)
    for shape in [(None, None, 3), (6, 5, 2), (30,)]:
        model = keras.Sequential([keras.Input(shape), layers.Activation("relu")])
        with pytest.raises(TrainingError, match="fixed height and width"):
            input_of(model)
    both = [keras.Input((6, 5, 3)), keras.Input((6, 5, 3))]
    with pytest.raises(TrainingError, match="2 known inputs"):
        input_of(keras.Model(both, layers.Add()(both)))
    with pytest.raises(TrainingError, match="0 known inputs"):
        input_of(keras.Sequential([layers.Dense(3)]))


def test_the_output_is_one_row_of_classes() -> None:
    assert outputs_of(network()) == 4
    assert outputs_of(network("sigmoid", classes=1)) == 1
    image = keras.Input((6, 5, 3))
    with pytest.raises(TrainingError, match=r"one output of shape \(None, classes\)"):
        outputs_of(keras.Model(image, layers.Conv2D(4, 3)(image)))
    flat = layers.Flatten()(image)
    with pytest.raises(TrainingError, match="one output"):
        outputs_of(keras.Model(image, [layers.Dense(2)(flat), layers.Dense(2)(flat)]))
