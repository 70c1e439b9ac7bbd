"""Parameters of a request, from the query and from text fields of a form."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

from service.errors import BadParameter, BadRequest

CACHE_BUSTER = "_"
"""A parameter that clients add to bypass caches; it is ignored."""


def query_parameters(scope: Scope, names: Sequence[str]) -> dict[str, str]:
    """Returns the parameters of the query. Raises BadParameter for any that is not among `names`, in their order."""
    if not scope["query_string"]:
        return {}
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    query.pop(CACHE_BUSTER, None)
    for name in query:
        if name not in names:
            listed = ", ".join(f"'{known}'" for known in names[:-1])
            raise BadParameter(f"There is no parameter '{name}'; there are {listed} and '{names[-1]}'.")
    return query


def add_form_fields(query: Mapping[str, str], fields: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Returns the query's parameters and those fields of a form that are among `names`; others are ignored.

    Raises BadRequest where the form and the query differ.
    """
    parameters = dict(query)
    for name in names:
        if name in fields and parameters.setdefault(name, fields[name]) != fields[name]:
            raise BadRequest(
                f"'{name}' is '{parameters[name]}' in the query and '{fields[name]}' in the form.",
                "Send it in one place, or the same value in both.",
            )
    return parameters
