"""The manifests of k8s/, rendered by `kubectl kustomize`. Tests that use them are skipped if kubectl is not
installed."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "cpu", "gpu")
COMPATIBLE_COMPONENTS = ("monitoring", "keda", "bucket-models", "ingress", "api-keys")
COMBINATIONS = (
    COMPATIBLE_COMPONENTS,
    ("volume-models",),
    ("monitoring", "custom-metrics"),
    ("kserve",),
    ("bucket-models", "api-keys", "kserve"),
)
JOBS = ("storage", "shell", "train", "sweep", "distributed", "batch", "nightly")

Manifest = dict[str, Any]


@functools.cache
def render(folder: Path, *components: str) -> tuple[Manifest, ...]:
    """Returns all objects of a kustomization with these components added."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    if not components:
        return _kustomize(folder)
    with tempfile.TemporaryDirectory() as name:
        temporary_folder = Path(name).resolve()
        component_paths = [
            os.path.relpath(K8S / "components" / component, temporary_folder) for component in components
        ]
        lines = {"resources": [os.path.relpath(folder, temporary_folder)], "components": component_paths}
        (temporary_folder / "kustomization.yaml").write_text(yaml.safe_dump(lines))
        return _kustomize(temporary_folder)


def _kustomize(folder: Path) -> tuple[Manifest, ...]:
    process = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return tuple(yaml.safe_load_all(process.stdout))


def all_kustomizations() -> Iterator[tuple[str, tuple[Manifest, ...]]]:
    """Yields the name and the objects of every overlay, of components alone and combined, and of every job."""
    for overlay in OVERLAYS:
        yield overlay, render(K8S / "overlays" / overlay)
    for components in COMBINATIONS:
        yield ", ".join(components), render(K8S / "overlays/cpu", *components)
    for job in JOBS:
        yield job, render(K8S / "jobs" / job)


def service_manifests() -> list[tuple[Manifest, ...]]:
    """Returns all rendered installations of the service."""
    return [
        *(render(K8S / "overlays" / overlay) for overlay in OVERLAYS),
        *(render(K8S / "overlays/cpu", *components) for components in COMBINATIONS),
    ]


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    """Returns the only object of this kind."""
    (match,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return match


def pod_of(manifest: Manifest) -> Manifest | None:
    """Returns the pod's spec of a workload, or None for other objects."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if manifest["kind"] == "InferenceService":
        return spec["predictor"]
    return spec["template"]["spec"] if manifest["kind"] in {"Deployment", "Job", "CronJob"} else None


def container_of(manifests: tuple[Manifest, ...]) -> Manifest:
    """Returns the only container of the only workload."""
    (pod,) = [pod for manifest in manifests if (pod := pod_of(manifest))]
    (container,) = pod["containers"]
    return container


def environment(manifests: tuple[Manifest, ...]) -> dict[str, str]:
    """Returns the environment variables of the only workload's container."""
    maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap"}
    container = container_of(manifests)
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= maps[source["configMapRef"]["name"]] if "configMapRef" in source else {}
    return variables | {entry["name"]: entry["value"] for entry in container.get("env", [])}


def settings_of(manifests: tuple[Manifest, ...], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Returns the settings of the service in the only workload."""
    for name, value in environment(manifests).items():
        monkeypatch.setenv(name, value)
    return Settings()
