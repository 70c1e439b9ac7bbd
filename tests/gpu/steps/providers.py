"""Reports the machine, the models, and the provider on which each node of each graph runs."""

import os
import platform
from datetime import UTC, datetime

import onnxruntime

from service.hardware import processor_name, usable_cores
from tests.gpu import nvidia
from tests.gpu.models import write_models
from tests.gpu.plan import Plan, random_images
from tests.gpu.results import Add, Row, failed


def measure(plan: Plan, add: Add) -> None:
    add(Row("GPU", f"{nvidia.query('name')}, driver {nvidia.query('driver_version')}"))
    add(Row("CPU", f"{processor_name()}, {usable_cores()} cores, load average {os.getloadavg()[0]:.1f}"))
    add(Row("date", datetime.now(UTC).strftime("%Y-%m-%d")))
    add(Row("versions", f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"))
    add(Row("onnxruntime's providers", ", ".join(onnxruntime.get_available_providers())))
    for model in write_models(plan):
        for precision in plan.precisions:
            try:
                add(_nodes(plan, model, precision))
            except Exception as error:  # a failing graph must not hide the others
                add(failed(f"nodes of {model}, {precision}", f"{error} {getattr(error, 'hint', '')}"))


def _nodes(plan: Plan, model: str, precision: str) -> Row:
    session = plan.open_session(model, plan.graph(model, precision))
    session.run(random_images(plan.manifest(model).input.shape, 1))
    (plan.work / "usable").touch()
    nodes = session.nodes or {session.provider: "all"}
    found = ", ".join(f"{count} on {provider}" for provider, count in nodes.items())
    return Row(
        f"nodes of {model}, {precision}", found, f"all on {plan.provider_name}", [*nodes] == [plan.provider_name]
    )
