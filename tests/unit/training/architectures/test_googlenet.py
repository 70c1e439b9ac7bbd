"""GoogLeNet: blocks and weights of the paper's table, and auxiliary classifiers that only training has."""

import keras
import numpy as np

from training.architectures import ARCHITECTURES, build_without_weights, main_tower
from training.architectures.googlenet import AUXILIARY, INCEPTION, LOSS_WEIGHTS

COLUMNS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")


def kernels(model: keras.Model, prefix: str) -> int:
    """Weights without biases of the layers whose name begins with `prefix`."""
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
    """The paper claims 12 times fewer, of AlexNet's 60 million: with one tower's 62 million and biases it is 8.9."""
    ratio = trainable(build_without_weights("alexnet")) / trainable(build_without_weights("googlenet"))
    assert 8.5 < ratio < 12


def test_auxiliary_classifiers_look_at_4a_and_4d(shapes) -> None:
    model = build_without_weights("googlenet", auxiliary=True)
    assert {name: output.shape for name, output in model.output.items()} == dict.fromkeys(LOSS_WEIGHTS, (None, 1000))
    assert LOSS_WEIGHTS == {"logits": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}
    for block, name in AUXILIARY.items():
        assert model.get_layer(f"{name}_pool").input is model.get_layer(block).output
        assert shapes(model, f"{name}_pool") == [[4, 4, model.get_layer(block).output.shape[-1]]]
        assert model.get_layer(f"{name}_fc").units == 1024


def test_training_with_them_trains_the_main_tower() -> None:
    keras.utils.set_random_seed(0)
    model = ARCHITECTURES["googlenet"](input_shape=(32, 32, 3), classes=4, auxiliary=True)
    tower = main_tower(model)
    assert not any(layer.name.startswith("auxiliary") for layer in tower.layers)
    assert tower.output.shape == (None, 4)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=dict.fromkeys(LOSS_WEIGHTS, loss), loss_weights=LOSS_WEIGHTS)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    labels = np.arange(4)
    before = np.asarray(tower(images))
    model.train_on_batch(images, dict.fromkeys(LOSS_WEIGHTS, labels))
    outputs = model(images, training=False)
    np.testing.assert_array_equal(np.asarray(outputs["logits"]), np.asarray(tower(images)))
    assert np.abs(np.asarray(tower(images)) - before).max() > 0


def test_the_main_tower_has_the_parameters_of_the_network_without(trainable) -> None:
    with_them = build_without_weights("googlenet", auxiliary=True)
    assert trainable(main_tower(with_them)) == trainable(build_without_weights("googlenet")) < trainable(with_them)
