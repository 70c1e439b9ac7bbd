"""Tells of models that hang: once when it begins, once when it is over. Readiness fails meanwhile, by the registry."""

import logging

from service.loaded_models.registry import Registry
from service.observability import logs


class Watchdog:
    """A model that hung once would hang again: another version in its place, or a restart, is the way out."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._told: set[str] = set()

    def look(self) -> None:
        """To be called every now and then."""
        hanging = self._registry.hanging()
        for model in sorted(hanging.keys() - self._told):
            logs.event(logging.ERROR, "model hangs", model=model, reason=hanging[model])
        for model in sorted(self._told - hanging.keys()):
            logs.event(logging.INFO, "model hangs no more", model=model)
        self._told = set(hanging)
