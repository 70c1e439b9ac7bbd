"""GoogLeNet: blocks and weights of the paper's table, and auxiliary classifiers for training only."""

import keras
import numpy as np
import pytest

from training.architectures import ARCHITECTURES, build_without_weights, without_auxiliary_classifiers
from training.architectures.googlenet import AUXILIARY, INCEPTION, LOSS_WEIGHTS

COLUMNS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")


def kernels(model: keras.Model, prefix: str) -> int:
    """Counts the weights, without biases, of the layers whose name begins with `prefix`."""
    found = [
        layer for layer in model.layers if layer.name.startswith(prefix) and isinstance(layer, keras.layers.Conv2D)
    ]
    assert found
    return sum(int(np.prod(layer.kernel.shape)) for layer in found)


def test_inception_blocks(golden) -> None:
    model = build_without_weights("googlenet")
    source = golden("googlenet")["inception"]
    assert [block["block"] for block in source] == [name for name in INCEPTION if INCEPTION[name]]
    for block in source:
        name = block["block"]
        assert list(model.get_layer(name).output.shape[1:]) == block["output"]
        for column in COLUMNS:
            assert model.get_layer(f"{name}_{column}").filters == block[column]
        assert kernels(model, name) == block["weights_without_biases"]


def test_stem_and_head(golden, shapes) -> None:
    model = build_without_weights("googlenet")
    first, second = golden("googlenet")["stem"]
    assert shapes(model, "conv1", "conv2") == [first["output"], second["output"]]
    assert kernels(model, "conv1") == first["weights_without_biases"]
    assert kernels(model, "conv2") == second["weights_without_biases"]
    assert list(model.get_layer("logits").kernel.shape) == golden("googlenet")["head"]["linear"]
    assert shapes(model, "pool1", "pool2") == [[56, 56, 64], [28, 28, 192]]


def test_a_twelfth_of_alexnets_parameters(trainable) -> None:
    """The paper states 12 times fewer parameters than AlexNet's 60 million. With 62 million and with biases, the factor
    is 8.9."""
    ratio = trainable(build_without_weights("alexnet")) / trainable(build_without_weights("googlenet"))
    assert 8.5 < ratio < 12


def test_auxiliary_classifiers_are_attached_to_4a_and_4d(shapes) -> None:
    model = build_without_weights("googlenet", auxiliary=True)
    assert {name: output.shape for name, output in model.output.items()} == dict.fromkeys(LOSS_WEIGHTS, (None, 1000))
    assert LOSS_WEIGHTS == {"logits": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}
    for block, name in AUXILIARY.items():
        assert model.get_layer(f"{name}_pool").input is model.get_layer(block).output
        assert shapes(model, f"{name}_pool") == [[4, 4, model.get_layer(block).output.shape[-1]]]
        assert model.get_layer(f"{name}_fc").units == 1024


@pytest.fixture
def with_auxiliary() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = ARCHITECTURES["googlenet"](input_shape=(32, 32, 3), classes=4, auxiliary=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def test_auxiliary_losses_have_weight_0_3_in_training_only(with_auxiliary: keras.Model) -> None:
    model = with_auxiliary
    labels = np.arange(4)
    logits = {name: 3 * np.random.default_rng(1).normal(size=(4, 4)).astype("float32") for name in LOSS_WEIGHTS}
    logits["auxiliary1"] = -logits["logits"]
    losses = {
        name: float(keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, output, from_logits=True)))
        for name, output in logits.items()
    }
    expected = losses["logits"] + 0.3 * losses["auxiliary1"] + 0.3 * losses["auxiliary2"]
    assert float(model.compute_loss(None, labels, logits)) == pytest.approx(expected, rel=1e-5)
    assert float(model.compute_loss(None, labels, logits, training=False)) == pytest.approx(losses["logits"], rel=1e-5)


def test_training_with_auxiliary_classifiers_trains_the_main_network(with_auxiliary: keras.Model) -> None:
    model = with_auxiliary
    network = without_auxiliary_classifiers(model)
    assert not any(layer.name.startswith("auxiliary") for layer in network.layers)
    assert network.output.shape == (None, 4)

    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    before = np.asarray(network(images))
    stem = np.asarray(model.get_layer("auxiliary1_fc").kernel)
    model.fit(images, np.arange(4), epochs=1, verbose=0)
    np.testing.assert_array_equal(np.asarray(model(images)["logits"]), np.asarray(network(images)))
    assert np.abs(np.asarray(network(images)) - before).max() > 0
    assert np.abs(np.asarray(model.get_layer("auxiliary1_fc").kernel) - stem).max() > 0


def test_evaluation_is_of_the_main_network(with_auxiliary: keras.Model) -> None:
    network = without_auxiliary_classifiers(with_auxiliary)
    network.compile(loss=with_auxiliary.loss, metrics=["accuracy"])
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    labels = np.arange(8) % 4
    scores = with_auxiliary.evaluate(images, labels, verbose=0, return_dict=True)
    assert scores == pytest.approx(network.evaluate(images, labels, verbose=0, return_dict=True))
    assert set(scores) == {"loss", "accuracy"}


def test_the_main_tower_equals_the_network_without_auxiliary_classifiers(trainable) -> None:
    with_auxiliary = build_without_weights("googlenet", auxiliary=True)
    assert (
        trainable(without_auxiliary_classifiers(with_auxiliary))
        == trainable(build_without_weights("googlenet"))
        < trainable(with_auxiliary)
    )
