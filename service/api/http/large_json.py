"""Long strings and arrays of a JSON document, cut out before simdjson parses the rest, and parsed in slices.

simdjson holds Python's lock for a whole document, 150 ms for a tensor of 16 MB. Here a thread holds it for the time of
one slice, and the whole takes less than half the time, because the memory of a slice stays in the processor's cache.
Knows no protocol: what an array must hold is decided in `json_arrays` and in the parsers.
"""

import re
import secrets
from collections.abc import Iterator
from typing import NamedTuple

from service.errors import BadTensor, TooManyImages

SLICE_BYTES = 1 << 18
MIN_TEXT_BYTES = 2048  # longer than any id, even where each of its 256 characters is escaped
MIN_ARRAY_BYTES = 256
SHOWN_BYTES = 64
MAX_TEXTS = 100_000
MAX_STRUCTURE_BYTES = 1 << 20
"""Of the document without its texts and without the arrays that are cut out: simdjson takes 5 ms at most for it."""

_BEFORE_ARRAY = re.compile(rb"[ \t\n\r]{0,64}:[ \t\n\r]{0,64}(?=\[)")
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_WHITESPACE = b" \t\n\r"
_CONTROL_CHARACTERS = bytes(range(0x20))
_ESCAPE = re.compile(rb"\\(?:([/nrtf])|u00([0-7][0-9a-fA-F]))")  # the others are no base64
_UNFINISHED_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
MAX_ESCAPE_BYTES = 6
_ESCAPED = {b"/": b"/", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"f": b"\f"}


class LargeText(NamedTuple):
    """The content of a JSON string: document[start:end], with its escapes."""

    document: bytes
    start: int
    end: int

    def slices(self) -> Iterator[bytes]:
        """Yields the content in slices, without the escapes that clients use in base64: "\\/", "\\u003d", white space.

        Raises ValueError for control characters, which JSON does not allow in a string.
        """
        unfinished = b""
        for at in range(self.start, self.end, SLICE_BYTES):
            part = self.document[at : min(at + SLICE_BYTES, self.end)]
            if len(part.translate(None, _CONTROL_CHARACTERS)) < len(part):
                raise ValueError("it holds a control character that is not escaped")
            part = unfinished + part
            tail = _UNFINISHED_ESCAPE.search(part, max(0, len(part) - MAX_ESCAPE_BYTES))
            unfinished = tail[0] if tail else b""
            yield _unescape(part[: len(part) - len(unfinished)])
        if unfinished:
            yield unfinished


class LargeArray(NamedTuple):
    """The text of a JSON array, document[start:end] with its brackets, that holds neither strings nor objects.

    Nothing else is checked.
    """

    document: bytes
    start: int
    end: int

    @property
    def is_nested(self) -> bool:
        return self.document.find(b"[", self.start + 1, self.end) > 0

    def number_slices(self) -> Iterator[bytes]:
        """Yields JSON arrays that together hold the numbers of this one in order, without its inner brackets.

        None of them is empty in an array that is JSON and not empty.
        """
        if self.is_nested:
            return (b"[%b]" % part.translate(_BRACKETS_TO_SPACES) for part in self._slices(self.start, self.end))
        return (b"[%b]" % part for part in self._slices(self.start + 1, self.end - 1))

    def has_brackets(self, template: bytes) -> bool:
        """Whether the array is nested as `template`, which consists of brackets and commas only.

        Also false where a number stands directly before an opening bracket or after a closing one: that is no JSON, and
        does not show in `number_slices`.
        """
        parts: list[bytes] = []
        for part in self._slices(self.start, self.end):
            compact = part.translate(_DIGITS_TO_ZERO, _WHITESPACE)
            if b"0[" in compact or b"]0" in compact:
                return False
            parts.append(compact.translate(None, b"0"))
        return b",".join(parts) == template

    def _slices(self, start: int, end: int) -> Iterator[bytes]:
        """Cuts at commas, each of which it leaves out."""
        while start <= end:
            comma = self.document.find(b",", start + SLICE_BYTES, end)
            cut = end if comma < 0 else comma
            yield self.document[start:cut]
            start = cut + 1


