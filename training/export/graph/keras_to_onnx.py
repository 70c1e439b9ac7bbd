"""Converts a Keras network to ONNX and optimizes the graph. The only module that uses tf2onnx."""

import contextlib
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import onnx

from service.model_store.manifest import IMAGE, PROBABILITIES
from training.errors import TrainingError
from training.export.graph import editor, optimize
from training.export.precision_copy import all_layers

OPSET = 18
MAX_PARAMETERS_COPIED = 25_000_000
"""Larger networks are converted with `optimize_in_place`, which avoids copies of the weights."""


def to_onnx(
    network: keras.Model, optimize_graph: Callable[[onnx.ModelProto], None] = optimize.optimize_graph
) -> onnx.ModelProto:
    """Converts a network (float32 pixels in, probabilities out); the graph takes uint8 `image`, in channels-last order.

    A dictionary of outputs keeps its names and order. All layers are traced with training=False. Raises TrainingError
    for operations that ONNX cannot express.
    """
    import tensorflow
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # unsupported nodes are checked below
    signature = tensorflow.TensorSpec((None, *network.input_shape[1:]), tensorflow.uint8, name=IMAGE)
    names = list(network.output) if isinstance(network.output, dict) else [PROBABILITIES]

    def run(image: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
        outputs = network(tensorflow.cast(image, tensorflow.float32), training=False)
        return outputs if isinstance(outputs, dict) else {PROBABILITIES: outputs}

    traced = tensorflow.function(run, input_signature=[signature])
    model: onnx.ModelProto
    in_place = optimize_in_place() if network.count_params() > MAX_PARAMETERS_COPIED else contextlib.nullcontext()
    with in_place, _inlined_functions():
        model, _ = tf2onnx.convert.from_function(traced, input_signature=[signature], opset=OPSET)
    captures = traced.get_concrete_function().graph.captures
    values = {inner.name: outer.numpy() for outer, inner in captures if outer.dtype != tensorflow.resource}
    editor.bind_inputs(model, {name: value for name, value in values.items() if name != IMAGE})
    editor.order_outputs(model, names)
    optimize_graph(model)
    if unsupported := editor.unsupported_nodes(model):
        raise TrainingError(_unsupported_message(network, unsupported))
    onnx.checker.check_model(model)
    return model


@contextlib.contextmanager
def _inlined_functions() -> Iterator[None]:
    """Within the context, traces inline the functions that they call, so that the graph contains the functions'
    operators.

    Keras wraps grouped convolutions in a function for XLA, which no graph optimization inlines.
    """
    import tensorflow

    were_eager = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(were_eager)


def _unsupported_message(network: keras.Model, nodes: Sequence[onnx.NodeProto]) -> str:
    """Returns an error text that names the layers of these nodes. TensorFlow's node names contain the layers' names."""
    names = {layer.name: type(layer).__name__ for layer in all_layers(network)}
    found = {name for node in nodes for name in [_innermost_layer(node.name, names)] if name is not None}
    operators = ", ".join(sorted({node.op_type for node in nodes}))
    if not found:
        return f"The network computes {operators}, which ONNX cannot express. Replace that layer."
    layers = ", ".join(f"{name!r} ({names[name]})" for name in sorted(found))
    return f"ONNX cannot express layer {layers}, which computes {operators}. Replace that layer."


def _innermost_layer(node_name: str, layer_names: Collection[str]) -> str | None:
    parts = [re.sub(r"_[0-9]+$", "", part) if part not in layer_names else part for part in node_name.split("/")]
    return next((part for part in reversed(parts) if part in layer_names), None)


@contextlib.contextmanager
def optimize_in_place() -> Iterator[None]:
    """Lets tf2onnx optimize in place while the context lasts, so that large exports do not run out of memory.

    tf2onnx copies the graph before each of about 36 passes, in case the pass fails. After each pass it writes all
    constants into new protobuf messages. Only the last of these is read, but their memory is freed only at the end. For
    VGG-16 with 64x64 images (159 MB of weights) this context lowers the additional peak memory from 7.6 GB to 2.9 GB,
    and the graph is the same. At 224x224 (553 MB) the whole process peaks at 12.8 GB. A pass that fails raises its
    exception; without this context the pass is skipped.
    """
    import tf2onnx.graph
    import tf2onnx.optimizer

    default_optimize = tf2onnx.optimizer.optimize_graph

    def optimize_graph_in_place(graph: Any, catch_errors: bool = True, optimizers: Any = None) -> Any:
        write = tf2onnx.graph.Graph.update_proto
        tf2onnx.graph.Graph.update_proto = lambda *_: None
        try:
            return default_optimize(graph, catch_errors=False, optimizers=optimizers)
        finally:
            tf2onnx.graph.Graph.update_proto = write

    tf2onnx.optimizer.optimize_graph = optimize_graph_in_place
    try:
        yield
    finally:
        tf2onnx.optimizer.optimize_graph = default_optimize
