"""Runs a network with onnxruntime. Independent of versions and requests.

Only this module and `openvino_plugin` import onnxruntime.
"""

import contextlib
import ctypes
import functools
import io
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.errors import BrokenVersion, ModelFailed, OutOfMemory
from service.inference.batch import InvalidRows
from service.inference.openvino_plugin import add_plugin, find_plugin, load_config
from service.inference.providers import (
    CUDA_BASED_PROVIDERS,
    ON_CPU,
    OPENVINO_PROVIDER,
    TENSORRT_PROVIDER,
    Placement,
    find_cuda_error,
    is_gpu_lost,
    provider_error,
)
from service.inference.run_timeout import DEFAULT_TIMEOUT_S, AbandonableRuns, RunTimedOut, RunTimeout
from service.inference.tensorrt import EngineCache
from service.model_store.manifest import IMAGE, PROBABILITIES, Input

PROBABILITY_TOLERANCE = 1e-3  # above 1, to allow for the rounding of a softmax in half precision
WARM_UP_TIMEOUT_S = 600.0  # per run; TensorRT may build an engine in it, which takes minutes
FEATURES_TIMEOUT_S = 60.0  # per image; all other explanations of the worker wait meanwhile
OUT_OF_MEMORY = re.compile(
    r"Failed to allocate memory|Available memory of \d+ is smaller|out of memory|ALLOC_FAILED|bad.alloc", re.IGNORECASE
)


