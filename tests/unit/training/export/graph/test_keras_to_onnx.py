"""In-place optimization gives the same graph, writes constants only a few times, and restores tf2onnx afterwards."""

import contextlib
from collections import Counter

import keras
import onnx
import pytest
import tensorflow
import tf2onnx.graph
import tf2onnx.optimizer

from training.architectures import build
from training.export.graph.keras_to_onnx import optimize_in_place


def convert(network: keras.Model) -> onnx.ModelProto:
    @tensorflow.function(input_signature=[tensorflow.TensorSpec((None, *network.input_shape[1:]), name="image")])
    def run(image: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
        return {"logits": network(image, training=False)}

    return tf2onnx.convert.from_function(run, input_signature=run.input_signature, opset=18)[0]


@pytest.fixture
def write_counts(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Counts how often each constant is written into its protobuf message."""
    counts: Counter = Counter()
    write = tf2onnx.graph.Node.update_proto

    def count_and_write(node: tf2onnx.graph.Node, *arguments: object) -> None:
        counts[node.name] += node.is_const()
        write(node, *arguments)

    monkeypatch.setattr(tf2onnx.graph.Node, "update_proto", count_and_write)
    return counts


def test_the_same_graph_from_fewer_copies(write_counts: Counter) -> None:
    network = build("cifar-resnet20", input_shape=(16, 16, 3))
    plain = convert(network)
    max_writes = max(write_counts.values())
    write_counts.clear()
    with optimize_in_place():
        in_place = convert(network)
    assert max_writes > 20
    assert max(write_counts.values()) <= 3
    assert [(node.op_type, node.attribute) for node in in_place.graph.node] == [
        (node.op_type, node.attribute) for node in plain.graph.node
    ]
    assert sorted(tensor.raw_data for tensor in in_place.graph.initializer) == sorted(
        tensor.raw_data for tensor in plain.graph.initializer
    )


def test_tf2onnx_is_restored_after_an_error() -> None:
    optimize, write = tf2onnx.optimizer.optimize_graph, tf2onnx.graph.Graph.update_proto
    with contextlib.suppress(KeyError), optimize_in_place():
        assert tf2onnx.optimizer.optimize_graph is not optimize
        raise KeyError
    assert tf2onnx.optimizer.optimize_graph is optimize
    assert tf2onnx.graph.Graph.update_proto is write
