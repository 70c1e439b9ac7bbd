"""The error for invalid JSON names the position of the first fault."""

import pytest

from service.api.http.json_arrays import parse_object
from service.api.http.json_fault import MAX_SEARCHED_BYTES
from service.errors import BadTensor

NUMBER = "a number that JSON does not allow, or that has more than 64 bits"


def fault_of(text: bytes) -> str:
    with pytest.raises(BadTensor) as raised:
        parse_object(text)
    return raised.value.message.removeprefix("The request is not valid JSON")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", " at byte 0: it is empty."),
        (b'{"a": [', " at byte 7: it is cut off there."),
        (b'{"a": [1,]}', " at byte 9: unexpected ']'."),
        (b"{} {}", " at byte 3: unexpected '{'."),
        (b"\xef\xbb\xbf{a: 1}", " at byte 4: unexpected 'a'."),
        ('{"\N{SNOWMAN}": x}'.encode(), " at byte 8: unexpected 'x'."),
        (b'{"a": "b', " at byte 6: the string that begins there is not terminated."),
        (b'{"a": "\x01"}', " at byte 7: unexpected '\\x01'."),
        (b'{"a": "\xff"}', " at byte 7: it is not UTF-8."),
        (b'{"NaN": NaN}', f" at byte 8: {NUMBER}."),
        (b'{"a": 1e400}', f" at byte 6: {NUMBER}."),
        (b'{"a": [1, -99999999999999999999]}', f" at byte 10: {NUMBER}."),
        (b'{"a": ' + b"9" * 5000 + b"}", f" at byte 6: {NUMBER}."),
        (b'{"a": "\\ud83d\\ude00", "b": "\\ud800"}', " at byte 27: a string with half of a surrogate pair."),
        (b'{"a":' + b"[" * 200_000, ": it is nested too deeply."),
    ],
)
def test_the_fault_is_reported(text: bytes, fault: str) -> None:
    assert fault_of(text) == fault


@pytest.mark.parametrize("large", [b'"' + b"A" * 300_000 + b'"', b"[" + b"1," * 150_000 + b"1]"])
def test_the_byte_offset_counts_large_values(large: bytes) -> None:
    text = b'{"a": ' + large + b', "b": ' + large
    assert fault_of(text + b', "c": ?}') == f" at byte {len(text) + 7}: unexpected '?'."
    assert fault_of(b'{"c": ?, "a": ' + large + b"}") == " at byte 6: unexpected '?'."


def test_a_large_text_that_does_not_end_is_reported() -> None:
    assert fault_of(b'{"a": "' + b"A" * 300_000) == " at byte 6: the string that begins there is not terminated."


@pytest.mark.parametrize(
    ("start", "fault"),
    [
        (b'{"a": [1, nan, ', " at byte 10: unexpected 'n'."),
        (b'{"a": [NaN, ', f" at byte 7: {NUMBER}."),
        (b'{"a": [', "."),
    ],
)
@pytest.mark.parametrize(
    "rest", [b"1e99, ", b"true, ", b'"\\u0041", ', b'"\xc3\xa9", ', b'"NaN", ', b'"a b c d e f g h i j k l m", ']
)
def test_faults_are_searched_only_at_the_start_of_a_document(start: bytes, fault: str, rest: bytes) -> None:
    """Python's parser is slow, so it reads only part of the document. The end of this part is not a fault."""
    for shift in range(len(rest)):
        text = start + b" " * shift + rest * (MAX_SEARCHED_BYTES // len(rest) + 1)
        assert fault_of(text + b"?]}") == fault


def test_no_more_than_the_start_of_a_document_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = list[int]()

    def record_length(text: str, **options: object) -> None:
        lengths.append(len(text))

    monkeypatch.setattr("service.api.http.json_fault.json.loads", record_length)
    assert fault_of(b"[" + b"1e999," * 40_000) == f" at byte 1: {NUMBER}."
    assert lengths == [MAX_SEARCHED_BYTES]
