"""ResNet-9 equals Page's network: parameters, order of pooling and blocks, scaled logits."""

import numpy as np
import pytest

from training.architectures import build, build_without_weights


def test_parameters_are_those_of_its_table(golden, trainable) -> None:
    source = golden("resnet9")
    model = build_without_weights("resnet9")
    kernels = (
        sum(9 * inputs * filters for inputs, filters in source["convolutions"])
        + source["dense"][0] * source["dense"][1]
    )
    norms = sum(2 * filters for _, filters in source["convolutions"])
    assert trainable(model) == kernels + norms == source["parameters"]


def test_three_pools_halve_the_image_and_blocks_keep_its_size() -> None:
    model = build_without_weights("resnet9")
    names = ("stem_relu", "pool1", "block1_add", "pool2", "pool3", "block3_add", "flatten")
    shapes = [tuple(model.get_layer(name).output.shape[1:]) for name in names]
    assert shapes == [(32, 32, 64), *[(16, 16, 128)] * 2, (8, 8, 256), *[(4, 4, 512)] * 2, (512,)]
    assert "block2_add" not in {layer.name for layer in model.layers}


def test_logits_are_an_eighth_and_have_no_bias() -> None:
    model = build("resnet9", width=0.125)
    dense = model.get_layer("logits")
    assert not dense.use_bias
    pooled = np.random.default_rng(0).normal(size=(2, 64)).astype("float32")
    scaled = np.asarray(dense(model.get_layer("scale")(pooled)))
    np.testing.assert_allclose(scaled, pooled @ np.asarray(dense.kernel) / 8, rtol=1e-4, atol=1e-6)


def test_width_multiplies_the_filters() -> None:
    model = build_without_weights("resnet9", width=0.25)
    assert [model.get_layer(f"conv{stage}_conv").filters for stage in (1, 2, 3)] == [32, 64, 128]


@pytest.mark.parametrize("side", [8, 27, 40])
def test_other_sizes_of_images(side: int) -> None:
    assert build_without_weights("resnet9", input_shape=(side, side, 3)).output.shape == (None, 10)
