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
FLOAT_OPERATORS = ("Softmax",)
"""Steps of 1/255 are too coarse for probabilities, and half precision rounds small ones away."""


def to_int8(
    graph: Path, images: NDArray[np.uint8], target: Path, *, reduce_range: bool, method: CalibrationMethod
) -> None:
    """Quantizes a graph into `target`: weights signed, per channel; activations unsigned, with ranges seen on `images`.

    `images` are prepared, (n, height, width, channels). With `reduce_range` weights have 7 bits, so that processors
    without VNNI, which add pairs of products in 16 bits, do not overflow.
    """
    from onnxruntime import quantization

    with TemporaryDirectory() as folder, _warnings_disabled():
        folded = Path(folder) / "folded.onnx"
        quantization.quant_pre_process(graph, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            target,
            _calibration_reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_quantized_operators(onnx.load(folded)),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[CALIBRATION_METHODS[method]],
        )


def to_float16(graph: Path, target: Path) -> None:
    """Converts a graph into `target`; pixels stay uint8 and probabilities float32, computed from float16 logits."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked_operators = [*DEFAULT_OP_BLOCK_LIST, *FLOAT_OPERATORS]
    with _warnings_disabled():
        model = convert_float_to_float16(onnx.load(graph), keep_io_types=True, op_block_list=blocked_operators)
        sorted_model = ONNXModel(model)
        sorted_model.topological_sort()
    _remove_output_casts(Graph(sorted_model.model))
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
    """The graph's operators but those that stay in float; what has no quantised form is left out by the tool."""
    return sorted({node.op_type for node in model.graph.node} - set(FLOAT_OPERATORS))


def _remove_output_casts(graph: Graph) -> None:
    """Removes the casts to float16 and back that the converter inserts after an operator kept in float32."""
    outer_cast = graph.producer(PROBABILITIES)
    inner_cast = _producer_of_cast(graph, outer_cast)
    source = _producer_of_cast(graph, inner_cast)
    if source is not None and source.op_type in FLOAT_OPERATORS:
        source.output[0] = PROBABILITIES
        graph.remove(inner_cast, outer_cast)


def _producer_of_cast(graph: Graph, node: onnx.NodeProto | None) -> onnx.NodeProto | None:
    return graph.producer(node.input[0]) if node is not None and node.op_type == "Cast" else None


@contextlib.contextmanager
def _warnings_disabled() -> Iterator[None]:
    """Hides the advice that the tools log to the root logger; their errors are exceptions."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
