"""Checks that all nodes run on the provider, from onnxruntime's profile and with CPU fallback forbidden."""

import json
from collections import Counter
from pathlib import Path

from tests.gpu import sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row
from tests.gpu.steps import model_zoo


def measure(plan: Plan, add: Add) -> None:
    for name in model_zoo.networks(plan):
        for precision in ("float32", "float16"):
            add(_row(plan, name, precision))


def _row(plan: Plan, name: str, precision: str) -> Row:
    row_name, required = f"nodes of {name}, {precision}", f"all on {plan.provider_name}"
    try:
        nodes = _profile_nodes(plan, name, precision)
        measured = ", ".join(f"{count} on {provider}" for provider, count in nodes.most_common())
        if plan.provider == "cuda":  # onnxruntime's own check, in addition to the profile
            sessions.open_session(plan, model_zoo.graph(plan, name, precision), forbid_cpu_fallback=True)
    except Exception as error:  # onnxruntime's exceptions have no common public base class
        return Row(row_name, f"failed: {str(error)[:300]}", required, False)
    return Row(row_name, measured, required, set(nodes) == {plan.provider_name})


def _profile_nodes(plan: Plan, name: str, precision: str) -> Counter[str]:
    profile = plan.work / f"profile-{name}-{precision}"
    session = sessions.open_session(plan, model_zoo.graph(plan, name, precision), profile=profile)
    sessions.run_plain(session, sessions.random_images(model_zoo.manifest(plan, name).input.shape, 1))()
    return providers_of(Path(session.end_profiling()))


def providers_of(profile: Path) -> Counter[str]:
    """Returns the number of different nodes that each provider ran; copies between devices count as nodes."""
    events = json.loads(profile.read_text())
    nodes = {
        (event["name"], provider)
        for event in events
        if event.get("cat") == "Node" and (provider := event.get("args", {}).get("provider"))
    }
    return Counter(provider for _, provider in nodes)
