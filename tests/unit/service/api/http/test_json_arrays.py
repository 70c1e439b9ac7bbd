"""Untrusted JSON: any document is parsed or rejected with an error, and a rejected one leaves no memory behind."""

import pytest
import simdjson
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.http.json_arrays import (
    MAX_MEMBERS,
    MAX_SHOWN_LENGTH,
    abbreviate,
    decode_base64_image,
    flat_pixels,
    has_shape,
    parse_object,
    select_members,
)
from service.errors import BadTensor

UNREADABLE = {
    "nothing": b"",
    "cut off": b'{"inputs": [',
    "two documents": b"{} {}",
    "too deep": b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "a number over 64 bits": b'{"a": 99999999999999999999999}',
    "a number over all floats": b'{"a": 1e400}',
    "NaN": b'{"a": NaN}',
    "half a surrogate": b'{"a": "\\ud800"}',
    "bytes that are no UTF-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
}


def values(text: bytes) -> simdjson.Array:
    return parse_object(b'{"a":' + text + b"}").root["a"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_invalid_json_is_rejected(text: bytes) -> None:
    with pytest.raises(BadTensor, match=r"^The request is not (a JSON object|valid JSON.*)\.$"):
        parse_object(text)


def object_of(count: int) -> bytes:
    return b"{" + b",".join([b'"":0'] * count) + b"}"


def test_an_object_with_too_many_members_is_rejected_before_parsing() -> None:
    """3.3 million members in 24 KB of gzip blocked the event loop for 344 ms."""
    message = f"has {MAX_MEMBERS + 1} members; the maximum is {MAX_MEMBERS}"
    with pytest.raises(BadTensor, match=message):
        parse_object(object_of(MAX_MEMBERS + 1))
    inner = parse_object(b'{"a":' + object_of(MAX_MEMBERS + 1) + b"}").root["a"]
    with pytest.raises(BadTensor, match=message):
        select_members(inner, frozenset({"a"}))
    assert len(parse_object(object_of(MAX_MEMBERS)).root) == MAX_MEMBERS
    assert select_members(simdjson.Parser().parse(object_of(MAX_MEMBERS)), frozenset({""})) == {"": 0}


def test_a_kept_traceback_does_not_block_later_requests() -> None:
    references = []
    for _ in range(3):
        document = parse_object(b'{"a": [1, -1]}').root
        with pytest.raises(BadTensor) as raised:
            flat_pixels(document["a"], "`a`")
        references.append((document, raised.value))
    assert parse_object(b'{"a": 1}').root["a"] == 1


@settings(deadline=None)
@given(st.recursive(st.lists(st.integers(0, 255), max_size=4), lambda inner: st.lists(inner, max_size=4)))
def test_pixels_are_flattened_in_row_order(nested: list[object]) -> None:
    def flat(value: object) -> list[int]:
        return [n for element in value for n in flat(element)] if isinstance(value, list) else [value]  # type: ignore[list-item]

    assert flat_pixels(values(repr(nested).encode()), "`a`").tolist() == flat(nested)


@pytest.mark.parametrize(
    "text", [b"[256]", b"[-1]", b"[1.0]", b"[true]", b"[null]", b'["1"]', b'[{"a": 1}]', b"[[1, 2.5]]"]
)
def test_values_that_are_not_bytes_are_rejected(text: bytes) -> None:
    with pytest.raises(BadTensor, match=r"^`a` may contain only whole numbers from 0 to 255"):
        flat_pixels(values(text), "`a`")


@pytest.mark.parametrize(
    ("text", "shape", "fits"),
    [
        (b"[[1, 2, 3], [4, 5, 6]]", (2, 3), True),
        (b"[ [1,\n2,3],[4,5,6] ]", (2, 3), True),
        (b"[[1, 2, 3], [4, 5, 6]]", (3, 2), False),
        (b"[[1, 2, 3], [4, 5, 6]]", (6,), False),
        (b"[[1, 2], [3, 4, 5, 6]]", (2, 3), False),
        (b"[[1, 2, 3], 4, 5, 6]", (2, 3), False),
        (b"[[[1], [2]], [[3], [4]]]", (2, 2, 1), True),
        (b"[1]", (1,), True),
    ],
)
def test_a_nested_list_is_compared_with_a_shape(text: bytes, shape: tuple[int, ...], fits: bool) -> None:
    assert has_shape(values(text), shape) is fits


@pytest.mark.parametrize("value", ["A", "!", "é", "AA!AA", None, 7, True, ["AAAA"]])
def test_invalid_base64_is_rejected(value: object) -> None:
    with pytest.raises(BadTensor, match=r"^The thing is not an image in base64"):
        decode_base64_image(value, "The thing")


def test_values_in_messages_are_abbreviated() -> None:
    document = parse_object(b'{"list": [1], "object": {}, "null": null, "text": "' + b"x" * 10_000 + b'"}').root
    assert [abbreviate(document[name]) for name in ("list", "object", "null")] == ["a list", "an object", "null"]
    assert len(abbreviate(document["text"])) < MAX_SHOWN_LENGTH + 10
