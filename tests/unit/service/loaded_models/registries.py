"""Creates registries over a folder of a test, and the desired state that they follow."""

import asyncio
from pathlib import Path

from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings


def registry_of(root: Path, **settings: float) -> Registry:
    return Registry(Repository(root), Settings(models=str(root), **settings), Metrics())  # type: ignore[arg-type]


def loaded(root: Path, desired: DesiredState | None = None, **settings: float) -> Registry:
    registry = registry_of(root, **settings)
    asyncio.run(registry.reconcile(desired or DesiredState()))
    return registry


def state_with(model: str = "a", **fields: object) -> DesiredState:
    return DesiredState().with_change(model, **fields)


def versions(registry: Registry) -> dict[str, list[str]]:
    return {
        loaded_versions[0].model: [one.version for one in loaded_versions]
        for loaded_versions in registry.versions_by_model()
    }
