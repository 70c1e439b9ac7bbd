"""One graph in less precision: int8 by static quantisation, float16 by conversion. The tools are onnxruntime's.

Knows files and images; whether the result is good enough is decided elsewhere.
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

Method = Literal["minmax", "entropy", "percentile"]
METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
BATCH = 32
KEPT_IN_FLOAT = ("Softmax",)
"""Steps of 1/255 are too coarse for probabilities, and half precision rounds small ones away."""


def to_int8(graph: Path, images: NDArray[np.uint8], to: Path, *, reduce_range: bool, method: Method) -> None:
    """Quantises a graph into `to`: weights signed and by channel, activations unsigned with ranges seen on `images`.

    `images` are prepared, (n, height, width, channels). With `reduce_range` weights have 7 bits, so that processors
    without VNNI, which add pairs of products in 16 bits, do not overflow.
    """
    from onnxruntime import quantization

    with TemporaryDirectory() as folder, _quiet():
        folded = Path(folder) / "folded.onnx"
        quantization.quant_pre_process(graph, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            to,
            _reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_quantised_types(onnx.load(folded)),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[METHODS[method]],
        )


def to_float16(graph: Path, to: Path) -> None:
    """Converts a graph into `to`; pixels are still uint8 and probabilities float32, computed from float16 logits."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FLOAT]
    with _quiet():
        model = convert_float_to_float16(onnx.load(graph), keep_io_types=True, op_block_list=blocked)
        sorted_model = ONNXModel(model)
        sorted_model.topological_sort()
    _skip_casts_behind(Graph(sorted_model.model))
    onnx.checker.check_model(sorted_model.model)
    onnx.save(sorted_model.model, to)


def _reader(images: NDArray[np.uint8]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._starts = iter(range(0, len(images), BATCH))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            start = next(self._starts, None)
            return None if start is None else {IMAGE: images[start : start + BATCH]}

    return Reader()


def _quantised_types(model: onnx.ModelProto) -> list[str]:
    """The graph's operators but those that stay in float; what has no quantised form is left out by the tool."""
    return sorted({node.op_type for node in model.graph.node} - set(KEPT_IN_FLOAT))


def _skip_casts_behind(graph: Graph) -> None:
    """Takes out the casts to float16 and back that the converter puts behind an operator kept in float32."""
    last = graph.producer(PROBABILITIES)
    narrowed = graph.producer(last.input[0]) if last is not None and last.op_type == "Cast" else None
    source = graph.producer(narrowed.input[0]) if narrowed is not None and narrowed.op_type == "Cast" else None
    if source is not None and source.op_type in KEPT_IN_FLOAT:
        source.output[0] = PROBABILITIES
        graph.remove(narrowed, last)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the advice that the tools log to the root logger; what they cannot do they raise."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