def _unescape(part: bytes) -> bytes:
    backslashes = part.count(b"\\")
    if backslashes == part.count(rb"\/"):  # as PHP writes base64; much faster
        return part.replace(rb"\/", b"/") if backslashes else part
    return _ESCAPE.sub(lambda escape: _ESCAPED[escape[1]] if escape[1] else bytes([int(escape[2], 16)]), part)


LargeValues = dict[str, LargeText | LargeArray]


def cut_out(text: bytes) -> tuple[bytes, LargeValues]:
    """Returns the document with a short text in place of each long string and array, and those by that text.

    An array is cut out where it is the value of a name, and holds neither strings nor objects. Raises BadTensor or
    TooManyImages for a document that would take too long.
    """
    nonce = secrets.token_hex(8).encode()
    kept: list[bytes] = []
    large: LargeValues = {}

    def replace(value: LargeText | LargeArray, beginning: bytes = b"") -> None:
        placeholder = b"%b-%b-%d" % (beginning, nonce, len(large))
        large[placeholder.decode()] = value
        kept.append(b'"%b"' % placeholder)

    position = structure_bytes = texts = 0
    while position < len(text):
        quote = text.find(b'"', position)
        end = len(text) if quote < 0 else quote
        array_start, array_end = _array_span(text, position, end)
        if array_start < array_end:
            kept.append(text[position:array_start])
            replace(LargeArray(text, array_start, array_end))
            structure_bytes += array_start - position
            position = array_end
        kept.append(text[position:end])
        structure_bytes += end - position
        position = end
        if quote >= 0:
            position = _text_end(text, quote)
            texts += 1
            if position - quote > MIN_TEXT_BYTES:
                replace(LargeText(text, quote + 1, position - 1), _shown_beginning(text, quote + 1))
            else:
                kept.append(text[quote:position])
        if texts > MAX_TEXTS:
            raise TooManyImages(f"The JSON holds more than {MAX_TEXTS} texts.")
        if structure_bytes > MAX_STRUCTURE_BYTES:
            raise BadTensor(f"The JSON holds more than {MAX_STRUCTURE_BYTES} bytes beside texts and arrays of numbers.")
    return b"".join(kept), large


def _shown_beginning(text: bytes, start: int) -> bytes:
    """Returns what an error message shows of a long text, if no character has to be decoded for that."""
    beginning = text[start : start + SHOWN_BYTES]
    return beginning if beginning.isascii() and beginning.isalnum() else b""


def _array_span(text: bytes, start: int, end: int) -> tuple[int, int]:
    """Returns start and end of the long array between two strings, text[start:end]; (0, 0) where there is none.

    It follows a colon, and ends at the last bracket before the object around it ends, or before the next name.
    """
    if end - start <= MIN_ARRAY_BYTES or (before := _BEFORE_ARRAY.match(text, start, end)) is None:
        return 0, 0
    opening = before.end()
    for brace in (b"{", b"}"):
        found = text.find(brace, opening, end)
        end = end if found < 0 else found
    closing = text.rfind(b"]", opening, end) + 1
    if closing - opening <= MIN_ARRAY_BYTES or not _is_balanced(text, opening, closing):
        return 0, 0
    return opening, closing


def _is_balanced(text: bytes, start: int, end: int) -> bool:
    ranges = [(at, min(at + SLICE_BYTES, end)) for at in range(start, end, SLICE_BYTES)]
    return sum(text.count(b"[", *part) - text.count(b"]", *part) for part in ranges) == 0


def _text_end(text: bytes, quote: int) -> int:
    """Returns the position behind the string that opens at `quote`. Raises BadTensor where it does not end."""
    position = quote + 1
    for _ in range(MAX_TEXTS):
        position = text.find(b'"', position) + 1
        if not position:
            raise BadTensor(f"The request is not valid JSON at byte {quote}: a text that begins there does not end.")
        before = position - 2
        while text[before] == ord("\\") and before > quote:
            before -= 1
        if (position - before) % 2 == 0:
            return position
    raise TooManyImages(f"A text of the JSON holds more than {MAX_TEXTS} quotation marks.")
