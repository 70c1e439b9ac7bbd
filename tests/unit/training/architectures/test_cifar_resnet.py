"""The CIFAR residual networks have the paper's parameters, and shortcuts that subsample and pad with zeros."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training.architectures import ARCHITECTURES, build_without_weights
from training.architectures.cifar_resnet import PadChannels, cifar_resnet


@pytest.mark.parametrize("depth", ["20", "32", "44", "56", "110"])
def test_trainable_parameters_match_the_paper(depth: str, golden, trainable) -> None:
    n, parameters = golden("resnet")["cifar_resnet_n"][depth]
    model = build_without_weights(f"cifar-resnet{depth}")
    assert trainable(model) == parameters
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) + 1 == 6 * n + 2


def test_stages_halve_the_image_and_double_the_filters() -> None:
    model = ARCHITECTURES["cifar-resnet20"]()
    shapes = [tuple(model.get_layer(f"conv{stage}_3_relu").output.shape[1:]) for stage in (2, 3, 4)]
    assert shapes == [(32, 32, 16), (16, 16, 32), (8, 8, 64)]


def test_a_block_whose_last_gamma_is_zero_is_its_shortcut() -> None:
    model = cifar_resnet(8, zero_init_last_gamma=True)
    block_outputs = keras.Model(
        model.input, [model.get_layer(f"{name}_relu").output for name in ("conv2_1", "conv3_1")]
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    before, after = (np.asarray(tensor) for tensor in block_outputs(images, training=False))
    np.testing.assert_array_equal(after[..., :16], before[:, ::2, ::2])
    assert not after[..., 16:].any()


def test_any_input_size_classes_and_width() -> None:
    model = cifar_resnet(8, input_shape=(27, 30, 1), classes=3, width=0.5)
    assert model(np.zeros((2, 27, 30, 1), "float32")).shape == (2, 3)
    assert model.get_layer("stem_conv").filters == 8


def test_a_depth_that_is_not_6n_plus_2_is_rejected() -> None:
    with pytest.raises(ValueError, match="6n \\+ 2"):
        cifar_resnet(18)


def test_padding_channels_is_saved_with_the_network(tmp_path: Path) -> None:
    model = cifar_resnet(8)
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(np.asarray(loaded(images)), np.asarray(model(images)))
    assert any(isinstance(layer, PadChannels) for layer in loaded.layers)


def test_one_step_of_training_lowers_the_loss() -> None:
    keras.utils.set_random_seed(0)
    model = ARCHITECTURES["cifar-resnet20"]()
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("float32")
    losses = [float(model.train_on_batch(images, np.arange(16) % 10)) for _ in range(4)]
    assert losses[-1] < losses[0]
