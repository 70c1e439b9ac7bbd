"""A network under onnxruntime. The only importer of onnxruntime; knows no names, versions or requests."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.errors import BrokenVersion, ModelFailed
from service.manifest import IMAGE, PROBABILITIES, Input

CPU_PROVIDER = "CPUExecutionProvider"
ROUNDING = 1e-3  # of a softmax in half precision


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
            if "external data" in str(error).lower():
                reason = "it keeps weights in other files, which no checksum covers: save it as one file"
                raise BrokenVersion(f"{path} is refused: {reason}.") from error
            raise BrokenVersion(f"onnxruntime cannot load {path}: {str(error).rstrip('.')}.") from error
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
        noise = np.random.default_rng(0)
        for size in batch_sizes:
            try:
                answer = self.run(noise.integers(0, 255, (size, *self._input.shape), np.uint8))
            except ModelFailed as error:
                raise BrokenVersion(f"{self._path} failed its warm-up: {error.message}") from error
            if answer.shape != (size, self._classes):
                raise BrokenVersion(f"{self._path} answered {size} images with shape {answer.shape}.")
            if not ((answer >= 0) & (answer <= 1 + ROUNDING)).all():  # not so for NaN either
                raise BrokenVersion(f"{self._path} gives values that are no probabilities; does it end in a softmax?")

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
    # The manifest's checksum covers one file. Weights in files beside it would be read unchecked, so none are found.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    # Spinning threads would take the cores that decoding and HTTP need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
