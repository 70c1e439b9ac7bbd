"""Stochastic depth: training drops whole blocks, deeper ones more often; evaluation drops none."""

import keras
import numpy as np
import pytest

from training.architectures import ARCHITECTURES, build_without_weights
from training.architectures.layers import drop_path, linear_drop_rates


def test_the_rates_rise_in_a_straight_line_to_the_last_block() -> None:
    """Huang et al. 2016: p_l = 1 - l / L (1 - p_L) is the probability that block l of L is kept."""
    assert linear_drop_rates(0.5, 4) == [0.125, 0.25, 0.375, 0.5]
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="drop_path is"):
            linear_drop_rates(rate, 4)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16), ("cifar-resnet20", 9)])
def test_every_block_gets_its_rate(name: str, blocks: int) -> None:
    dropouts = [
        layer for layer in build_without_weights(name, drop_path=0.2).layers if isinstance(layer, keras.layers.Dropout)
    ]
    assert [layer.rate for layer in dropouts] == linear_drop_rates(0.2, blocks)
    plain = build_without_weights(name)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in plain.layers)


def test_whole_images_are_left_out_and_the_others_are_scaled() -> None:
    image = keras.Input((3, 4, 2))
    layer = keras.Model(image, drop_path(image, 0.25, "block"))
    ones = np.ones((4000, 3, 4, 2), np.float32)
    np.testing.assert_array_equal(layer(ones), ones)
    outputs = np.asarray(layer(ones, training=True)).reshape(4000, -1)
    kept = outputs[:, 0] > 0
    assert kept.mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(outputs[kept], 1 / 0.75, rtol=1e-6)
    assert (outputs[~kept] == 0).all()


def test_an_image_whose_blocks_are_all_left_out_passes_through_the_shortcuts_alone() -> None:
    """With a rate near 1, the last block outputs its shortcut after the ReLU."""
    keras.utils.set_random_seed(1)
    model = ARCHITECTURES["cifar-resnet20"](input_shape=(8, 8, 3), classes=2, width=0.25, drop_path=0.999)
    inner = keras.Model(model.input, [model.get_layer(f"conv4_{block}_relu").output for block in (2, 3)])
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("float32")
    before, after = inner(images, training=True)
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
