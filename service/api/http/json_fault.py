"""Finds the position of the first fault in invalid JSON, because simdjson, which parses requests, does not report it.
Independent of the protocol.
"""

import json
import re
from typing import NoReturn

import simdjson

from service.api.http.large_json import LargeText, LargeValues

MAX_SEARCHED_BYTES = 1 << 14
"""Number of bytes at the start of a document, without its large values, in which faults are searched. Python's parser
takes up to 38 ms per MiB, during which the event loop waits: 100 KB/s of compressed JSON would keep it busy."""
MAX_TOKEN_BYTES = 16  # maximum size of a literal or an escape, which the cut at MAX_SEARCHED_BYTES may split
ENDLESS_TEXT = "the string that begins there is not terminated"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Numbers that Python's parser accepts, but that JSON does not allow or that exceed 64 bits. Strings are matched as
# well, so that numbers inside of strings are not matched.
_BEYOND_JSON = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(-?(?:NaN|Infinity|[\d.]{19,}|[\d.]+[eE]\+?\d{3,}))', re.DOTALL
)
_SURROGATE = re.compile(rb"\\u[dD][89abAB]|\\u[dD][c-fC-F]")


def describe_fault(text: bytes, large_values: LargeValues) -> str:
    """Returns position and type of the first fault in a document that simdjson rejects, as the end of an error message.

    `text` may be a document whose `large_values` were cut out. The position is a byte of the whole document, from 0.
    Empty if the fault is not at the start of the document.
    """
    searched = _beginning(text)
    try:
        position, reason = _find_fault(searched)
    except RecursionError:
        return ": it is nested too deeply"
    if len(searched) < len(text) and (reason == ENDLESS_TEXT or position > len(searched) - MAX_TOKEN_BYTES):
        return ""  # the fault may be only the cut
    return f" at byte {_position_in_document(position, large_values)}: {reason}" if reason else ""


def _beginning(text: bytes) -> bytes:
    """Returns about MAX_SEARCHED_BYTES of the text, without a part of a character at the end."""
    end = MAX_SEARCHED_BYTES
    while MAX_SEARCHED_BYTES - 3 <= end < len(text) and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def _find_fault(text: bytes) -> tuple[int, str]:
    try:
        decoded = text.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        return error.start + _mark_bytes(text), "it is not UTF-8"
    try:
        json.loads(decoded, parse_constant=_stop_at_constant)
    except json.JSONDecodeError as error:
        position = len(decoded[: error.pos].encode()) + _mark_bytes(text)
        if error.pos == len(decoded):
            return position, "it is cut off there" if decoded else "it is empty"
        if error.msg.startswith("Unterminated"):
            return position, ENDLESS_TEXT
        return position, f"unexpected {decoded[error.pos]!a}"
    except ValueError:  # NaN, or a number with thousands of digits
        pass
    return _find_beyond_json(text)


def _find_beyond_json(text: bytes) -> tuple[int, str]:
    for match in _BEYOND_JSON.finditer(text):
        if match[1]:
            return match.start(), "a number that JSON does not allow, or that has more than 64 bits"
        if _SURROGATE.search(match[0]) and not _is_json(match[0]):
            return match.start(), "a string with half of a surrogate pair"
    return 0, ""


def _is_json(text: bytes) -> bool:
    try:
        simdjson.Parser().parse(text)
    except ValueError:
        return False
    return True


def _stop_at_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _mark_bytes(text: bytes) -> int:
    return len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0


def _position_in_document(position: int, large_values: LargeValues) -> int:
    """Converts a position in the text, which has placeholders, to a position in the document, which has the large
    values."""
    for name, value in large_values.items():
        start = value.start - 1 if isinstance(value, LargeText) else value.start
        if start >= position:
            break
        end = value.end + 1 if isinstance(value, LargeText) else value.end
        position += end - start - len(name.encode()) - 2
    return position
