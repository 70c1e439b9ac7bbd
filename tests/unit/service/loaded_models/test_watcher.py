"""A model that hangs is told of once, and once when it is over."""

import logging

import pytest

from service.loaded_models.watchdog import Watchdog


class Hanging:
    """A registry that knows only what hangs."""

    def __init__(self) -> None:
        self.now: dict[str, str] = {}

    def hanging(self) -> dict[str, str]:
        return self.now


def test_each_is_told_once_at_the_beginning_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    registry = Hanging()
    watchdog = Watchdog(registry)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, logger="convoy"):
        for now in ({}, {"a": "why"}, {"a": "why"}, {"a": "why", "b": "too"}, {"b": "too"}, {"b": "too"}, {}):
            registry.now = now
            watchdog.look()
    told = [(record.message, record.fields["model"]) for record in caplog.records if record.name == "convoy"]  # type: ignore[attr-defined]
    assert told[:2] == [("model hangs", "a"), ("model hangs", "b")]
    assert told[2:] == [("model hangs no more", "a"), ("model hangs no more", "b")]
