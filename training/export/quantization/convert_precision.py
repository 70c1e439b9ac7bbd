"""Converts a graph to int8 by static quantization or to float16, with onnxruntime's tools.

Whether the result is accurate and fast enough is decided in quantize.py.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from service.model_store.manifest import IMAGE, PROBABILITIES
from training.export.graph.editor import Graph

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
CALIBRATION_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
BATCH_SIZE = 32
ACTIVATION_OPERATORS = ("Softmax", "Sigmoid")
HEAD_OPERATORS = (*ACTIVATION_OPERATORS, "Concat", "Sub", "Mean", "Max", "Div", "ReduceSum")
"""Operators that may lie between the last activation and the output: they join the two labels of a binary network, or
compute a mean."""
FLOAT_OPERATORS = ("Softmax",)
"""These operators stay in float32: steps of 1/255 are too coarse for probabilities, and float16 rounds small
probabilities to zero."""


def to_int8(
    graph: Path, images: NDArray[np.uint8], target: Path, *, reduce_range: bool, method: CalibrationMethod
) -> None:
    """Quantizes a graph into `target`: weights signed, per channel; activations unsigned, calibrated on `images`.

    `images` are prepared, uint8 (n, height, width, channels). With `reduce_range` weights have 7 bits: processors
    without VNNI add pairs of products in 16 bits, and these sums could overflow with 8-bit weights.
    """
    from onnxruntime import quantization

    with TemporaryDirectory() as folder, _warnings_disabled():
        folded = Path(folder) / "folded.onnx"
        quantization.quant_pre_process(graph, folded, skip_symbolic_shape=True)
        model = onnx.load(folded)
        head_nodes = _name_head_nodes(Graph(model))
        onnx.save(model, folded)
        quantization.quantize_static(
            folded,
            target,
            _calibration_reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_quantized_operators(model),
            nodes_to_exclude=head_nodes,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[CALIBRATION_METHODS[method]],
        )


def to_float16(graph: Path, target: Path) -> None:
    """Converts a graph into `target`. Pixels stay uint8, and probabilities stay float32, computed from float16
    logits."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked_operators = [*DEFAULT_OP_BLOCK_LIST, *FLOAT_OPERATORS]
    model = onnx.load(graph)
    head_nodes = _name_head_nodes(Graph(model))
    with _warnings_disabled():
        model = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=blocked_operators, node_block_list=head_nodes
        )
        sorted_model = ONNXModel(model)
        sorted_model.topological_sort()
    _remove_head_casts(Graph(sorted_model.model), set(head_nodes))
    onnx.checker.check_model(sorted_model.model)
    onnx.save(sorted_model.model, target)


def _calibration_reader(images: NDArray[np.uint8]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._starts = iter(range(0, len(images), BATCH_SIZE))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            start = next(self._starts, None)
            return None if start is None else {IMAGE: images[start : start + BATCH_SIZE]}

    return Reader()


def _quantized_operators(model: onnx.ModelProto) -> list[str]:
    """Returns the graph's operators except those that stay in float. The tool skips operators that it cannot
    quantize."""
    return sorted({node.op_type for node in model.graph.node} - set(FLOAT_OPERATORS))


def _name_head_nodes(graph: Graph) -> list[str]:
    """Names the nodes from the last activation to the output and returns the names."""
    names: list[str] = []
    tensors = [PROBABILITIES]
    while tensors:
        node = graph.producer(tensors.pop())
        if node is None or node.op_type not in HEAD_OPERATORS or node.name in names:
            continue
        node.name = f"head_{len(names)}"
        names.append(node.name)
        if node.op_type not in ACTIVATION_OPERATORS:
            tensors += node.input
    return names if any(graph.node_named(name).op_type in ACTIVATION_OPERATORS for name in names) else []


def _remove_head_casts(graph: Graph, head_nodes: set[str]) -> None:
    """Removes the casts to float16 and back that the converter inserts after a node that stays in float32."""
    for outer_cast in graph.nodes:
        inner_cast = _producer_of_cast(graph, outer_cast)
        source = _producer_of_cast(graph, inner_cast)
        if inner_cast is None or source is None or source.name not in head_nodes:
            continue
        graph.remove(outer_cast)
        if outer_cast.output[0] == PROBABILITIES:
            graph.rename_input(source.output[0], PROBABILITIES)
            source.output[0] = PROBABILITIES
        graph.rename_input(outer_cast.output[0], source.output[0])
        if not graph.consumers(inner_cast.output[0]):
            graph.remove(inner_cast)


def _producer_of_cast(graph: Graph, node: onnx.NodeProto | None) -> onnx.NodeProto | None:
    return graph.producer(node.input[0]) if node is not None and node.op_type == "Cast" else None


@contextlib.contextmanager
def _warnings_disabled() -> Iterator[None]:
    """Hides the advice that the tools log to the root logger. The tools report errors as exceptions."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
