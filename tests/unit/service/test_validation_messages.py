"""Pydantic's errors are described in Convoy's words with the path of the value."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from service.validation_messages import describe_first


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int = Field(default=1, ge=1, le=9)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    inner: Inner = Inner()
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    name: Annotated[str, Field(pattern="^x+$", max_length=3)] = "x"
    ratio: float = Field(default=0.5, gt=0, lt=1)
    items: list[int] = Field(default=[1], min_length=1)
    needed: int
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _check_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("it must be odd")
        return value


@pytest.mark.parametrize(
    ("changes", "field", "description"),
    [
        ({"needed": ...}, "needed", "it is missing"),
        ({"more": 1}, "more", "there is no such field"),
        ({"inner": {"count": 0}}, "inner.count", "it must be at least 1"),
        ({"inner": {"count": 10}}, "inner.count", "it must be at most 9"),
        ({"inner": {"count": "x"}}, "inner.count", "it must be a whole number"),
        ({"inner": {"count": 1.5}}, "inner.count", "it must be a whole number"),
        ({"inner": []}, "inner", "it must be an object"),
        ({"flag": "maybe"}, "flag", "it must be true or false"),
        ({"kind": "c"}, "kind", "it must be 'a' or 'b'"),
        ({"name": "y"}, "name", "it must match ^x+$"),
        ({"name": "xxxx"}, "name", "it must have at most 3 characters"),
        ({"name": 1}, "name", "it must be a text"),
        ({"ratio": 0}, "ratio", "it must be more than 0.0"),
        ({"ratio": 1}, "ratio", "it must be less than 1.0"),
        ({"ratio": float("nan")}, "ratio", "it must be a finite number"),
        ({"items": []}, "items", "it must have at least 1"),
        ({"items": {}}, "items", "it must be a list"),
        ({"odd": 2}, "odd", "it must be odd"),
    ],
)
def test_a_wrong_value_is_described(changes: dict[str, Any], field: str, description: str) -> None:
    values = {name: value for name, value in ({"needed": 1} | changes).items() if value is not ...}
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(values)
    assert describe_first(raised.value.errors()) == (field, description)


def test_a_text_that_is_not_json_is_described() -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate_json("{")
    assert describe_first(raised.value.errors()) == ("", "it is not valid JSON")


def test_an_unknown_error_is_described_without_the_text_of_pydantic() -> None:
    class Dated(BaseModel):
        at: "complex"

    with pytest.raises(ValidationError) as raised:
        Dated.model_validate({"at": "x"})
    assert describe_first(raised.value.errors()) == ("at", "it is not valid")
