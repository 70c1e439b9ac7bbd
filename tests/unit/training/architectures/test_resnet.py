"""ResNet: the paper's parameters, the position of the stride in v1 and v1.5, and the options."""

import keras
import numpy as np
import pytest

from training.architectures import ARCHITECTURES, build_without_weights
from training.architectures.resnet import DEPTHS


@pytest.mark.parametrize("depth", DEPTHS)
def test_blocks_and_trainable_parameters(depth: int, golden, trainable) -> None:
    source, name = golden("resnet"), f"resnet{depth}"
    kind, blocks = source["blocks"][name]
    assert DEPTHS[depth] == (kind == "bottleneck", tuple(blocks))
    model = build_without_weights(name)
    assert trainable(model) == source["trainable_parameters"][name]
    main_path = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) and "shortcut" not in layer.name
    ]
    assert len(main_path) == depth


def test_stages_of_resnet50(shapes) -> None:
    model = build_without_weights("resnet50")
    last = ("conv1_relu", "pool1", "conv2_3_relu", "conv3_4_relu", "conv4_6_relu", "conv5_3_relu", "pool5")
    assert shapes(model, *last) == [
        [112, 112, 64],
        [56, 56, 64],
        [56, 56, 256],
        [28, 28, 512],
        [14, 14, 1024],
        [7, 7, 2048],
        [2048],
    ]


@pytest.mark.parametrize(("stride_in_3x3", "strided"), [(False, "conv3_1_1_conv"), (True, "conv3_1_2_conv")])
def test_the_stride_of_a_bottleneck_is_in_the_selected_layer(stride_in_3x3: bool, strided: str) -> None:
    model = build_without_weights("resnet50", stride_in_3x3=stride_in_3x3)
    strides = {name: model.get_layer(name).strides for name in ("conv3_1_1_conv", "conv3_1_2_conv", "conv3_1_3_conv")}
    assert [name for name, stride in strides.items() if stride == (2, 2)] == [strided]
    assert model.get_layer("conv3_1_shortcut_conv").strides == (2, 2)


def test_the_stride_changes_no_parameter(trainable) -> None:
    assert trainable(build_without_weights("resnet50", stride_in_3x3=True)) == 25_557_032


def test_width_multiplies_every_layers_filters() -> None:
    whole, half = build_without_weights("resnet18"), build_without_weights("resnet18", width=0.5)
    for layer in whole.layers:
        if isinstance(layer, keras.layers.Conv2D):
            assert half.get_layer(layer.name).filters * 2 == layer.filters


def test_zero_init_last_gamma_starts_blocks_as_their_shortcut() -> None:
    model = ARCHITECTURES["resnet18"](input_shape=(32, 32, 3), classes=10, width=0.25, zero_init_last_gamma=True)
    stage_outputs = keras.Model(model.input, [model.get_layer(name).output for name in ("pool1", "conv2_2_relu")])
    before, after = stage_outputs(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32"))
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))


def test_resnet_d_has_a_deep_stem_and_averages_before_its_projections() -> None:
    """The number of weights is that of timm's resnet18d."""
    model = build_without_weights("resnet18", resnet_d=True)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 11_708_744
    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.AveragePooling2D)]
    assert [pool.output.shape[1] for pool in pools] == [28, 14, 7]
    assert model.get_layer("conv1_3_relu").output.shape == (None, 112, 112, 64)
    assert build_without_weights("resnet18", input_shape=(33, 31, 3), classes=10, resnet_d=True).output.shape == (
        None,
        10,
    )
