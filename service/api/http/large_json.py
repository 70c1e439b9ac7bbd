"""Cuts long strings and arrays out of a JSON document before simdjson parses the rest, and parses them in slices.

simdjson holds the GIL for a whole document: 150 ms for a tensor of 16 MB. With slices, a thread holds the GIL only for
one slice, and the total time is less than half, because a slice stays in the CPU's cache. Independent of the protocol:
`json_arrays` and the parsers check the contents of arrays.
"""

import functools
import re
import secrets
from collections.abc import Iterator
from typing import NamedTuple

from service.errors import BadTensor, TooManyImages

SLICE_BYTES = 1 << 18
MIN_TEXT_BYTES = 2048  # longer than any id, even if each of its 256 characters is escaped
MIN_ARRAY_BYTES = 256
SHOWN_BYTES = 64
MAX_ESCAPES = 64  # of a string that is skipped together with others
DENSE_BYTES = 64
"""Strings that are this close to each other are skipped without counting the bytes between them, because the number of
strings limits those."""
MAX_TEXTS = 100_000
MAX_STRUCTURE_BYTES = 1 << 20
"""Maximum bytes of the document outside of strings and cut-out arrays. simdjson parses that many bytes in 5 ms."""

_BEFORE_ARRAY = re.compile(rb"[ \t\n\r]{0,64}:[ \t\n\r]{0,64}(?=\[)")
_TEXT_PART = re.compile(rb'(?:[^"\\]++|\\.)++', re.DOTALL)
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_WHITESPACE = b" \t\n\r"
_CONTROL_CHARACTERS = bytes(range(0x20))
_ESCAPE = re.compile(rb"\\(?:([/nrtf])|u00([0-7][0-9a-fA-F]))")  # other escapes do not occur in base64
_UNFINISHED_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
MAX_ESCAPE_BYTES = 6
_ESCAPED = {b"/": b"/", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"f": b"\f"}


class LargeText(NamedTuple):
    """The content of a JSON string: document[start:end], with its escapes."""

    document: bytes
    start: int
    end: int

    def slices(self) -> Iterator[bytes]:
        """Yields the content in slices, and decodes the escapes that clients use in base64: "\\/", "\\u003d", and
        escaped line breaks.

        Raises ValueError for control characters, which JSON does not allow in a string.
        """
        unfinished = b""
        for at in range(self.start, self.end, SLICE_BYTES):
            part = self.document[at : min(at + SLICE_BYTES, self.end)]
            if len(part.translate(None, _CONTROL_CHARACTERS)) < len(part):
                raise ValueError("it contains a control character that is not escaped")
            part = unfinished + part
            tail = _UNFINISHED_ESCAPE.search(part, max(0, len(part) - MAX_ESCAPE_BYTES))
            unfinished = tail[0] if tail else b""
            yield _unescape(part[: len(part) - len(unfinished)])
        if unfinished:
            yield unfinished


class LargeArray(NamedTuple):
    """A JSON array that contains no strings and no objects, as text: document[start:end], including its brackets.

    The array is not checked in any other way.
    """

    document: bytes
    start: int
    end: int

    @property
    def is_nested(self) -> bool:
        return self.document.find(b"[", self.start + 1, self.end) > 0

    def number_slices(self) -> Iterator[bytes]:
        """Yields JSON arrays that together contain the numbers of this array, in order and without inner brackets.

        If this array is valid JSON and not empty, none of them is empty.
        """
        if self.is_nested:
            return (b"[%b]" % part.translate(_BRACKETS_TO_SPACES) for part in self._slices(self.start, self.end))
        return (b"[%b]" % part for part in self._slices(self.start + 1, self.end - 1))

    def has_brackets(self, template: bytes) -> bool:
        """Whether the array is nested like `template`, which consists only of brackets and commas.

        Also False if a number is directly before an opening bracket or after a closing bracket. That is not JSON, but
        `number_slices` cannot detect it.
        """
        parts: list[bytes] = []
        for part in self._slices(self.start, self.end):
            compact = part.translate(_DIGITS_TO_ZERO, _WHITESPACE)
            if b"0[" in compact or b"]0" in compact:
                return False
            parts.append(compact.translate(None, b"0"))
        return b",".join(parts) == template

    def _slices(self, start: int, end: int) -> Iterator[bytes]:
        """Yields slices of the document that are separated by single commas."""
        while start <= end:
            comma = self.document.find(b",", start + SLICE_BYTES, end)
            cut = end if comma < 0 else comma
            yield self.document[start:cut]
            start = cut + 1


