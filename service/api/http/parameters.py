"""Reads the parameters of a request from the query and from text fields of a form."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

from service.errors import BadParameter, BadRequest

CACHE_BUSTER = "_"
"""A parameter that clients add to bypass caches. It is ignored."""


def query_parameters(scope: Scope, names: Sequence[str]) -> dict[str, str]:
    """Returns the parameters of the query. Raises BadParameter for a parameter that is not among `names`."""
    if not scope["query_string"]:
        return {}
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    query.pop(CACHE_BUSTER, None)
    for name in query:
        if name not in names:
            listed = ", ".join(f"'{known}'" for known in names[:-1])
            raise BadParameter(f"Unknown parameter '{name}'; the parameters are {listed} and '{names[-1]}'.")
    return query


def add_form_fields(query: Mapping[str, str], fields: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Returns the query's parameters, and the fields of a form that are among `names`. Ignores other fields.

    Raises BadRequest if the form and the query give different values for a parameter.
    """
    parameters = dict(query)
    for name in names:
        if name in fields and parameters.setdefault(name, fields[name]) != fields[name]:
            raise BadRequest(
                f"'{name}' is '{parameters[name]}' in the query and '{fields[name]}' in the form.",
                "Send the parameter in one place, or the same value in both.",
            )
    return parameters
