"""TensorRT's options for a graph, and the folder in which its engines outlive the process.

An engine takes minutes to build, and fits one graph, one kind of GPU and one set of libraries. Does not know
onnxruntime: what creates a session is passed in.
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
"""Creates a session with these options for TensorRT in addition to the placement's."""

DRIVER_VERSION = Path("/sys/module/nvidia/version")
BUILDING_PREFIX = ".building-"
MAX_BUILD_S = 6 * 3600
"""Age after which the folder of an unfinished build was left by a process that is gone."""
UNUSABLE_CACHE = re.compile(r"deserialize engine|timing cache")


def profile_options(shape: Sequence[int], buckets: Sequence[int]) -> dict[str, str]:
    """One optimization profile from the smallest to the largest bucket, tuned for the largest.

    The engine then is built when the session is created, and never again for another batch size. A profile for each
    bucket would be better, but onnxruntime stays on the first one: batches of all others fail (onnxruntime#31624).
    """
    bounds = {"min": buckets[0], "opt": buckets[-1], "max": buckets[-1]}
    return {f"trt_profile_{bound}_shapes": f"{IMAGE}:{_dimensions(size, shape)}" for bound, size in bounds.items()}


def environment_name(gpu: Gpu, onnxruntime_version: str, tensorrt_version: str) -> str:
    """A folder name for what an engine depends on besides its graph."""
    try:
        driver = DRIVER_VERSION.read_text().strip()
    except OSError:  # such as under WSL
        driver = "unknown"
    parts = [gpu.name, f"sm{gpu.compute_capability}", f"driver{driver}", f"onnxruntime{onnxruntime_version}"]
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([*parts, f"tensorrt{tensorrt_version}"]))


def tensorrt_version(provider_library: Path) -> str:
    """The version of the TensorRT that onnxruntime's provider is linked to. Raises OSError where there is none."""
    match = re.search(rb"libnvinfer\.so(\.\d+)*", provider_library.read_bytes())
    name = match[0].decode() if match else "libnvinfer.so"
    return str(ctypes.CDLL(name).getInferLibVersion())


class EngineCache:
    """The engines of one graph in `root`/`environment`, beside the timings that all graphs of that environment share.

    Only a finished engine has the folder's final name, so a process that is killed leaves nothing that is used.
    Several processes may build the same engine at once: the first to finish is kept.
    """

    def __init__(self, root: Path, environment: str, graph_sha256: str, profile: Mapping[str, str]) -> None:
        self._folder = root / environment
        self._engine = self._folder / f"{graph_sha256[:32]}-{profile['trt_profile_max_shapes'].rpartition(':')[2]}"
        self._timings = self._folder / "timings"
        self._profile = profile

    def create(self, create_session: CreateSession[T]) -> T:
        """Returns the session, with the kept engine where there is one. Raises what `create_session` raises.

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
        """A new folder with the known timings; None where none can be written."""
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
        with contextlib.suppress(OSError):  # another process was first
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
