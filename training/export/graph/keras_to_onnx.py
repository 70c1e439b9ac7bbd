"""From Keras to ONNX, and the graph made better to run. The only place where TensorFlow itself converts anything."""

import logging
from collections.abc import Callable
from contextlib import nullcontext

import keras
import onnx

from service.model_store.manifest import IMAGE, PROBABILITIES
from training.errors import TrainingError
from training.export.graph import editor, optimize
from training.export.graph.frugal import few_copies

OPSET = 18
LARGE_PARAMETERS = 25_000_000
"""Above this the converter's copies of the weights matter; below, its passes may fail one by one and be left out."""


def to_onnx(network: keras.Model, improve: Callable[[onnx.ModelProto], None] = optimize.improve) -> onnx.ModelProto:
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

    with few_copies() if network.count_params() > LARGE_PARAMETERS else nullcontext():
        model, _ = tf2onnx.convert.from_function(run, input_signature=[signature], opset=OPSET)
    captured = run.get_concrete_function().graph.captures
    values = {inner.name: outer.numpy() for outer, inner in captured if outer.dtype != tensorflow.resource}
    editor.bind_inputs(model, {name: value for name, value in values.items() if name != IMAGE})
    editor.order_outputs(model, names)
    improve(model)
    if missing := editor.unknown_operators(model):
        raise TrainingError(
            f"The network computes {', '.join(missing)}, which ONNX cannot express; replace that layer."
        )
    onnx.checker.check_model(model)
    return model
