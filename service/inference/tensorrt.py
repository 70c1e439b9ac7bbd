"""TensorRT's options for a graph, and the folder that keeps its engines between processes.

Building an engine takes minutes. An engine is valid for one graph, one type of GPU and one set of library versions.
Independent of onnxruntime: the caller passes in the function that creates a session.
"""

import contextlib
import ctypes
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from service.errors import BrokenVersion
from service.inference.cuda_devices import Gpu
from service.model_store.manifest import IMAGE
from service.observability import logs

T = TypeVar("T")
CreateSession = Callable[[Mapping[str, str]], T]
"""Creates a session with these options for TensorRT, in addition to the options of the placement."""

DRIVER_VERSION = Path("/sys/module/nvidia/version")
BUILDING_PREFIX = ".building-"
MAX_BUILD_S = 6 * 3600
"""Age after which the folder of an unfinished build is removed, because its process must have exited."""
UNUSABLE_CACHE = re.compile(r"deserialize engine|timing cache")


def profile_options(shape: Sequence[int], buckets: Sequence[int]) -> dict[str, str]:
    """Returns the options for one optimization profile that covers all buckets and is tuned for the largest.

    The engine is then built when the session is created, and not again for another batch size. A profile per bucket
    would be faster, but onnxruntime uses only the first profile: batches of all other sizes fail (onnxruntime#31624).
    """
    bounds = {"min": buckets[0], "opt": buckets[-1], "max": buckets[-1]}
    return {f"trt_profile_{bound}_shapes": f"{IMAGE}:{_dimensions(size, shape)}" for bound, size in bounds.items()}


def environment_name(gpu: Gpu, onnxruntime_version: str, tensorrt_version: str) -> str:
    """Returns a folder name that contains everything that an engine depends on except its graph."""
    try:
        driver = DRIVER_VERSION.read_text().strip()
    except OSError:  # such as under WSL
        driver = "unknown"
    parts = [gpu.name, f"sm{gpu.compute_capability}", f"driver{driver}", f"onnxruntime{onnxruntime_version}"]
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([*parts, f"tensorrt{tensorrt_version}"]))


def tensorrt_version(provider_library: Path) -> str:
    """Returns the version of the TensorRT that onnxruntime's provider is linked to. Raises OSError if there is none."""
    match = re.search(rb"libnvinfer\.so(\.\d+)*", provider_library.read_bytes())
    name = match[0].decode() if match else "libnvinfer.so"
    return str(ctypes.CDLL(name).getInferLibVersion())


class EngineCache:
    """The engines of one graph in `root`/`environment`, next to the timings that all graphs of that environment share.

    A build gets its final folder name only when it is finished, so the engine of a killed process is never used.
    Several processes may build the same engine at the same time. The engine that is finished first is kept.
    """

    def __init__(self, root: Path, environment: str, graph_sha256: str, profile: Mapping[str, str]) -> None:
        self._folder = root / environment
        self._engine = self._folder / f"{graph_sha256[:32]}-{profile['trt_profile_max_shapes'].rpartition(':')[2]}"
        self._timings = self._folder / "timings"
        self._profile = profile

    def create(self, create_session: CreateSession[T]) -> T:
        """Returns the session, with the kept engine if there is one. Raises the errors of `create_session`.

        A kept engine that cannot be read is discarded and built again.
        """
        try:
            return self._load_or_build(create_session)
        except BrokenVersion as error:
            if not UNUSABLE_CACHE.search(error.full_message):
                raise
            self._log("engine is discarded", error.full_message)
            for folder in (self._engine, self._timings):
                shutil.rmtree(folder, ignore_errors=True)
            return self._load_or_build(create_session)

    def _load_or_build(self, create_session: CreateSession[T]) -> T:
        if self._engine.is_dir():
            return create_session(self._options(self._engine, self._timings))
        building = self._start_building()
        if building is None:
            return create_session(self._profile)
        try:
            session = create_session(self._options(building / self._engine.name, building / self._timings.name))
            self._publish(building)
            return session
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _options(self, engine: Path, timings: Path) -> dict[str, str]:
        caches = {"engine": engine, "timing": timings}
        enabled = {f"trt_{name}_cache_enable": "True" for name in caches}
        return {**self._profile, **enabled, **{f"trt_{name}_cache_path": str(path) for name, path in caches.items()}}

    def _start_building(self) -> Path | None:
        """Returns a new folder with a copy of the timings; None if no folder can be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            building = Path(tempfile.mkdtemp(prefix=BUILDING_PREFIX, dir=self._folder))
            (building / self._engine.name).mkdir()
            if self._timings.is_dir():
                shutil.copytree(self._timings, building / self._timings.name)
            (building / self._timings.name).mkdir(exist_ok=True)
        except OSError as error:
            self._log("engines cannot be kept: each start builds them", str(error))
            return None
        return building

    def _publish(self, building: Path) -> None:
        engine = building / self._engine.name
        with contextlib.suppress(OSError):  # the folder exists if another process finished first
            if any(engine.glob("*.engine")):
                engine.rename(self._engine)
        with contextlib.suppress(OSError):
            self._timings.mkdir(exist_ok=True)
            for file in (building / self._timings.name).iterdir():
                file.replace(self._timings / file.name)

    def _remove_leftovers(self) -> None:
        for folder in self._folder.glob(f"{BUILDING_PREFIX}*"):
            if time.time() - folder.stat().st_mtime > MAX_BUILD_S:
                shutil.rmtree(folder, ignore_errors=True)

    def _log(self, what: str, reason: str) -> None:
        logs.event(logging.WARNING, f"TensorRT's {what}", folder=str(self._engine), reason=reason)


def _dimensions(batch_size: int, shape: Sequence[int]) -> str:
    return "x".join(map(str, (batch_size, *shape)))
