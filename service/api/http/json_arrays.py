"""Reads JSON with tensors, using simdjson: without a Python object per number, and in bounded memory.

Long strings and arrays of a large document are read separately, by `large_json`.

Lists are iterated, and never converted by simdjson's `as_list`, `values` or `items`: these count at most 2**24 - 1
elements, and write the rest past the end of the new list.
"""

from typing import Any, NamedTuple

import numpy as np
import simdjson
from numpy.typing import NDArray

from service.api.http.base64_text import decode_base64
from service.api.http.json_fault import describe_fault
from service.api.http.large_json import LargeArray, LargeText, LargeValues, cut_out
from service.api.http.parse_thread import MAX_INLINE_JSON_BYTES
from service.errors import BadTensor, TooManyImages

DIGITS = b"0123456789"
MAX_MEMBERS = 1000
"""Maximum members of a JSON object, because reading a million of them holds the GIL for a tenth of a second."""
MAX_SHOWN_LENGTH = 60


class JsonDocument(NamedTuple):
    """A JSON object, whose values simdjson decodes lazily, and the large values that were cut out of it."""

    root: Any
    large_values: LargeValues

    def value(self, value: Any) -> Any:
        """Returns the large value that `value` is the placeholder of, or `value` itself if it is not a placeholder."""
        if not self.large_values or not isinstance(value, str):
            return value
        return self.large_values.get(value, value)


def parse_object(text: bytes) -> JsonDocument:
    """Parses a JSON object. Raises BadTensor if it is invalid, or TooManyImages if it has too many strings.

    Each request gets its own parser, which costs half a microsecond. A shared parser would keep the memory of its
    largest document, and would fail while a traceback still refers to the previous document.
    """
    text, large_values = cut_out(text) if len(text) > MAX_INLINE_JSON_BYTES else (text, {})
    try:
        root = simdjson.Parser().parse(text)
    except (ValueError, RuntimeError):  # RuntimeError for deep nesting, and for numbers above 64 bits
        raise BadTensor(f"The request is not valid JSON{describe_fault(text, large_values)}.") from None
    if not isinstance(root, simdjson.Object):
        raise BadTensor("The request is not a JSON object.")
    check_member_count(root)
    return JsonDocument(root, large_values)


def check_member_count(json_object: Any) -> None:
    """Raises BadTensor for an object with too many members. Called before any of them is read."""
    if len(json_object) > MAX_MEMBERS:
        raise BadTensor(f"An object in the JSON has {len(json_object)} members; the maximum is {MAX_MEMBERS}.")


def select_members(json_object: Any, names: frozenset[str]) -> dict[str, Any]:
    """Returns the members with these names that are present.

    Does not look up missing members, because that costs 2 us for a C++ exception. Raises BadTensor for an object with
    too many members.
    """
    check_member_count(json_object)
    return {name: json_object[name] for name in names.intersection(json_object)}


def is_array(value: Any) -> bool:
    return isinstance(value, simdjson.Array | LargeArray)


def is_nested(values: Any) -> bool:
    """Whether a non-empty list contains lists."""
    return values.is_nested if isinstance(values, LargeArray) else isinstance(values[0], simdjson.Array)


def flat_pixels(values: Any, name: str) -> NDArray[np.uint8]:
    """Returns the numbers of a list, nested or flat, row by row. Raises BadTensor unless all are 0 to 255."""
    try:
        if not isinstance(values, LargeArray):
            return _to_uint8(values)
        slices = [_to_uint8(simdjson.Parser().parse(part)) for part in values.number_slices()]
        if not all(pixels.size for pixels in slices):
            raise ValueError("There is a comma without a number.")
    except (ValueError, TypeError, RuntimeError):  # for example negative numbers, fractions and strings
        raise BadTensor(f"{name} may contain only whole numbers from 0 to 255.") from None
    return np.concatenate(slices)


def _to_uint8(values: Any) -> NDArray[np.uint8]:
    values_u64 = np.frombuffer(values.as_buffer(of_type="u"), np.uint64)
    if values_u64.size and values_u64.max() > 255:
        raise ValueError("A number is larger than 255.")
    return values_u64.astype(np.uint8)


def has_shape(values: Any, shape: tuple[int, ...]) -> bool:
    """Whether a nested list of whole numbers has this shape, assuming that its number of elements is correct.

    Compares the list's brackets and commas with those of the shape, which is four times as fast as converting nested
    lists with NumPy.
    """
    template = b""
    for side in reversed(shape):
        template = b"[" + b",".join([template] * side) + b"]"
    if isinstance(values, LargeArray):
        return values.has_brackets(template)
    return bool(values.mini.translate(None, DIGITS) == template)


def decode_base64_image(text: object, name: str) -> bytes:
    """Decodes an image. Raises BadTensor for any value except a string in base64."""
    if not isinstance(text, str | LargeText):
        raise BadTensor(f"{name} is not an image in base64, but {abbreviate(text)}.")
    try:
        return decode_base64(text)
    except ValueError as error:
        raise BadTensor(f"{name} is not an image in base64: {error}.") from None


def check_image_count(count: int, max_images: int) -> None:
    """Raises TooManyImages. Called before any image is decoded."""
    if count > max_images:
        raise TooManyImages(f"The request has {count} images, and the queue holds at most {max_images}.")


def abbreviate(value: object) -> str:
    """Formats a value from a request for an error message, in at most 63 characters."""
    if isinstance(value, simdjson.Object):
        return "an object"
    if is_array(value):
        return "a list"
    text = "null" if value is None else str(value)
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}..."
