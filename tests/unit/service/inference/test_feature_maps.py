"""Inner outputs come from the version's extra graph, in the graph's order, with one image per map."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.errors import BadParameter, BrokenVersion
from service.inference.feature_maps import FeatureGraph
from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    FEATURES_GRAPH,
    FILTERS_PREFIX,
    MAPS_PREFIX,
    ExtraGraph,
    read_manifest,
    write_manifest,
)
from service.model_store.repository import Repository
from tests.support.model_versions import write_version

HEIGHT, WIDTH, CHANNELS = SHAPE = (8, 6, 3)
IMAGE = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def write_feature_graph(folder: Path) -> None:
    """Adds a graph to the version that outputs the image as maps and as filters of two layers."""
    names = [f"{MAPS_PREFIX}second", f"{FILTERS_PREFIX}first", f"{MAPS_PREFIX}first"]
    nodes = [helper.make_node("Cast", ["image"], [name], to=TensorProto.FLOAT) for name in names]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *SHAPE])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *SHAPE]) for name in names]
    graph = helper.make_graph(nodes, "features", [image], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "features.onnx").write_bytes(model.SerializeToString())
    extra = ExtraGraph(file="features.onnx", sha256=sha256_of(folder / "features.onnx"))
    write_manifest(read_manifest(folder).model_copy(update={"extra_graphs": {FEATURES_GRAPH: extra}}), folder)


def test_maps_and_filters_are_named_by_their_layers(tmp_path: Path) -> None:
    write_feature_graph(write_version(tmp_path, "a", 1, shape=SHAPE))
    features = FeatureGraph(Repository(tmp_path).open("a", 1))
    assert features.is_available
    outputs = features.layer_outputs(IMAGE)
    assert outputs.filters is not None
    assert outputs.filters.layer == "first"
    np.testing.assert_array_equal(outputs.filters.images, IMAGE[np.newaxis])
    assert [layer.layer for layer in outputs.layers] == ["second", "first"]
    for layer in outputs.layers:
        assert layer.images.shape == (CHANNELS, HEIGHT, WIDTH, 1)
        np.testing.assert_array_equal(np.moveaxis(layer.images[..., 0], 0, -1), IMAGE)


def test_a_version_without_the_graph_gives_advice(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1, shape=SHAPE)
    features = FeatureGraph(Repository(tmp_path).open("a", 1))
    assert not features.is_available
    with pytest.raises(BadParameter, match="without feature maps") as raised:
        features.layer_outputs(IMAGE)
    assert "convoy-train export" in raised.value.hint


def test_the_client_does_not_see_why_the_graph_cannot_be_loaded(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "a", 1, shape=SHAPE)
    write_feature_graph(folder)
    (folder / "features.onnx").write_bytes(b"damaged")
    with pytest.raises(BrokenVersion) as raised:
        FeatureGraph(Repository(tmp_path).open("a", 1)).layer_outputs(IMAGE)
    assert raised.value.message == "The graph of the feature maps cannot be loaded."
    assert "features.onnx has sha256" in raised.value.full_message
