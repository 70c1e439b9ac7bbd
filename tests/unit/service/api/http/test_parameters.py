"""Parameters come from the query and from a form's text fields, which must agree."""

from typing import Any

import pytest

from service.api.http.parameters import add_form_fields, query_parameters
from service.errors import BadParameter, BadRequest

NAMES = ("top_k", "version")


def scope(query: str) -> dict[str, Any]:
    return {"query_string": query.encode()}


@pytest.mark.parametrize("query", ["", "_=1700000000", "_="])
def test_a_cache_buster_is_ignored(query: str) -> None:
    assert query_parameters(scope(query), NAMES) == {}


def test_the_query_is_decoded() -> None:
    assert query_parameters(scope("version=a%20b&_=1&top_k=3"), NAMES) == {"version": "a b", "top_k": "3"}


def test_an_unknown_parameter_error_lists_the_known_parameters() -> None:
    with pytest.raises(BadParameter, match=r"Unknown parameter 'topk'; the parameters are 'top_k' and 'version'\."):
        query_parameters(scope("topk=3"), NAMES)


@pytest.mark.parametrize("query", ["top_k=3&top_k=3", "top_k=03&top_k=3", "top_k=3&top_k=003"])
def test_a_repeated_parameter_with_the_same_value_is_one_parameter(query: str) -> None:
    assert int(query_parameters(scope(query), NAMES)["top_k"]) == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("top_k=3&version=1&top_k=2", "'top_k' is '3' and '2' in the query."),
        ("version=1&version=10", "'version' is '1' and '10' in the query."),
        ("version=0&version=", "'version' is '0' and '' in the query."),
        ("version=stable&version=Stable", "'version' is 'stable' and 'Stable' in the query."),
    ],
)
def test_a_repeated_parameter_with_another_value_is_rejected(query: str, message: str) -> None:
    with pytest.raises(BadRequest) as error:
        query_parameters(scope(query), NAMES)
    assert str(error.value) == message


def test_labels_of_classes_that_differ_in_leading_zeros_are_different() -> None:
    with pytest.raises(BadRequest, match="'class' is '1' and '01' in the query"):
        query_parameters(scope("class=1&class=01"), ("class", "version"))
    with pytest.raises(BadRequest, match="'class' is '1' in the query and '01' in the form"):
        add_form_fields({"class": "1"}, [("class", "01")], ("class", "version"))


def test_fields_of_a_form_are_parameters_and_unknown_ones_are_ignored() -> None:
    fields = [("top_k", "2"), ("submit", "Send"), ("submit", "Again"), ("csrf", "x")]
    assert add_form_fields({"version": "1"}, fields, NAMES) == {"version": "1", "top_k": "2"}
    assert add_form_fields({"top_k": "2"}, fields, NAMES) == {"top_k": "2"}
    assert add_form_fields({"top_k": "02"}, fields, NAMES) == {"top_k": "02"}


def test_a_field_without_a_value_is_an_empty_input_of_a_form() -> None:
    assert add_form_fields({"version": "1"}, [("version", ""), ("top_k", "")], NAMES) == {"version": "1"}


def test_a_value_that_differs_between_form_and_query_is_rejected() -> None:
    with pytest.raises(BadRequest, match="'top_k' is '3' in the query and '2' in the form"):
        add_form_fields({"top_k": "3"}, [("top_k", "2")], NAMES)


def test_two_values_in_a_form_are_rejected() -> None:
    with pytest.raises(BadRequest, match="'top_k' is '3' and '2' in the form"):
        add_form_fields({}, [("top_k", "3"), ("top_k", "2")], NAMES)
