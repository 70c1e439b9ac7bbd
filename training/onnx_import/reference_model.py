"""A foreign network as it came, under onnxruntime, its pixels prepared in NumPy: what the adapted graph is held to."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from training.errors import TrainingError
from training.fit.scores import softmax
from training.onnx_import.reader import InputSignature
from training.onnx_import.wrap import ModelInterface

ANY_BATCH = 32


class ReferenceSession:
    """The file's graph. Images are uint8 or float32 pixels 0..255, RGB, (n, height, width, channels)."""

    def __init__(self, path: Path, model: onnx.ModelProto, taken: InputSignature, output: str) -> None:
        """Raises TrainingError when onnxruntime refuses the graph."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._path = path
        self._taken = taken
        self._output = output
        try:
            graph = model.SerializeToString()
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes share no public base
            raise TrainingError(f"onnxruntime refuses {path}: {_first_line(error)}") from error

    def answers(self, images: NDArray, contract: ModelInterface) -> NDArray:
        """What the graph itself gives, as it gives it, for pixels scaled and ordered as the contract says."""
        pixels = images[..., ::-1] if contract.bgr else images
        if self._taken.dtype != "uint8":
            pixels = (pixels * np.float32(contract.scale) - np.float32(contract.mean)) / np.float32(contract.std)
        if self._taken.layout == "nchw":
            pixels = pixels.transpose(0, 3, 1, 2)
        return self._run(np.ascontiguousarray(pixels.astype(self._taken.dtype)))

    def probabilities(self, images: NDArray, contract: ModelInterface) -> NDArray[np.float64]:
        """Probabilities (n, classes), as the contract reads the graph's answers."""
        rows = self.answers(images, contract).reshape(len(images), -1).astype(np.float64)
        rows = rows[:, 1:] if contract.drop_first else rows
        if contract.logits:
            return softmax(rows)
        return rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-12) if contract.drop_first else rows

    def _run(self, pixels: NDArray) -> NDArray:
        size = self._taken.batch or ANY_BATCH
        missing = -len(pixels) % size if self._taken.batch else 0
        padded = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)]) if missing else pixels
        try:
            parts = [
                self._session.run([self._output], {self._taken.name: padded[start : start + size]})[0]
                for start in range(0, len(padded), size)
            ]
        except Exception as error:
            raise TrainingError(f"{self._path} fails on images: {_first_line(error)}") from error
        if any(len(part) != len(padded[i * size : (i + 1) * size]) for i, part in enumerate(parts)):
            raise TrainingError(
                f"{self._path} does not give one answer an image; is {self._output!r} the right output?"
            )
        return np.concatenate(parts)[: len(pixels)]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") + "."
