"""Describes in plain English why pydantic rejects a value. Independent of the schemas."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_Context = Mapping[str, Any]
_MUST_BE: dict[str, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "a text",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
    "path": "a path",
}
_DESCRIPTIONS: dict[str, Callable[[_Context], str]] = {
    "missing": lambda _: "it is missing",
    "extra_forbidden": lambda _: "there is no such field",
    "greater_than_equal": lambda context: f"it must be at least {context['ge']}",
    "greater_than": lambda context: f"it must be more than {context['gt']}",
    "less_than_equal": lambda context: f"it must be at most {context['le']}",
    "less_than": lambda context: f"it must be less than {context['lt']}",
    "too_short": lambda context: f"it must have at least {context['min_length']}",
    "too_long": lambda context: f"it must have at most {context['max_length']}",
    "string_too_short": lambda context: f"it must have at least {context['min_length']} characters",
    "string_too_long": lambda context: f"it must have at most {context['max_length']} characters",
    "string_pattern_mismatch": lambda context: f"it must match {context['pattern']}",
    "literal_error": lambda context: f"it must be {context['expected']}",
    "value_error": lambda context: str(context["error"]),  # of Convoy's own validators
    "json_invalid": lambda _: "it is not valid JSON",
}


def describe_first(errors: Sequence[Any]) -> tuple[str, str]:
    """Returns the path of the first invalid value (empty for the whole document), and the reason why it is invalid.

    `errors` is the list of pydantic's or FastAPI's exception.
    """
    first = errors[0]
    return ".".join(map(str, first["loc"])), _describe(first["type"], first.get("ctx", {}))


def _describe(kind: str, context: _Context) -> str:
    if kind in _DESCRIPTIONS:
        return _DESCRIPTIONS[kind](context)
    needed = next((_MUST_BE[start] for start in _MUST_BE if kind.startswith(f"{start}_") or kind == start), None)
    return "it is not valid" if needed is None else f"it must be {needed}"
