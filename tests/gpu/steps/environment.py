"""Describes machine, software and date in the first rows of the table."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import onnxruntime

from service.hardware import usable_cores
from tests.bench.machine_info import cpu_model
from tests.gpu import nvidia, sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import PROVIDER, Add, Row
from tests.support.model_versions import linear_graph

PACKAGES = ("numpy", "onnx", "uvicorn", "uvloop", "starlette", "orjson", "pillow", "litserve")
PACKAGES += ("nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cuda-runtime")


def measure(plan: Plan, add: Add) -> None:
    name, driver = nvidia.name_and_driver()
    add(Row("GPU", f"{name}, driver {driver}"))
    add(Row("CPU", f"{cpu_model()}, {usable_cores()} cores"))
    add(Row("busy with other work", f"{os.getloadavg()[0]:.1f} (load average before the start; near 0 is idle)"))
    add(Row("date", datetime.now(UTC).strftime("%Y-%m-%d")))
    add(Row("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"))
    add(Row("onnxruntime", f"{onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"))
    add(Row("versions", ", ".join(f"{name} {version_text}" for name in PACKAGES if (version_text := _version(name)))))
    add(_provider(plan))
    add(Row("command", f"`{' '.join(['python', '-m', 'tests.gpu', *_shown_options(plan)])}`"))


def _provider(plan: Plan) -> Row:
    """Checks whether the provider can be used, with a minimal graph."""
    graph = linear_graph(np.ones((4, 2), np.float32), (2, 2, 1)).SerializeToString()
    try:
        sessions.run_plain(sessions.open_session(plan, graph), sessions.random_images((2, 2, 1), 1))()
    except Exception as error:  # any error: without the provider nothing can be measured
        hint = getattr(error, "hint", "")
        return Row(PROVIDER, f"failed: {error} {hint}".strip(), plan.provider_name, False)
    return Row(PROVIDER, plan.provider_name, plan.provider_name, True)


def _shown_options(plan: Plan) -> list[str]:
    return ["--provider", plan.provider, *(["--quick"] if plan.quick else [])]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if sys.platform != "linux":
    raise SystemExit("The check reads /proc: it runs on Linux only.")
