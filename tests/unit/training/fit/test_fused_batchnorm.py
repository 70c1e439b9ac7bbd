"""Fused batch normalization has the same outputs, gradients and statistics as Keras', in float32 and bfloat16."""

import keras
import numpy as np
import pytest

from training import keras_setup
from training.fit.fused_batchnorm import FusedBatchNormalization, fuse_batchnorm

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has the operation")
IMAGES = np.random.default_rng(1).normal(3, 2, (8, 6, 6, 2)).astype("float32")


def network() -> keras.Model:
    image = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=1))(image)
    x = keras.layers.BatchNormalization(momentum=0.5, epsilon=1e-3)(x)
    x = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=2))(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.BatchNormalization()(x))


def train(model: keras.Model) -> keras.Model:
    model.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError())
    model.fit(IMAGES, np.ones((8, 3), "float32"), batch_size=8, epochs=1, verbose=0)
    return model


def test_one_step_of_training_gives_the_same_weights() -> None:
    fused, plain = train(fuse_batchnorm(network())), train(network())
    kinds = [type(layer) for layer in fused.layers]
    assert kinds.count(FusedBatchNormalization) == 2
    for new, old in zip(fused.weights, plain.weights, strict=True):
        is_population = new.path.endswith("moving_variance") and len(new.shape) and new.shape[0] == 4
        np.testing.assert_allclose(
            new, population_variance(old) if is_population else old, rtol=2e-4, atol=1e-5, err_msg=new.path
        )


def population_variance(moving_variance: keras.Variable) -> np.ndarray:
    """Applies Bessel's correction to Keras' moving variance, which is the mean of the initial value 1 and the
    batch's."""
    values = 8 * 4 * 4
    return 0.5 + (np.array(moving_variance) - 0.5) * values / (values - 1)


def test_a_trained_network_answers_alike() -> None:
    model = train(fuse_batchnorm(network()))
    plain = network()
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), plain.predict(IMAGES, verbose=0), atol=1e-5)


def test_a_frozen_layer_keeps_its_statistics() -> None:
    model = fuse_batchnorm(network())
    model.trainable = False
    before = model.get_weights()
    model(IMAGES, training=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bfloat16_is_used_for_computation_and_float32_for_weights() -> None:
    with keras_setup.dtype_policy("bfloat16"):
        model = fuse_batchnorm(network())
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"bfloat16"}
    train(model)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    plain = train(network())
    for new, old in zip(model.trainable_weights, plain.trainable_weights, strict=True):
        np.testing.assert_allclose(new, old, atol=0.1)


def test_a_frozen_layer_in_a_network_that_learns_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, the fused operation has no deterministic gradient for a frozen layer."""
    model = fuse_batchnorm(network())
    kept = network()
    for layers in (model.layers, kept.layers):
        layers[2].trainable = False

    def fail(**options: object) -> None:
        raise AssertionError("the fused operation was used")

    expected = kept(IMAGES, training=True)
    monkeypatch.setattr("tensorflow.raw_ops.FusedBatchNormV3", fail)
    np.testing.assert_allclose(model(IMAGES, training=True), expected, rtol=1e-4, atol=1e-5)
    model.layers[2].trainable = True
    with pytest.raises(AssertionError, match="was used"):
        model(IMAGES, training=True)