def _unescape(part: bytes) -> bytes:
    backslashes = part.count(b"\\")
    if backslashes == part.count(rb"\/"):  # PHP escapes base64 like this, and `replace` is much faster
        return part.replace(rb"\/", b"/") if backslashes else part
    return _ESCAPE.sub(lambda escape: _ESCAPED[escape[1]] if escape[1] else bytes([int(escape[2], 16)]), part)


LargeValues = dict[str, LargeText | LargeArray]


def cut_out(text: bytes) -> tuple[bytes, LargeValues]:
    """Returns the document with a placeholder string for each long string and array, and a dict from each placeholder
    to its value.

    An array is cut out if it is the value of a member, and contains neither strings nor objects. Raises BadTensor or
    TooManyImages for a document that would take too long to parse.
    """
    nonce = secrets.token_hex(8).encode()
    kept: list[bytes] = []
    large: LargeValues = {}

    def replace(value: LargeText | LargeArray, beginning: bytes = b"") -> None:
        placeholder = b"%b-%b-%d" % (beginning, nonce, len(large))
        large[placeholder.decode()] = value
        kept.append(b'"%b"' % placeholder)

    position = structure_bytes = texts = 0
    short_texts = _short_texts(MIN_ARRAY_BYTES, MIN_TEXT_BYTES)
    while position < len(text):
        run = short_texts.match(text, position, position + SLICE_BYTES)
        if run is not None:
            kept.append(run[0])
            run_texts = run[0].count(b'"') // 2
            if len(run[0]) > DENSE_BYTES * run_texts:
                structure_bytes += sum(map(len, run[0].split(b'"')[::2]))
            texts += run_texts
            position = run.end()
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
            raise TooManyImages(f"The JSON contains more than {MAX_TEXTS} strings.")
        if structure_bytes > MAX_STRUCTURE_BYTES:
            limit = f"more than {MAX_STRUCTURE_BYTES} bytes outside of strings and arrays of numbers"
            raise BadTensor(f"The JSON contains {limit}.")
    return b"".join(kept), large


@functools.cache
def _short_texts(min_array_bytes: int, min_text_bytes: int) -> re.Pattern[bytes]:
    """Matches consecutive strings that are not cut out, each with the bytes before it, in which no array is cut out.

    A loop in Python takes 1 us per string: 100 ms for a document that gzip compresses to 300 bytes.
    """
    part = rb'[^"\\]{0,%d}+' % (min_text_bytes - 2)
    return re.compile(rb'(?:[^"]{0,%d}+"%b(?:\\.%b){0,%d}+")++' % (min_array_bytes, part, part, MAX_ESCAPES), re.DOTALL)


def _shown_beginning(text: bytes, start: int) -> bytes:
    """Returns the beginning of a long string for error messages; empty unless it consists of ASCII letters and
    digits."""
    beginning = text[start : start + SHOWN_BYTES]
    return beginning if beginning.isascii() and beginning.isalnum() else b""


def _array_span(text: bytes, start: int, end: int) -> tuple[int, int]:
    """Returns start and end of the long array in text[start:end], the part between two strings; (0, 0) if there is no
    long array.

    The array follows a colon. It ends at the last bracket before the end of its object, or before the next member.
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
    """Returns the position after the string that begins at `quote`. Raises BadTensor if the string does not end."""
    first_quote = text.find(b'"', quote + 1)
    if text[first_quote - 1] != ord("\\"):  # as in base64
        end = first_quote
    else:
        end = quote + 1
        while (part := _TEXT_PART.match(text, end, end + SLICE_BYTES + 1)) is not None:
            end = part.end()
        if text[end : end + 1] != b'"':
            end = -1
    if end < 0:
        raise BadTensor(
            f"The request is not valid JSON at byte {quote}: the string that begins there is not terminated."
        )
    return end + 1
