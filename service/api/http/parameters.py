"""Reads the parameters of a request from the query and from text fields of a form."""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

from service.errors import BadParameter, BadRequest

CACHE_BUSTER = "_"
"""A parameter that clients add to bypass caches. It is ignored."""
NUMBERS = ("top_k", "version")
"""Parameters whose leading zeros make no difference. A class may have the label '01'."""


def query_parameters(scope: Scope, names: Sequence[str]) -> dict[str, str]:
    """Returns the parameters of the query.

    Raises BadParameter for a parameter that is not among `names`, and BadRequest for one with two values.
    """
    if not scope["query_string"]:
        return {}
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name == CACHE_BUSTER:
            continue
        if name not in names:
            listed = ", ".join(f"'{known}'" for known in names[:-1])
            raise BadParameter(f"Unknown parameter '{name}'; the parameters are {listed} and '{names[-1]}'.")
        _set(parameters, name, value, "query", "query")
    return parameters


def add_form_fields(
    query: Mapping[str, str], fields: Iterable[tuple[str, str]], names: Sequence[str]
) -> dict[str, str]:
    """Returns the query's parameters, and the fields of a form that are among `names`. Ignores other fields, and fields
    without a value, which HTML forms send for empty inputs.

    Raises BadRequest if the form and the query, or two fields of the form, give different values for a parameter.
    """
    of_form: dict[str, str] = {}
    for name, value in fields:
        if name in names and value:
            _set(of_form, name, value, "form", "form")
    parameters = dict(query)
    for name, value in of_form.items():
        _set(parameters, name, value, "query", "form")
    return parameters


def _set(parameters: dict[str, str], name: str, value: str, place: str, other_place: str) -> None:
    """Raises BadRequest if the parameter already has a different value."""
    known = parameters.setdefault(name, value)
    if known != value and not (name in NUMBERS and _is_same_number(known, value)):
        where = "" if place == other_place else f" in the {place}"
        raise BadRequest(
            f"'{name}' is '{known}'{where} and '{value}' in the {other_place}.",
            "Send the parameter once, or the same value each time.",
        )


def _is_same_number(text: str, other: str) -> bool:
    return text.isdigit() and other.isdigit() and text.lstrip("0") == other.lstrip("0")
