"""The graph of feature maps outputs the expected layers exactly, and stays small."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from service.inference.session import FeatureSession
from service.model_store.manifest import Input
from training.architectures import build
from training.errors import TrainingError
from training.export.feature_maps import (
    feature_map_layers,
    feature_map_network,
    first_convolution_kernels,
    write_feature_maps,
)
from training.export.parity import ParitySample, check_feature_maps
from training.export.scaling import Scaling

UNLIMITED_BYTES = 10**9
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 12, 10, 3), np.uint8)
SAMPLE = ParitySample([str(number) for number in range(9)], IMAGES, IMAGES)
EXPECTS = Input(height=12, width=10, channels=3)


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="edges"),
            layers.Conv2D(5, 3, padding="same", use_bias=False, name="raw"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="shapes"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="objects"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )


def names(model: keras.Model, limit_bytes: int = UNLIMITED_BYTES) -> list[str]:
    return [layer.name for layer in feature_map_layers(model, limit_bytes)]


def discard_log(line: str) -> None:
    """Discards a log line."""


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("lenet5", ["c1", "s2", "c3", "s4"]),
        ("cifar-resnet20", ["stem_relu", "conv2_3_relu", "conv3_3_relu", "conv4_3_relu"]),
        ("mlp", []),
    ],
)
def test_the_first_layer_and_the_last_at_each_size_are_shown(architecture: str, expected: list[str]) -> None:
    assert names(build(architecture)) == expected


def test_layers_with_too_many_weights_are_left_out() -> None:
    model = network()
    assert names(model) == ["edges", "shapes", "objects"]
    edges = 4 * (3 * 3 * 3 * 4 + 4)
    assert names(model, edges) == ["edges"]
    assert names(model, edges - 1) == []


def test_outputs_of_the_graph_equal_those_of_the_layers(tmp_path: Path) -> None:
    model = network()
    extra = write_feature_maps(tmp_path, model, Scaling(1 / 255), EXPECTS, SAMPLE, discard_log)
    assert extra is not None
    assert (extra.parity.images, extra.parity.batch_sizes) == (9, [1, 7, 64])
    actual = FeatureSession(tmp_path / extra.file, EXPECTS).run(IMAGES)
    assert list(actual) == ["maps.edges", "maps.shapes", "maps.objects", "filters.edges"]
    layer_model = keras.Model(model.inputs, [model.get_layer(name).output for name in ("edges", "shapes", "objects")])
    for maps, expected in zip(list(actual.values())[:3], layer_model.predict(IMAGES / 255.0, verbose=0), strict=True):
        np.testing.assert_allclose(maps, expected, atol=1e-5)
    kernels = model.get_layer("edges").get_weights()[0]
    np.testing.assert_array_equal(actual["filters.edges"][2, :, :, 1], kernels[:, :, 1, 2])


def test_feature_maps_of_another_network_are_rejected_with_the_layer(tmp_path: Path) -> None:
    model = network()
    write_feature_maps(tmp_path, model, Scaling(), EXPECTS, SAMPLE, discard_log)
    model.get_layer("objects").bias.assign(np.full(8, 1.0))
    changed_network = feature_map_network(model, Scaling(), feature_map_layers(model, UNLIMITED_BYTES))
    with pytest.raises(TrainingError, match=r"maps\.objects differs by"):
        check_feature_maps(changed_network, FeatureSession(tmp_path / "features.onnx", EXPECTS), SAMPLE)


def test_a_network_without_maps_has_no_such_graph(tmp_path: Path) -> None:
    log_lines: list[str] = []
    flat = keras.Sequential([keras.Input((12, 10, 3)), layers.Flatten(), layers.Dense(2)])
    assert write_feature_maps(tmp_path, flat, Scaling(), EXPECTS, SAMPLE, log_lines.append) is None
    assert log_lines == ["no feature maps: no layer of the network outputs images"]
    assert list(tmp_path.iterdir()) == []


def test_filters_that_do_not_read_the_image_are_omitted() -> None:
    deep = keras.Sequential([keras.Input((8, 8, 5)), layers.Conv2D(4, 3)])
    assert first_convolution_kernels(deep) == {}