class Session:
    """One loaded graph: uint8 images in, float32 probabilities out. `run` may be called from several threads."""

    def __init__(
        self,
        path: Path,
        model_input: Input,
        classes: int,
        threads: int,
        placement: Placement = ON_CPU,
        engine_cache: EngineCache | None = None,
        instances: int = 1,
    ) -> None:
        """Loads the graph at `path` on the device of `placement`, with `threads` cores for each of `instances` runs.

        `engine_cache` keeps the engines that TensorRT builds. Raises BrokenVersion if onnxruntime rejects the graph, if
        its inputs and outputs differ from the manifest, or if it would run on another device.
        """
        self._model_input = model_input
        self._classes = classes
        self.path = path
        self._buckets = placement.buckets
        self.placement = placement
        self.device = placement.device
        self.lost_gpu = ""
        """CUDA's error if the GPU failed and only a new process can use it again; otherwise empty."""

        def create(options: Mapping[str, str]) -> onnxruntime.InferenceSession:
            return _create_session(path, threads, _with_options(placement, TENSORRT_PROVIDER, options), instances)

        self._session = create({}) if engine_cache is None else engine_cache.create(create)
        self.nodes = _count_nodes(self._session) if placement.is_on_nvidia else {}
        """Number of graph nodes that each provider runs; empty on a CPU."""
        self._check_placement(placement)
        self._check_interface()

    @property
    def is_terminable(self) -> bool:
        """Whether another thread can terminate a run. OpenVINO ignores `RunOptions.terminate`."""
        return not self.placement.is_on_openvino

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    def _check_placement(self, placement: Placement) -> None:
        """Raises BrokenVersion if onnxruntime fell back to another provider, which it does without an error."""
        actual = self._session.get_providers()
        for provider in placement.providers:
            if provider not in actual:
                raise provider_error(provider, unusable_reason(provider))
        if placement.is_on_nvidia and not self.nodes.get(placement.preferred_provider):
            raise provider_error(placement.preferred_provider, f"it runs no node of {self.path}")

    def run(self, images: NDArray[np.uint8], options: onnxruntime.RunOptions | None = None) -> NDArray[np.float32]:
        """Returns probabilities, float32 (n, classes), for images, uint8 (n, height, width, channels).

        Raises OutOfMemory if the batch does not fit into memory, InvalidRows if the outputs for some images are not
        finite, RunTimedOut if another thread has set `terminate` of the options, and ModelFailed for other failures.
        """
        batch = self._pad(images)
        try:
            (probabilities,) = self._session.run([PROBABILITIES], {IMAGE: batch}, options)
        except Exception as error:
            if options is not None and options.terminate:
                raise RunTimedOut from error
            if is_gpu_lost(str(error)):
                self.lost_gpu = find_cuda_error(str(error))
            message = f"The model failed on a batch of {len(images)}."
            raise _error_class(error)(message, library_text=str(error)) from error
        if probabilities.shape != (len(batch), self._classes):
            raise ModelFailed(f"The model answered {len(batch)} images with shape {probabilities.shape}.")
        rows: NDArray[np.float32] = probabilities if batch is images else probabilities[: len(images)]
        if not np.isfinite(rows).all():  # a graph that passed its warm-up can still fail on other images
            raise InvalidRows(rows)
        return rows

    def _pad(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pads with black images up to the next bucket, because cuDNN chooses its algorithms for each batch size."""
        count = len(images)
        size = next((bucket for bucket in self._buckets if bucket >= count), count)
        if size == count:
            return images
        padded = np.zeros((size, *images.shape[1:]), np.uint8)
        padded[:count] = images
        return padded

    def warm_up(self, batch_sizes: list[int], timeout_s: float = WARM_UP_TIMEOUT_S) -> None:
        """Runs once per batch size, so that no request pays for allocations of a first run.

        Raises BrokenVersion if a run fails, or takes longer than `timeout_s` and is terminated.
        """
        noise = np.random.default_rng(0)
        with contextlib.closing(WarmUpSession(self, timeout_s)) as warm_up_session:
            for size in batch_sizes:
                probabilities = warm_up_session.run(noise.integers(0, 255, (size, *self._model_input.shape), np.uint8))
                if not ((probabilities >= 0) & (probabilities <= 1 + PROBABILITY_TOLERANCE)).all():
                    reason = "returns values that are not probabilities; does it end in a softmax or sigmoid?"
                    raise BrokenVersion(f"{self.path} {reason}")

    def _check_interface(self) -> None:
        _check_input(self.path, self._session, self._model_input)
        outputs = {o.name: (o.type, o.shape[1:]) for o in self._session.get_outputs()}
        if outputs.get(PROBABILITIES) != ("tensor(float)", [self._classes]):
            needed = f"float32 '{PROBABILITIES}' [{self._classes}]"
            raise BrokenVersion(f"{self.path} returns {outputs}; {needed} is needed.")


class TimeLimitedSession:
    """Runs a session, one run at a time, and terminates runs that block the thread for too long."""

    def __init__(self, session: Session, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._session = session
        self._run_options = onnxruntime.RunOptions()
        self._run_timeout = _run_timeout(self._run_options, timeout_s)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Does the same as Session.run. Raises RunTimedOut for a run that takes longer than one to two `timeout_s`."""
        self._run_options.terminate = False
        with self._run_timeout:
            return self._session.run(images, self._run_options)

    def close(self) -> None:
        """Ends the thread of the time limit; no run may follow."""
        self._run_timeout.close()


class WarmUpSession:
    """Runs a session that is being loaded. Every failure means that its version is broken.

    A run that cannot be terminated executes in a separate thread, which is abandoned if the run takes too long.
    """

    def __init__(self, session: Session, timeout_s: float) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._runs: TimeLimitedSession | AbandonableRuns[NDArray[np.uint8], NDArray[np.float32]] = (
            TimeLimitedSession(session, timeout_s) if session.is_terminable else AbandonableRuns(session.run, timeout_s)
        )

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Does the same as Session.run. Raises BrokenVersion if the run fails or does not end within `timeout_s`."""
        try:
            return self._runs.run(images)
        except RunTimedOut as error:
            details = f"a batch of {len(images)} within {self._timeout_s:g} s"
            raise BrokenVersion(f"{self._session.path} did not end its warm-up with {details}.") from error
        except ModelFailed as error:
            hint = "" if images.any() else " The images were black."
            raise BrokenVersion(f"{self._session.path} failed its warm-up: {error.full_message}{hint}") from error

    def close(self) -> None:
        """Ends the thread of the time limit; no run may follow."""
        self._runs.close()


class FeatureSession:
    """One loaded extra graph: uint8 images in, named float32 tensors out. Runs on the CPU, with one core per run."""

    def __init__(self, path: Path, model_input: Input, timeout_s: float = FEATURES_TIMEOUT_S) -> None:
        """Raises BrokenVersion if onnxruntime rejects the graph, or if its input differs from the manifest."""
        self._timeout_s = timeout_s
        self._session = _create_session(path, 1, ON_CPU, 1)
        _check_input(path, self._session, model_input)

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Returns all outputs by name, in the graph's order, for images, uint8 (n, height, width, channels).

        Raises ModelFailed if the run fails, or takes longer than `timeout_s` per image and is terminated.
        """
        timeout_s = self._timeout_s * len(images)
        names = [output.name for output in self._session.get_outputs()]
        options = onnxruntime.RunOptions()
        try:
            with contextlib.closing(_run_timeout(options, timeout_s)) as run_timeout, run_timeout:
                return dict(zip(names, self._session.run(names, {IMAGE: images}, options), strict=True))
        except Exception as error:
            if options.terminate:
                raise ModelFailed(f"The extra graph did not end within {timeout_s:g} s.") from error
            message = f"The extra graph failed on a batch of {len(images)}."
            raise ModelFailed(message, library_text=str(error)) from error


def available_providers() -> list[str]:
    """Returns the execution providers of the installed onnxruntime, whether or not they work on this machine."""
    return list(onnxruntime.get_available_providers())


def onnxruntime_version() -> str:
    return str(onnxruntime.__version__)


def _with_options(placement: Placement, provider: str, added: Mapping[str, str]) -> Placement:
    pairs = zip(placement.providers, placement.options, strict=True)
    return replace(placement, options=tuple({**old, **added} if name == provider else old for name, old in pairs))


def _count_nodes(session: onnxruntime.InferenceSession) -> dict[str, int]:
    nodes: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        nodes[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(nodes)


def _run_timeout(options: onnxruntime.RunOptions, timeout_s: float) -> RunTimeout:
    return RunTimeout(functools.partial(setattr, options, "terminate", True), timeout_s)


def _error_class(error: Exception) -> type[ModelFailed]:
    """Recognizes a lack of memory by the message, because onnxruntime has no exception class for it."""
    return OutOfMemory if OUT_OF_MEMORY.search(str(error)) else ModelFailed


def _check_input(path: Path, session: onnxruntime.InferenceSession, model_input: Input) -> None:
    inputs = {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()}
    if inputs != {IMAGE: ("tensor(uint8)", list(model_input.shape))}:
        raise BrokenVersion(f"{path} accepts {inputs}; the manifest says uint8 '{IMAGE}' {model_input.shape}.")


def _create_session(path: Path, threads: int, placement: Placement, instances: int) -> onnxruntime.InferenceSession:
    if placement.hint is not None:
        # One thread of onnxruntime, because the plugin runs the graph on its own threads.
        return _create_plugin_session(path, session_options(1), load_config(placement.hint, threads, instances))
    if not CUDA_BASED_PROVIDERS.isdisjoint(placement.providers):
        preload_cuda()
    providers = list(zip(placement.providers, map(dict, placement.options), strict=True))
    try:
        options = session_options(threads)
        if placement.is_on_nvidia:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # The fallback would print to standard output, and then silently run on the CPU.
        return onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's own classes share no public base
        if reason := library_load_error(provider_library(placement.preferred_provider)) or find_cuda_error(str(error)):
            raise provider_error(placement.preferred_provider, reason) from error
        raise _load_error(path, error) from error


def _create_plugin_session(
    path: Path, options: onnxruntime.SessionOptions, config: str
) -> onnxruntime.InferenceSession:
    plugin = find_plugin()
    if plugin.device is None:
        raise provider_error(OPENVINO_PROVIDER, plugin.reason)
    try:
        add_plugin(options, plugin.device, config)
        return onnxruntime.InferenceSession(path, options, enable_fallback=0)
    except Exception as error:
        raise _load_error(path, error) from error


def _load_error(path: Path, error: Exception) -> BrokenVersion:
    if "external data" in str(error).lower():
        reason = "it stores weights in other files, which no checksum covers: save it as one file"
        return BrokenVersion(f"{path} is rejected: {reason}.")
    return BrokenVersion(f"onnxruntime cannot load {path}: {str(error).rstrip('.')}.")


@functools.cache
def preload_cuda() -> None:
    """Loads the CUDA and cuDNN libraries that pip installed, which the linker does not find by itself. Runs once."""
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # the session reports the same error
            onnxruntime.preload_dlls()


def unusable_reason(provider: str) -> str:
    if provider not in available_providers():
        return "this onnxruntime does not have it"
    return (
        library_load_error(provider_library(provider)) or "its libraries load, but it found no device that it can use"
    )


def provider_library(provider: str) -> Path:
    short_name = provider.removesuffix("ExecutionProvider").lower()
    return Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{short_name}.so"


def library_load_error(library: Path) -> str:
    """Returns the linker's message if a provider's library cannot be loaded; empty if it can, or does not exist."""
    try:
        if library.exists():
            ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""


def session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Errors are raised anyway. onnxruntime's log lines are not JSON, and reveal names of nodes.
    options.log_severity_level = 4
    # The manifest's checksum covers only the graph's file. This folder makes weights in other files impossible to find.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    # Spinning threads would occupy the cores that decoding and HTTP need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
