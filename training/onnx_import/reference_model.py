"""Runs the unmodified file of an imported network, with preprocessing in NumPy, as the reference of the parity check.

The file can run with and without onnxruntime's optimizations. The difference between the two is an estimate of the
file's error in float32, because onnxruntime cannot run networks in float64.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from training.errors import TrainingError, first_line
from training.fit.scores import sigmoid, softmax
from training.onnx_import.reader import InputSignature
from training.onnx_import.wrap import ModelInterface

DYNAMIC_BATCH_SIZE = 32


class ReferenceSession:
    """A session of the original file. Images are uint8 or float32 pixels 0..255, RGB, (n, height, width, channels)."""

    def __init__(
        self,
        path: Path,
        model: onnx.ModelProto,
        signature: InputSignature,
        output_name: str,
        *,
        is_optimized: bool = True,
    ) -> None:
        """Raises TrainingError if onnxruntime cannot load the graph."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, so logging them is redundant
        if not is_optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._path = path
        self._signature = signature
        self._output_name = output_name
        try:
            graph = model.SerializeToString()
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common public base class
            raise TrainingError(f"onnxruntime cannot load {path}: {first_line(error).rstrip('.')}.") from error

    def run(self, images: NDArray[Any], interface: ModelInterface) -> NDArray[Any]:
        """Scales and orders pixels according to the interface, and returns the raw output of the graph."""
        pixels = images[..., ::-1] if interface.bgr else images
        if self._signature.dtype != "uint8":
            mean, std = np.array(interface.mean, np.float32), np.array(interface.std, np.float32)
            pixels = (pixels * np.float32(interface.scale) - mean) / std
        if self._signature.layout == "nchw":
            pixels = pixels.transpose(0, 3, 1, 2)
        return self._run_batches(np.ascontiguousarray(pixels.astype(self._signature.dtype)))

    def probabilities(self, images: NDArray[Any], interface: ModelInterface) -> NDArray[np.float64]:
        """Returns probabilities (n, classes), interpreting the output according to the interface."""
        rows = self.run(images, interface).reshape(len(images), -1).astype(np.float64)
        rows = rows[:, 1:] if interface.drop_first else rows
        if interface.activation == "softmax":
            return softmax(rows) if interface.is_logits else _normalized(rows) if interface.needs_sum_of_one else rows
        rows = sigmoid(rows) if interface.is_logits else rows
        return np.concatenate([1 - rows, rows], axis=1) if interface.activation == "binary" else rows

    def _run_batches(self, pixels: NDArray[Any]) -> NDArray[Any]:
        size = self._signature.batch or DYNAMIC_BATCH_SIZE
        padding = -len(pixels) % size if self._signature.batch else 0
        padded = np.concatenate([pixels, np.repeat(pixels[-1:], padding, axis=0)]) if padding else pixels
        try:
            parts = [
                self._session.run([self._output_name], {self._signature.name: padded[start : start + size]})[0]
                for start in range(0, len(padded), size)
            ]
        except Exception as error:
            raise TrainingError(f"{self._path} failed to run: {first_line(error).rstrip('.')}.") from error
        if any(len(part) != len(padded[i * size : (i + 1) * size]) for i, part in enumerate(parts)):
            raise TrainingError(
                f"{self._path} does not output one result per image; is {self._output_name!r} the right output?"
            )
        return np.concatenate(parts)[: len(pixels)]


def _normalized(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rescales probabilities to a sum of 1, after a class was dropped."""
    sums: NDArray[np.float64] = rows.sum(axis=1, keepdims=True)
    return rows / np.maximum(sums, 1e-12)
