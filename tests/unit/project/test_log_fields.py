"""The table of log fields in docs/operations.md is complete: it contains every field that the source logs, and no other
field."""

import ast
import re

import pytest

from tests.log_fields import FIELDS, _fields_of, log_fields_table, logged_fields

OPENTELEMETRY_TOP_LEVEL = {"Timestamp", "SeverityText", "Body", "TraceId"}
NAME = re.compile(r"[a-z_]+(\.[a-z_-]+)+|@timestamp|message")


def test_every_field_that_is_logged_is_in_the_table() -> None:
    assert sorted(logged_fields()) == sorted(FIELDS)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("logs.event(logging.INFO, 'started', pid=1, **more)", {"pid"}),
        ("log_version(level, event, path, bytes=1)", {"bytes"}),
        ("fields |= {'method': 1} if x else {'path': 2}", {"method", "path"}),
        ("fields['ms'] = 1", {"ms"}),
        ("scope[LOG_FIELDS]['error'] = code", {"error"}),
        ("logger.error('x', extra={'fields': {'task': 1}})", {"task"}),
        ("def log_fields(self):\n    return {'queue_ms': 1}", {"queue_ms"}),
        ("other = {'time': 1}", set()),
        ("print(end='')", set()),
    ],
)
def test_fields_are_found_in_the_source(source: str, names: set[str]) -> None:
    assert {name for node in ast.walk(ast.parse(source)) for name in _fields_of(node)} == names


def test_names_of_others_are_names_of_their_conventions() -> None:
    for name, field in FIELDS.items():
        assert (
            not field.opentelemetry
            or field.opentelemetry in OPENTELEMETRY_TOP_LEVEL
            or NAME.fullmatch(field.opentelemetry)
        ), name
        assert not field.ecs or NAME.fullmatch(field.ecs.partition(" ")[0]), name


def test_a_field_without_a_convention_keeps_its_name_in_a_namespace() -> None:
    assert "| `queue_ms` | milliseconds of waiting for a run | `convoy.queue_ms` | `convoy.queue_ms` |" in (
        log_fields_table()
    )
