"""Kernels of the first layer as an image: each is scaled separately and placed in a grid."""

import keras
import numpy as np
from keras import layers

from training.analysis.filter_plot import FILTER_SIDE_PX, GAP_PX, draw_filters, first_layer_filters


def test_a_convolution_shows_its_kernels() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(100, 5), layers.Conv2D(7, 3)])
    kernels = first_layer_filters(model)
    assert kernels.shape == (64, 5, 5, 3)
    np.testing.assert_array_equal(kernels[7], model.layers[0].get_weights()[0][..., 7])


def test_a_dense_layer_shows_an_image_for_every_unit() -> None:
    model = keras.Sequential([keras.Input((4, 6, 1)), layers.Flatten(), layers.Dense(5)])
    kernels = first_layer_filters(model)
    assert kernels.shape == (5, 4, 6, 1)
    np.testing.assert_array_equal(kernels[2].ravel(), model.layers[-1].get_weights()[0][:, 2])


def test_layers_that_do_not_read_pixels_are_not_shown() -> None:
    deep = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(2, 3)])
    assert first_layer_filters(deep) is None
    assert first_layer_filters(keras.Sequential([keras.Input((8, 8, 3)), layers.GlobalAveragePooling2D()])) is None


def test_zero_is_gray_and_each_kernel_has_its_own_scale() -> None:
    kernels = np.zeros((3, 1, 2, 1))
    kernels[0, 0] = [[1.0], [-0.5]]
    kernels[1, 0] = [[-0.001], [0.001]]
    image = draw_filters(kernels)
    factor = FILTER_SIDE_PX // 2
    width = 2 * factor + GAP_PX
    assert image.shape == (2 * (factor + GAP_PX), 2 * width, 1)
    assert [int(image[0, x, 0]) for x in (0, factor, width, width + factor)] == [255, 64, 0, 255]
    assert image[factor + GAP_PX, 0, 0] == 128
    assert (image[factor + GAP_PX :, width:] == 255).all()
