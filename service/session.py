"""A network under onnxruntime. The only importer of onnxruntime; knows no names, versions or requests."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.errors import BrokenVersion, ModelFailed
from service.manifest import IMAGE, PROBABILITIES, Input

CPU_PROVIDER = "CPUExecutionProvider"


class Session:
    """One loaded graph: uint8 images in, float32 probabilities out. `run` may be called from several threads."""

    def __init__(self, path: Path, expects: Input, classes: int, threads: int) -> None:
        """Loads the graph at `path`, with `threads` cores for one run.

        Raises BrokenVersion when onnxruntime refuses it, or when its tensors are not what the manifest says.
        """
        self._input = expects
        self._classes = classes
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(path, _options(threads), providers=[CPU_PROVIDER])
        except Exception as error:  # onnxruntime's own classes share no public base
            raise BrokenVersion(f"onnxruntime cannot load {path}: {error}.") from error
        self._check_contract()

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities, float32 (n, classes), of images, uint8 (n, height, width, channels). Raises ModelFailed."""
        try:
            (probabilities,) = self._session.run([PROBABILITIES], {IMAGE: images})
        except Exception as error:
            raise ModelFailed(f"The model failed on a batch of {len(images)}: {error}.") from error
        return probabilities  # type: ignore[no-any-return]

    def warm_up(self, batch_sizes: list[int]) -> None:
        """Runs once for each batch size, so that no request pays for first-time allocations. Raises BrokenVersion."""
        for size in batch_sizes:
            try:
                answer = self.run(np.zeros((size, *self._input.shape), np.uint8))
            except ModelFailed as error:
                raise BrokenVersion(f"{self._path} failed its warm-up: {error.message}") from error
            if answer.shape != (size, self._classes) or not np.isfinite(answer).all():
                raise BrokenVersion(f"{self._path} answered its warm-up with {answer.shape} or non-finite values.")

    def _check_contract(self) -> None:
        inputs = {i.name: (i.type, i.shape[1:]) for i in self._session.get_inputs()}
        if inputs != {IMAGE: ("tensor(uint8)", list(self._input.shape))}:
            raise BrokenVersion(f"{self._path} takes {inputs}; the manifest says uint8 '{IMAGE}' {self._input.shape}.")
        outputs = {o.name: (o.type, o.shape[1:]) for o in self._session.get_outputs()}
        if outputs.get(PROBABILITIES) != ("tensor(float)", [self._classes]):
            raise BrokenVersion(f"{self._path} gives {outputs}; float32 '{PROBABILITIES}' [{self._classes}] is needed.")


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take the cores that decoding and HTTP need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
