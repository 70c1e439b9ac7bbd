"""Named kernels have the effect that their names state, and raise an error for layers that they do not fit."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training.architectures.kernels import KERNELS, NamedKernels, kernel_layer


def test_kernels_equal_the_printed_values(golden) -> None:
    for name, rows in golden("conv_arithmetic")["kernels"].items():
        assert [list(row) for row in KERNELS[name]] == rows


@pytest.mark.parametrize("channels", [1, 3])
def test_a_layer_of_them_shows_edges(channels: int) -> None:
    image = np.zeros((1, 8, 8, channels), "float32")
    image[:, :, 4:] = 1.0  # dark left, bright right
    same, edges, across, down = np.moveaxis(np.asarray(kernel_layer()(image))[0, 1:-1, 1:-1], -1, 0)
    np.testing.assert_allclose(same, image[0, 1:-1, 1:-1, 0], rtol=1e-6)
    np.testing.assert_allclose(edges[0], [0, 0, -3, 3, 0, 0], atol=1e-5)
    np.testing.assert_allclose(across[0], [0, 0, 4, 4, 0, 0], atol=1e-5)
    np.testing.assert_allclose(down, 0, atol=1e-5)


def test_the_layer_is_a_demonstration_and_never_trains() -> None:
    layer = kernel_layer()
    layer.build((None, 8, 8, 1))
    assert not layer.trainable_weights


def test_kernels_are_saved_with_a_network(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), kernel_layer(("sobel_x",))])
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.layers[0].kernel_initializer.names == ("sobel_x",)


@pytest.mark.parametrize("layer", [keras.layers.Conv2D(1, 5), keras.layers.Conv2D(3, 3)])
def test_a_layer_of_another_shape_is_rejected(layer: keras.layers.Conv2D) -> None:
    layer.kernel_initializer = NamedKernels(("identity",))
    with pytest.raises(ValueError, match="1 kernels of 3x3 do not fill"):
        layer.build((None, 8, 8, 1))
