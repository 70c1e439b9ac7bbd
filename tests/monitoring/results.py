"""Reads and writes the recorded outcomes of the alert checks, from which the table in docs/operations.md is
generated."""

import collections
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("results.json")


def read() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def write_healthy(minutes: float, answers: Mapping[tuple[str, int], int], fired: Mapping[str, int]) -> None:
    """Records the healthy traffic: responses by kind and status, and the alerts that fired."""
    kinds: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for (kind, status), count in sorted(answers.items()):
        kinds[kind][str(status)] = count
    _update(healthy={"date": _today(), "minutes": minutes, "answers": kinds, "fired": dict(fired)})


def write_caused(caused: Mapping[str, Mapping[str, Any]]) -> None:
    """Records for each of these alerts the seconds after which it fired, or None. The records of other alerts are
    kept."""
    before = read().get("caused", {}).get("alerts", {})
    _update(caused={"date": _today(), "alerts": before | dict(caused)})


def _update(**changes: Any) -> None:
    FILE.write_text(json.dumps(read() | changes, indent=2, sort_keys=True) + "\n")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
