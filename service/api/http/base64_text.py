"""Base64 as clients write it: white space, line breaks and missing padding are accepted, as in TensorFlow Serving."""

import base64
import binascii
import re
from collections.abc import Iterable

from service.api.http.large_json import LargeText

_WHITESPACE = b" \t\n\r\f\v"
_NO_DIGIT = re.compile(rb"[^A-Za-z0-9+/\s]")
_NO_PADDING = re.compile(rb"[^=\s]")
_DATA_URL = re.compile(rb"\s*data:", re.IGNORECASE)
_JSON_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")
PADDING = b"="


def decode_base64(text: str | LargeText) -> bytes:
    """Decodes the text. Raises ValueError, which names the first invalid character and its position, from 0."""
    if isinstance(text, LargeText):
        return _decode(text.slices()) or _explain(text.slices())
    try:
        return base64.b64decode(text, validate=True)  # the common case
    except ValueError:
        ascii_text = text.encode("ascii", "replace")  # keeps the positions of other characters
        return _decode([ascii_text]) or _explain([ascii_text], text)


def _decode(parts: Iterable[bytes]) -> bytes:
    """Returns empty bytes if the text is not base64."""
    decoded: list[bytes] = []
    pending = b""
    is_padded = False
    try:
        for part in parts:
            digits = pending + part.translate(None, _WHITESPACE)
            pending = digits[len(digits) // 4 * 4 :]
            if is_padded and digits:
                return b""
            whole = digits[: len(digits) - len(pending)]
            decoded.append(binascii.a2b_base64(whole, strict_mode=True))
            is_padded = whole.endswith(PADDING)
        digits = pending.rstrip(PADDING)
        if pending and (is_padded or not digits):
            return b""
        decoded.append(binascii.a2b_base64(digits + PADDING * (-len(digits) % 4), strict_mode=True))
    except binascii.Error:
        return b""
    return b"".join(decoded)


def _explain(parts: Iterable[bytes], text: str = "") -> bytes:
    """Raises ValueError unless the text contains only white space."""
    position = digits = 0
    pattern = _NO_DIGIT
    for part in parts:
        if not position and _DATA_URL.match(part):
            raise ValueError("it is a data URL: send only the text after its comma")
        match = pattern.search(part)
        if match and match[0] == PADDING and pattern is _NO_DIGIT and digits + match.start():
            pattern = _NO_PADDING
            match = pattern.search(part, match.start())
        if match:
            at = position + match.start()
            character = text[at] if text else _first_character(part[match.start() :])
            raise ValueError(f"character {character!a} at position {at}")
        digits += len(part.translate(None, _WHITESPACE))
        position += len(part)
    if digits:
        raise ValueError(f"it is cut off or wrongly padded at its end, position {position}")
    return b""


def _first_character(text: bytes) -> str:
    """Returns the first character of a part of a JSON string, which may be escaped."""
    if escape := _JSON_ESCAPE.match(text):
        return chr(int(escape[1], 16))
    return text[:4].decode("utf-8", "replace")[0]
