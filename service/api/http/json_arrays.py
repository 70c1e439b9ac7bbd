"""JSON that holds tensors, read through simdjson: no Python object a number, and nothing that a stranger can blow up.

Lists are walked, never turned into Python's by simdjson's `as_list`, `values` or `items`: those count no further than
2**24 - 1 elements, and write the others past the end of the new list.
"""

import base64
import binascii
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from service.errors import BadTensor, TooManyImages

DIGITS = b"0123456789"
MAX_VALUES = 6_000_000
"""In one document: simdjson takes up to 24 bytes for each, and 16 MB of JSON could hold 8 million."""
SHOWN_LENGTH = 60


def parse_object(text: bytes) -> Any:
    """The JSON object as a simdjson one, which reads its values when they are asked for.

    Raises BadTensor, or TooManyImages where they are too many.

    Each request has its own parser, half a microsecond: one that is kept holds on to the memory of its largest
    document, and refuses to go on while a traceback still refers to the last one.
    """
    if len(text) > 2 * MAX_VALUES and text.count(b",") >= MAX_VALUES:
        raise TooManyImages(f"The JSON holds more than {MAX_VALUES} values; send tensors as raw bytes.")
    try:
        document = simdjson.Parser().parse(text)
    except (ValueError, RuntimeError) as error:  # the latter for what is too deep, or a number over 64 bits
        raise BadTensor(f"The request is not JSON that can be read: {str(error).rstrip('.')}.") from None
    if not isinstance(document, simdjson.Object):
        raise BadTensor("The request is not a JSON object.")
    return document


def members(given: Any, names: frozenset[str]) -> dict[str, Any]:
    """Those members that a simdjson object has: to ask it for one that it lacks costs 2 us, for a C++ exception."""
    return {name: given[name] for name in names.intersection(given)}


def flat_pixels(values: Any, name: str) -> NDArray[np.uint8]:
    """The numbers of a simdjson list, nested or not, row by row. Raises BadTensor for all that is no byte."""
    try:
        wide = np.frombuffer(values.as_buffer(of_type="u"), np.uint64)
    except (ValueError, TypeError):  # negative numbers; fractions, texts and the like
        wide = None
    if wide is None or (wide.size and wide.max() > 255):
        raise BadTensor(f"{name} may hold whole numbers from 0 to 255 only.")
    return wide.astype(np.uint8)


def is_shaped(values: Any, shape: tuple[int, ...]) -> bool:
    """Whether a nested simdjson list of whole numbers has that shape: without the numbers, its text must be what the
    shape says. That is four times as fast as NumPy on nested lists. Its number of values must be known to fit."""
    frame = b""
    for side in reversed(shape):
        frame = b"[" + b",".join([frame] * side) + b"]"
    return bool(values.mini.translate(None, DIGITS) == frame)


def from_base64(text: object, name: str) -> bytes:
    """Raises BadTensor for what is no text in base64."""
    try:
        return base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error):
        raise BadTensor(f"{name} is not an image in base64.") from None


def check_count(count: int, max_images: int) -> None:
    """Raises TooManyImages before any of them is read."""
    if count > max_images:
        raise TooManyImages(f"The request holds {count} images; at most {max_images} may wait.")


def shown(value: object) -> str:
    """A value from a request for an error message, short whatever it is."""
    if isinstance(value, simdjson.Object | simdjson.Array):
        return "an object" if isinstance(value, simdjson.Object) else "a list"
    text = "null" if value is None else str(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."
