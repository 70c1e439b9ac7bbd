"""Every error has a code for programs, and a message and a hint for people."""

import inspect
import re

import pytest

from service import errors
from service.errors import REJECTIONS, BrokenVersion, ConvoyError, Overloaded, QueueFull, UnknownModel

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ConvoyError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_a_code_and_advice(kind: type[ConvoyError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert kind.hint.endswith(".")
    assert kind.__doc__


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(codes) > 10
    assert len(set(codes)) == len(codes)


def test_a_specific_hint_replaces_the_default_hint() -> None:
    error = BrokenVersion("It is broken.", hint="Mend it.")
    assert (str(error), error.message, error.hint) == ("It is broken.", "It is broken.", "Mend it.")
    assert BrokenVersion("It is broken.").hint == BrokenVersion.hint != error.hint


def test_overload_is_reported_with_the_time_to_wait() -> None:
    error = QueueFull("Full.", retry_after_s=2.5)
    assert (error.retry_after_s, error.hint) == (2.5, Overloaded.hint)


def test_a_rejection_has_its_reason_as_its_code() -> None:
    reasons = {kind.code for kind in KINDS if issubclass(kind, REJECTIONS)} - {Overloaded.code}
    assert reasons == {"queue_full", "too_late_to_start", "memory_full", "expired_in_queue", "deadline_too_short"}


@pytest.mark.parametrize(
    ("model", "known", "message"),
    [
        ("pet", ["cars", "pets"], "There is no model 'pet'. Did you mean 'pets'?"),
        ("pet", ["cars"], "There is no model 'pet'."),
        ("x" * 5000, ["x" * 64], f"There is no model '{'x' * 5000}'."),
        ("pet", ["pets"] * 1000, "There is no model 'pet'."),
    ],
    ids=["near", "far", "too long to compare", "too many to compare"],
)
def test_an_unknown_model_suggests_the_nearest_name(model: str, known: list[str], message: str) -> None:
    assert UnknownModel.suggesting(model, known).message == message
    assert UnknownModel.suggesting(model, known, "/srv").message == message.replace("'.", "' in /srv.", 1)
