"""onnxruntime with the service's options, plus features that only the check needs: profiles, bindings, CUDA graphs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.hardware import usable_cores
from service.inference.providers import CPU_PROVIDER, provider_error
from service.inference.session import preload_cuda, session_options, unusable_reason
from service.model_store.manifest import IMAGE, PROBABILITIES
from tests.bench.errors import CannotMeasure
from tests.gpu.check_plan import Plan

Images = NDArray[np.uint8]


def open_session(
    plan: Plan,
    graph: Path | bytes,
    *,
    profile: Path | None = None,
    on_cpu: bool = False,
    cuda_graph: bool = False,
    forbid_cpu_fallback: bool = False,
) -> onnxruntime.InferenceSession:
    """Opens a graph on the plan's provider, or `on_cpu`. `forbid_cpu_fallback` rejects nodes that CUDA cannot run.

    Raises CannotMeasure if the provider cannot be used, which onnxruntime does not report.
    """
    options = session_options(usable_cores())
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if forbid_cpu_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers: list[Any] = [CPU_PROVIDER]
    if plan.provider == "cuda" and not on_cpu:
        preload_cuda()
        placement = plan.placement(largest_batch=1)
        options_for_cuda = dict(placement.options[0]) | ({"enable_cuda_graph": "1"} if cuda_graph else {})
        providers = [(placement.preferred_provider, options_for_cuda), *([] if forbid_cpu_fallback else [CPU_PROVIDER])]
    source = graph if isinstance(graph, bytes) else str(graph)
    session = onnxruntime.InferenceSession(source, options, providers=providers, enable_fallback=0)
    if not on_cpu and session.get_providers()[0] != plan.provider_name:  # onnxruntime falls back silently
        problem = provider_error(plan.provider_name, unusable_reason(plan.provider_name))
        raise CannotMeasure(f"{problem.message} {problem.hint}")
    return session


def run_plain(session: onnxruntime.InferenceSession, images: Images) -> Callable[[], Any]:
    """Returns a run like the service's: from array to array."""
    return lambda: session.run([PROBABILITIES], {IMAGE: images})[0]


def run_bound(plan: Plan, session: onnxruntime.InferenceSession, images: Images, classes: int) -> Callable[[], Any]:
    """Returns a run on device tensors, including the copies of images to the device and of probabilities from it."""
    device = plan.provider
    device_input = onnxruntime.OrtValue.ortvalue_from_numpy(images, device, 0)
    device_output = onnxruntime.OrtValue.ortvalue_from_shape_and_type((len(images), classes), np.float32, device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input(IMAGE, device_input)
    binding.bind_ortvalue_output(PROBABILITIES, device_output)

    def run() -> NDArray[np.float32]:
        device_input.update_inplace(images)
        session.run_with_iobinding(binding)
        return device_output.numpy()  # type: ignore[no-any-return]

    return run


def random_images(shape: tuple[int, int, int], count: int) -> Images:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)
