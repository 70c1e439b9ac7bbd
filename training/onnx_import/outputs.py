"""Finds the class scores among the outputs of an imported graph, and rejects other outputs.

Graphs from scikit-learn, ML.NET and Custom Vision end in a label and a ZipMap, which converts scores to dictionaries.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from training.errors import TrainingError
from training.export.graph.editor import Graph

INDEX_OPERATORS = ("ArgMax", "TopK")
LABEL_OPERATORS = ("ArrayFeatureExtractor", "LabelEncoder", *INDEX_OPERATORS)
MAX_QUANTIZED_SUM, MIN_QUANTIZED_SUM = 264.0, 240.0
"""Sums of probabilities that are quantized to steps of 1/255 or 1/256, ignoring rounding."""


def unwrap_zip_maps(model: onnx.ModelProto) -> tuple[str, ...]:
    """Replaces ZipMaps by their inputs and drops the label outputs. Returns the labels in the graph."""
    graph = Graph(model)
    labels: tuple[str, ...] = ()
    zip_maps = [node for node in graph.nodes if node.op_type == "ZipMap"]
    for node in zip_maps:
        labels = labels or _labels_of(node)
        _replace_output(model, node.output[0], node.input[0])
        graph.remove(node)
    if zip_maps:
        for output in [o for o in model.graph.output if _is_label(graph, o)]:
            model.graph.output.remove(output)
        graph.prune()
    return labels


def select_output(path: Path, model: onnx.ModelProto, name: str | None) -> str:
    """Returns the output to serve. Raises TrainingError if there are several and `name` is None."""
    names: list[str] = [tensor.name for tensor in model.graph.output]
    if name is None and len(names) == 1:
        name = names[0]
    if name is None or name not in names:
        problem = f"has no output {name!r}" if name else f"has {len(names)} outputs"
        raise TrainingError(
            f"{path} {problem}: use --output to choose the output with the classes: {', '.join(names)}."
        )
    operator = _last_operator(Graph(model), name)
    if operator in INDEX_OPERATORS:
        raise TrainingError(
            f"{path} ends in {operator}: {name!r} contains indices or the top classes only, but one number per class "
            "is needed. Choose another output with --output, or export the network without its last step."
        )
    return name


def is_quantized(path: Path, name: str, raw: NDArray[Any]) -> bool:
    """Returns whether an output has probabilities as integers from 0 to 255.

    Raises TrainingError for other integers of at most 8 bits, even if their type is a floating-point type: they are
    quantized with an unknown scale.
    """
    rows = raw.reshape(len(raw), -1).astype(np.float64)
    sums = rows.sum(axis=1)
    is_whole = bool((rows == np.rint(rows)).all())
    is_sum_of_levels = sums.min() >= MIN_QUANTIZED_SUM and sums.max() <= MAX_QUANTIZED_SUM
    if is_whole and is_sum_of_levels and rows.min() >= 0 and rows.shape[1] > 1:
        return True
    is_of_8_bits = rows.min() >= -128 and 1 < rows.max() <= 255
    if raw.dtype.kind in "iub" or (is_whole and is_of_8_bits):
        raise TrainingError(
            f"{path} outputs whole numbers ({raw.dtype}) of unknown scale. Export it with a floating-point output: in "
            "TFLite, inference_output_type = tf.float32; in tf2onnx, --outputs with the tensor before the last "
            f"quantization. Or choose another output than {name!r} with --output."
        )
    return False


def is_index_output(raw: NDArray[Any]) -> bool:
    """Returns whether an output contains indices, that is, integers of more than 8 bits."""
    return raw.dtype.kind in "iu" and raw.dtype.itemsize > 1


def dequantize_output(model: onnx.ModelProto, name: str) -> str:
    """Returns the floating-point tensor if quantization is the graph's last step, else `name`."""
    graph = Graph(model)
    node = graph.producer(name)
    while node is not None and node.op_type in ("Identity", "Cast", "Reshape", "Squeeze", "Flatten"):
        node = graph.producer(node.input[0])
    if node is None or node.op_type != "QuantizeLinear":
        return name
    _replace_output(model, name, node.input[0])
    return str(node.input[0])


def _replace_output(model: onnx.ModelProto, name: str, other: str) -> None:
    [output] = [o for o in model.graph.output if o.name == name]
    output.CopyFrom(helper.make_tensor_value_info(other, TensorProto.FLOAT, None))


def _labels_of(zip_map: onnx.NodeProto) -> tuple[str, ...]:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in zip_map.attribute}
    if strings := values.get("classlabels_strings"):
        return tuple(string.decode("utf-8", "replace") for string in strings)
    return tuple(map(str, values.get("classlabels_int64s", ())))


def _is_label(graph: Graph, output: onnx.ValueInfoProto) -> bool:
    """Returns whether an output is the label of the best class, as text or number."""
    is_number = output.type.tensor_type.elem_type in (TensorProto.STRING, TensorProto.INT64, TensorProto.INT32)
    return is_number or _last_operator(graph, output.name) in LABEL_OPERATORS


def _last_operator(graph: Graph, name: str) -> str:
    node = graph.producer(name)
    while node is not None and node.op_type in ("Identity", "Cast", "Reshape", "Squeeze"):
        node = graph.producer(node.input[0])
    return "" if node is None else str(node.op_type)
