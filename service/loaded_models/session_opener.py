"""Opens the session of one version: lists its candidates on this machine, chooses one, and loads the graph."""

import logging
from hashlib import sha256

from service.errors import BrokenVersion
from service.hardware import cpu_flags, has_nvidia_gpu
from service.inference.cuda_devices import UnusableGpu, list_gpus, load_driver
from service.inference.engine_choice import Candidate, list_candidates
from service.inference.openvino_plugin import find_plugin
from service.inference.providers import (
    CPU_PROVIDER,
    OPENVINO_PROVIDER,
    TENSORRT_PROVIDER,
    Placement,
    provider_error,
    select_placement,
    select_variant,
)
from service.inference.session import (
    WARM_UP_TIMEOUT_S,
    Session,
    available_providers,
    onnxruntime_version,
    provider_library,
)
from service.inference.tensorrt import EngineCache, environment_name, profile_options, tensorrt_version
from service.loaded_models.engine_selection import BATCH_SIZE, EngineChoice, EngineChoices, measure_candidates
from service.model_store.desired_state import ModelSpec
from service.model_store.repository import VersionFolder
from service.observability import logs
from service.settings import OPENVINO_NAMES, Settings, split_list, user_cache_folder


class SessionOpener:
    """Opens sessions of one version according to the settings of the service. Each run uses `threads` cores."""

    def __init__(
        self, folder: VersionFolder, spec: ModelSpec, settings: Settings, threads: int, worker_id: int = 0
    ) -> None:
        """`worker_id` decides which of several GPUs is used."""
        self.folder = folder
        self._spec = spec
        self._settings = settings
        self._threads = threads
        self._gpu = settings.gpu_of(worker_id)

    def candidates(self) -> list[Candidate]:
        """Returns the candidates that may serve the version, with the baseline first. Raises BrokenVersion."""
        settings, manifest = self._settings, self.folder.manifest
        engines = self._usable_engines()
        if engines != ["openvino"]:
            placement = self._placement("" if engines == ["cpu", "openvino"] else settings.providers)
            if placement.preferred_provider != CPU_PROVIDER:
                return [Candidate(select_variant(manifest, placement, cpu_flags(), settings.precision), placement)]
        return list_candidates(manifest, settings.precision, engines, cpu_flags())

    def choose(
        self, engine_choices: EngineChoices, timeout_s: float = WARM_UP_TIMEOUT_S
    ) -> tuple[Candidate, EngineChoice]:
        """Returns the candidate to use, and how it was chosen.

        Measures the candidates, unless there is only one or `engine_choices` already has a choice. Raises BrokenVersion
        if no candidate can run within `timeout_s`.
        """
        candidates = {candidate.name: candidate for candidate in self.candidates()}
        batch_size = min(BATCH_SIZE, self._settings.max_batch_size or BATCH_SIZE)

        def measure() -> EngineChoice:
            if len(candidates) == 1:
                return EngineChoice(name=next(iter(candidates)))
            input_shape = self.folder.manifest.input.shape
            choice = measure_candidates(list(candidates.values()), self.open, input_shape, batch_size, timeout_s)
            self._log_failures(choice)
            return choice

        key = f"{self.folder.digest} {self._threads} {self._spec.instances} {batch_size} {', '.join(candidates)}"
        choice = engine_choices.get(sha256(key.encode()).hexdigest(), list(candidates), measure)
        return candidates[choice.name], choice

    def open(self, candidate: Candidate) -> Session:
        """Loads the graph of a candidate. Raises BrokenVersion."""
        path, manifest = self.folder.graph_path(candidate.variant), self.folder.manifest
        placement, cache = candidate.placement, None
        if TENSORRT_PROVIDER in placement.providers:
            profile = profile_options(manifest.input.shape, placement.buckets)
            root = self._settings.tensorrt_cache or user_cache_folder() / "tensorrt"
            cache = EngineCache(root, _tensorrt_environment(self._gpu or 0), candidate.variant.sha256, profile)
        instances = self._spec.instances
        return Session(path, manifest.input, manifest.classes, self._threads, placement, cache, instances)

    def _log_failures(self, choice: EngineChoice) -> None:
        action = (
            f"'{choice.name}' serves this version. Set CONVOY_PROVIDERS=cpu to prevent further attempts with "
            "other engines."
        )
        model, version = self.folder.model, self.folder.version
        for name, reason in choice.failures.items():
            event = "an engine cannot run this graph"
            logs.event(
                logging.WARNING, event, model=model, version=version, candidate=name, reason=reason, action=action
            )

    def _usable_engines(self) -> list[str]:
        """Returns the CPU engines that the settings allow and that work on this machine.

        All models share OpenVINO's threads, so a model with a weight runs on onnxruntime's own engine, whose threads
        can have another niceness. Raises BrokenVersion if the settings name OpenVINO, but it does not work.
        """
        named = {name.lower() for name in split_list(self._settings.providers)}
        is_plugin_named = bool(named & OPENVINO_NAMES)
        if named and not is_plugin_named:
            return ["cpu"]
        plugin = find_plugin()
        if is_plugin_named:
            if plugin.device is None:
                raise provider_error(OPENVINO_PROVIDER, plugin.reason)
            return ["openvino"]
        return ["cpu"] if plugin.device is None or self._spec.weight != 1 else ["cpu", "openvino"]

    def _placement(self, providers: str) -> Placement:
        return placement_of(self._settings.model_copy(update={"providers": providers}), self._gpu)


def why_not_openvino(settings: Settings) -> str:
    """Returns the reason why models cannot run on OpenVINO although the settings allow it. Empty if models can run on
    it, or if the settings do not allow it."""
    if settings.providers:
        return ""
    try:
        is_on_cpu = placement_of(settings, settings.gpu_of(0)).preferred_provider == CPU_PROVIDER
    except BrokenVersion:  # is reported when a version is loaded
        return ""
    return find_plugin().reason if is_on_cpu else ""


def placement_of(settings: Settings, gpu: int | None) -> Placement:
    """Returns the placement that the settings choose on this machine; for a CPU, it uses onnxruntime's own engine.

    Raises BrokenVersion for a missing provider.
    """
    return select_placement(
        settings.device,
        settings.providers,
        available_providers(),
        has_gpu=has_nvidia_gpu(),
        max_batch_size=settings.max_batch_size,
        gpu_memory_limit_bytes=settings.gpu_memory_limit_bytes,
        gpu=gpu,
    )


def _tensorrt_environment(gpu: int) -> str:
    """Returns the name of the engine cache's folder. Raises BrokenVersion without a GPU or TensorRT's library."""
    try:
        return environment_name(
            list_gpus(load_driver())[gpu],
            onnxruntime_version(),
            tensorrt_version(provider_library(TENSORRT_PROVIDER)),
        )
    except (UnusableGpu, IndexError, OSError) as error:
        raise provider_error(TENSORRT_PROVIDER, str(error).rstrip(".")) from error
