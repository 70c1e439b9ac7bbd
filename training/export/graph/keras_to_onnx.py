"""Converts a Keras network to ONNX and optimizes the graph. The only module that uses tf2onnx."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import keras
import onnx

from service.model_store.manifest import IMAGE, PROBABILITIES
from training.errors import TrainingError
from training.export.graph import editor, optimize

OPSET = 18
MAX_PARAMETERS_COPIED = 25_000_000
"""Larger networks are converted without the converter's copies of their weights; see `optimize_in_place`."""


def to_onnx(
    network: keras.Model, optimize_graph: Callable[[onnx.ModelProto], None] = optimize.optimize_graph
) -> onnx.ModelProto:
    """Converts a network (float32 pixels in, probabilities out); the graph takes uint8 `image`, in channels-last order.

    A network with a dictionary of outputs gives them under their names, in that order. The network's own layers are
    all traced with training=False. Raises TrainingError for what ONNX cannot express.
    """
    import tensorflow
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # what it cannot convert is checked below
    signature = tensorflow.TensorSpec((None, *network.input_shape[1:]), tensorflow.uint8, name=IMAGE)
    names = list(network.output) if isinstance(network.output, dict) else [PROBABILITIES]

    @tensorflow.function(input_signature=[signature])
    def run(image: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
        outputs = network(tensorflow.cast(image, tensorflow.float32), training=False)
        return outputs if isinstance(outputs, dict) else {PROBABILITIES: outputs}

    with optimize_in_place() if network.count_params() > MAX_PARAMETERS_COPIED else contextlib.nullcontext():
        model, _ = tf2onnx.convert.from_function(run, input_signature=[signature], opset=OPSET)
    captures = run.get_concrete_function().graph.captures
    values = {inner.name: outer.numpy() for outer, inner in captures if outer.dtype != tensorflow.resource}
    editor.bind_inputs(model, {name: value for name, value in values.items() if name != IMAGE})
    editor.order_outputs(model, names)
    optimize_graph(model)
    if unsupported := editor.unsupported_operators(model):
        raise TrainingError(
            f"The network computes {', '.join(unsupported)}, which ONNX cannot express; replace that layer."
        )
    onnx.checker.check_model(model)
    return model


@contextlib.contextmanager
def optimize_in_place() -> Iterator[None]:
    """Lets tf2onnx optimize in place while the context lasts, so that large exports do not run out of memory.

    After each of about 36 passes tf2onnx writes all constants into new protobuf messages, whose memory is freed only at
    the end, and before each pass it copies the graph in case the pass fails. Only the last protobuf is read. On VGG-16
    for 64x64 images (159 MB of weights) this lowers the peak above the network itself from 7.6 GB to 2.9 GB, and the
    graph is the same; at 224x224 (553 MB) the whole process peaks at 12.8 GB. A pass that fails raises; without this
    context it is skipped.
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
