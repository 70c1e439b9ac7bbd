"""VGG: the paper's table 1, VGG-16 row by row, and batch normalization as an option."""

import keras
import numpy as np
import pytest

from training.architectures import ARCHITECTURES, build_without_weights
from training.architectures.layers import LocalResponseNormalization
from training.architectures.vgg import CONFIGURATIONS

WEIGHTED = (keras.layers.Conv2D, keras.layers.Dense)


def test_configurations_equal_the_table_of_the_paper(golden) -> None:
    assert {name.upper(): words for name, words in CONFIGURATIONS.items()} == golden("vgg")["configurations"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_weight_layers_and_parameters(name: str, golden, trainable) -> None:
    model = build_without_weights(f"vgg-{name}")
    assert sum(isinstance(layer, WEIGHTED) for layer in model.layers) == golden("vgg")["weight_layers"][name.upper()]
    assert round(trainable(model) / 1e6) == golden("vgg")["parameters_millions"][name.upper()]


def test_vgg16_row_by_row(golden) -> None:
    model = build_without_weights("vgg-d")
    rows = [["INPUT", list(model.input.shape[1:]), 0]]
    for layer in model.layers:
        shape = list(layer.output.shape[1:])
        if isinstance(layer, keras.layers.Conv2D):
            rows.append([f"CONV3-{layer.filters}", shape, int(np.prod(layer.kernel.shape))])
            assert (layer.kernel_size, layer.strides) == ((3, 3), (1, 1))
        elif isinstance(layer, keras.layers.MaxPooling2D):
            rows.append(["POOL2", shape, 0])
        elif isinstance(layer, keras.layers.Dense):
            rows.append(["FC", shape, int(np.prod(layer.kernel.shape))])
    assert rows == golden("vgg")["vgg16_d_table_without_biases"]
    assert sum(row[2] for row in rows) == golden("vgg")["totals"]["parameters_without_biases"]


def test_one_by_one_convolutions_of_c_end_its_last_three_stages() -> None:
    model = build_without_weights("vgg-c")
    small = [layer.name for layer in model.layers if getattr(layer, "kernel_size", None) == (1, 1)]
    assert small == ["conv3_3", "conv4_3", "conv5_3"]


def test_a_lrn_normalizes_once_after_the_first_convolution() -> None:
    model = build_without_weights("vgg-a-lrn")
    (norm,) = (layer for layer in model.layers if isinstance(layer, LocalResponseNormalization))
    assert norm.output.shape[1:] == (224, 224, 64)


def test_batch_norm_replaces_the_biases() -> None:
    model = ARCHITECTURES["vgg-a"](input_shape=(32, 32, 3), classes=10, batch_norm=True, units=16)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(convolutions) == len(norms) == 8
    assert not any(layer.use_bias for layer in convolutions)


def test_width_multiplies_the_filters() -> None:
    model = build_without_weights("vgg-d", width=0.25)
    assert [model.get_layer(name).filters for name in ("conv1_1", "conv2_1", "conv3_3", "conv5_3")] == [16, 32, 64, 128]
