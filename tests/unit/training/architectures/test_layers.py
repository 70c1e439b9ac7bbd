"""Shared layers: local response normalization follows the paper's formula, and padding is symmetric."""

import keras
import numpy as np
import pytest

from training import keras_setup
from training.architectures.layers import LocalResponseNormalization, Normalization, conv_norm, normalized_input


def by_the_formula(a: np.ndarray, k: float, n: int, alpha: float, beta: float) -> np.ndarray:
    channels = a.shape[-1]
    b = np.empty_like(a)
    for i in range(channels):
        neighbors = a[..., max(0, i - n // 2) : min(channels - 1, i + n // 2) + 1]
        b[..., i] = a[..., i] / (k + alpha * (neighbors**2).sum(axis=-1)) ** beta
    return b


@pytest.mark.parametrize("constants", [(2.0, 5, 1e-4, 0.75), (1.0, 3, 0.5, 0.5)])
def test_local_response_normalization_equals_the_formula_of_the_paper(
    constants: tuple[float, int, float, float],
) -> None:
    k, n, alpha, beta = constants
    a = np.random.default_rng(0).normal(0, 100, (2, 3, 4, 8))
    b = LocalResponseNormalization(k, n, alpha, beta)(a.astype("float32"))
    np.testing.assert_allclose(np.asarray(b), by_the_formula(a, *constants), rtol=1e-5)


def test_defaults_of_local_response_normalization_are_those_of_alexnet() -> None:
    config = LocalResponseNormalization().get_config()
    assert {name: config[name] for name in ("k", "n", "alpha", "beta")} == {"k": 2, "n": 5, "alpha": 1e-4, "beta": 0.75}


def test_half_precision_survives_squares_that_it_cannot_hold() -> None:
    a = np.full((1, 1, 1, 8), 1000.0)
    b = np.asarray(LocalResponseNormalization(dtype="float16")(a.astype("float16")), "float64")
    np.testing.assert_allclose(b, by_the_formula(a, 2.0, 5, 1e-4, 0.75), rtol=0.01)


def test_a_strided_convolution_is_centered_on_the_pixels_that_a_shortcut_takes() -> None:
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, conv_norm(image, 1, 3, 2, "c"))
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[1, 1] = 1
    model.get_layer("c_conv").set_weights([kernel])
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(np.asarray(model(x)), x[:, ::2, ::2], rtol=1e-4)


def test_pixels_are_normalized_per_channel() -> None:
    image, x = normalized_input((1, 1, 3), Normalization((0.5, 0.25, 0.0), (0.5, 0.25, 1.0)))
    out = keras.Model(image, x)(np.full((1, 1, 1, 3), 255.0, "float32"))
    np.testing.assert_allclose(np.asarray(out)[0, 0, 0], [1, 3, 1], rtol=1e-6)


def test_pixels_are_normalized_in_float32_whatever_the_network_computes_in() -> None:
    """bfloat16 would change a pixel by up to 1.8 of 255 levels."""
    with keras_setup.dtype_policy("bfloat16"):
        image, x = normalized_input((1, 256, 1), Normalization((0.4822,), (0.2435,)))
        model = keras.Model(image, x)
    levels = np.arange(256, dtype="float32")
    found = np.asarray(model(levels.reshape(1, 1, 256, 1)), "float64").ravel()
    np.testing.assert_allclose(255 * (found * 0.2435 + 0.4822), levels, atol=1e-3)
