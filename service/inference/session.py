"""A network under onnxruntime. The only importer of onnxruntime; knows no names, versions or requests."""

import contextlib
import ctypes
import functools
import io
import math
import os
import re
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.errors import BrokenVersion, ModelFailed, OutOfMemory
from service.inference.providers import NEEDS_CUDA, ON_CPU, Placement, cuda_failure, unusable
from service.inference.run_timeout import PATIENCE_S, RunTimedOut, RunTimeout
from service.model_store.manifest import IMAGE, PROBABILITIES, Input

ROUNDING = 1e-3  # of a softmax in half precision
WARM_UP_PATIENCE_S = 600.0  # with one run, in which TensorRT may build an engine, for minutes
FEATURES_PATIENCE_S = 60.0  # with each image; all explanations of a worker wait for it
NO_MEMORY = re.compile(
    r"Failed to allocate memory|Available memory of \d+ is smaller|out of memory|ALLOC_FAILED|bad.alloc", re.IGNORECASE
)


class Session:
    """One loaded graph: uint8 images in, float32 probabilities out. `run` may be called from several threads."""

    def __init__(self, path: Path, expects: Input, classes: int, threads: int, placement: Placement = ON_CPU) -> None:
        """Loads the graph at `path`, with `threads` cores for one run, to where `placement` says.

        Raises BrokenVersion when onnxruntime refuses it, when its tensors are not what the manifest says, or when it
        would run elsewhere than was wanted.
        """
        self._input = expects
        self._classes = classes
        self.path = path
        self._buckets = placement.buckets
        self._session = _load(path, threads, placement)
        if self.provider != placement.wanted:
            raise unusable(placement.wanted, _why_unusable(placement.wanted))
        self._check_contract()

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    def run(self, images: NDArray[np.uint8], options: onnxruntime.RunOptions | None = None) -> NDArray[np.float32]:
        """Probabilities, float32 (n, classes), of images, uint8 (n, height, width, channels).

        Raises ModelFailed, and of that OutOfMemory where the batch was too large for what is left; RunTimedOut when
        another thread has set `terminate` of the options.
        """
        batch = self._padded(images)
        try:
            (probabilities,) = self._session.run([PROBABILITIES], {IMAGE: batch}, options)
        except Exception as error:
            if options is not None and options.terminate:
                raise RunTimedOut from error
            raise _failure(error)(f"The model failed on a batch of {len(images)}: {error}.") from error
        self._check_answer(probabilities, len(batch))
        return probabilities if batch is images else probabilities[: len(images)]  # type: ignore[no-any-return]

    def _check_answer(self, probabilities: NDArray[np.float32], count: int) -> None:
        """Raises ModelFailed. That it gave sound answers when it was loaded does not say that it always will."""
        if probabilities.shape != (count, self._classes):
            raise ModelFailed(f"The model answered {count} images with shape {probabilities.shape}.")
        if not math.isfinite(probabilities.sum()):  # a fraction of the time of looking at each
            raise ModelFailed(f"The model answered {count} images with values that are no numbers.")

    def _padded(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The images, and black ones up to the next bucket: cuDNN chooses its algorithms anew for every batch size."""
        count = len(images)
        size = next((bucket for bucket in self._buckets if bucket >= count), count)
        if size == count:
            return images
        padded = np.zeros((size, *images.shape[1:]), np.uint8)
        padded[:count] = images
        return padded

    def warm_up(self, batch_sizes: list[int], timeout_s: float = WARM_UP_PATIENCE_S) -> None:
        """Runs once for each batch size, so that no request pays for first-time allocations.

        Raises BrokenVersion, also when a run takes longer than `timeout_s`: it is ended.
        """
        noise = np.random.default_rng(0)
        with contextlib.closing(WarmUpSession(self, timeout_s)) as first:
            for size in batch_sizes:
                answer = first.run(noise.integers(0, 255, (size, *self._input.shape), np.uint8))
                if not ((answer >= 0) & (answer <= 1 + ROUNDING)).all():
                    reason = "gives values that are no probabilities; does it end in a softmax?"
                    raise BrokenVersion(f"{self.path} {reason}")

    def _check_contract(self) -> None:
        _check_input(self.path, self._session, self._input)
        outputs = {o.name: (o.type, o.shape[1:]) for o in self._session.get_outputs()}
        if outputs.get(PROBABILITIES) != ("tensor(float)", [self._classes]):
            raise BrokenVersion(f"{self.path} gives {outputs}; float32 '{PROBABILITIES}' [{self._classes}] is needed.")


class TimeLimitedSession:
    """Runs of a session that hold up a thread only for so long, one at a time."""

    def __init__(self, session: Session, timeout_s: float = PATIENCE_S) -> None:
        self._session = session
        self._options = onnxruntime.RunOptions()
        self._leash = _leash(self._options, timeout_s)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the session's; one that takes longer than `timeout_s`, up to twice that, is ended: RunTimedOut."""
        self._options.terminate = False
        with self._leash:
            return self._session.run(images, self._options)

    def close(self) -> None:
        """No run comes any more."""
        self._leash.close()


class WarmUpSession:
    """Runs of a session of which nothing is known yet: whatever goes wrong, its version is broken."""

    def __init__(self, session: Session, timeout_s: float) -> None:
        self._session = session
        self._patience_s = timeout_s
        self._runs = TimeLimitedSession(session, timeout_s)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the session's. Raises BrokenVersion, also for a run that has not ended within `timeout_s`."""
        try:
            return self._runs.run(images)
        except RunTimedOut as error:
            late = f"a batch of {len(images)} within {self._patience_s:g} s"
            raise BrokenVersion(f"{self._session.path} has not ended its warm-up with {late}.") from error
        except ModelFailed as error:
            black = "" if images.any() else " The images were black."
            raise BrokenVersion(f"{self._session.path} failed its warm-up: {error.message}{black}") from error

    def close(self) -> None:
        """No run comes any more."""
        self._runs.close()


class FeatureSession:
    """One loaded extra graph: uint8 images in, named float32 tensors out. On the processor, one core a run."""

    def __init__(self, path: Path, expects: Input, timeout_s: float = FEATURES_PATIENCE_S) -> None:
        """Raises BrokenVersion when onnxruntime refuses it, or it takes another input than the manifest says."""
        self._patience_s = timeout_s
        self._session = _load(path, 1, ON_CPU)
        _check_input(path, self._session, expects)

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Every output by its name, in the graph's order, for images (n, height, width, channels).

        Raises ModelFailed, also when it takes longer than `timeout_s` for each of them: it is ended.
        """
        timeout_s = self._patience_s * len(images)
        names = [output.name for output in self._session.get_outputs()]
        options = onnxruntime.RunOptions()
        try:
            with contextlib.closing(_leash(options, timeout_s)) as leash, leash:
                return dict(zip(names, self._session.run(names, {IMAGE: images}, options), strict=True))
        except Exception as error:
            if options.terminate:
                raise ModelFailed(f"The extra graph has not ended within {timeout_s:g} s.") from error
            raise ModelFailed(f"The extra graph failed on a batch of {len(images)}: {error}.") from error


def available_providers() -> list[str]:
    """Names of the execution providers that the installed onnxruntime has, whether or not they work here."""
    return list(onnxruntime.get_available_providers())


def _leash(options: onnxruntime.RunOptions, timeout_s: float) -> RunTimeout:
    return RunTimeout(functools.partial(setattr, options, "terminate", True), timeout_s)


def _failure(error: Exception) -> type[ModelFailed]:
    """onnxruntime has no class of its own for memory: its arena, CUDA and cuDNN each have their words for it."""
    return OutOfMemory if NO_MEMORY.search(str(error)) else ModelFailed


def _check_input(path: Path, session: onnxruntime.InferenceSession, expects: Input) -> None:
    inputs = {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()}
    if inputs != {IMAGE: ("tensor(uint8)", list(expects.shape))}:
        raise BrokenVersion(f"{path} takes {inputs}; the manifest says uint8 '{IMAGE}' {expects.shape}.")


def _load(path: Path, threads: int, placement: Placement) -> onnxruntime.InferenceSession:
    if not NEEDS_CUDA.isdisjoint(placement.providers):
        _preload_cuda()
    providers = list(zip(placement.providers, map(dict, placement.options), strict=True))
    try:
        # Its fallback would print to standard output and run on the processor without a word.
        return onnxruntime.InferenceSession(path, _options(threads), providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's own classes share no public base
        if reason := library_problem(_library_of(placement.wanted)) or cuda_failure(str(error)):
            raise unusable(placement.wanted, reason) from error
        if "external data" in str(error).lower():
            reason = "it keeps weights in other files, which no checksum covers: save it as one file"
            raise BrokenVersion(f"{path} is refused: {reason}.") from error
        raise BrokenVersion(f"onnxruntime cannot load {path}: {str(error).rstrip('.')}.") from error


@functools.cache
def _preload_cuda() -> None:
    """Loads the CUDA and cuDNN libraries that pip installed, where the linker would not find them. Once."""
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # what it prints is told by the session's error
            onnxruntime.preload_dlls()


def _why_unusable(provider: str) -> str:
    if provider not in available_providers():
        return "this onnxruntime does not have it"
    return library_problem(_library_of(provider)) or "its libraries load, but it found no device that it can use"


def _library_of(provider: str) -> Path:
    short = provider.removesuffix("ExecutionProvider").lower()
    return Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{short}.so"


def library_problem(library: Path) -> str:
    """Why a provider's library cannot be loaded, as the linker says; empty where it can, or where there is none."""
    try:
        if library.exists():
            ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised too, and its own lines would be no JSON and name nodes
    # The manifest's checksum covers one file. Weights in files beside it would be read unchecked, so none are found.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    # Spinning threads would take the cores that decoding and HTTP need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
