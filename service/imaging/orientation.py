"""Turns images upright, as their EXIF data says. Limits the cost of reading this data; knows no pixels.

Pillow reads every field of a directory in a Python loop. A compressed text of 2 KB in a PNG can contain 40,000 fields;
photos have about 20.
"""

import re
import struct
from typing import Any, TypeVar

from PIL import Image, JpegImagePlugin

ORIENTATION_TAG = 0x0112
MAX_EXIF_FIELDS = 100
"""Maximum number of fields of the first directory that are read. Fields are sorted by their tags, and about 20 tags are
smaller than the orientation's."""

T = TypeVar("T")

_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations whose upright image has width and height swapped, the stored left side on the right, or the stored top at
# the bottom.
SWAPPED, MIRRORED_X, MIRRORED_Y = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

_EXIF_PREFIX = re.compile(rb"(?:Exif\0\0){0,2}")
_RAW_PROFILE, _RAW_PROFILE_HEADER_LINES = "Raw profile type exif", 3


class JpegImage(JpegImagePlugin.JpegImageFile):
    """A JPEG whose constructor also reads its resolution from limited EXIF data."""

    def getexif(self) -> Image.Exif:
        limit_exif(self.info)
        return super().getexif()


def apply_orientation(image: Image.Image) -> Image.Image:
    """Returns the image itself if it is upright."""
    orientation = orientation_of(image)
    return image if orientation is None else image.transpose(_TRANSPOSE_BY_ORIENTATION[orientation])


def orientation_of(image: Image.Image) -> int | None:
    """Returns a number from 2 to 8, or None for an upright image."""
    try:
        limit_exif(image.info)
        orientation = image.getexif().get(ORIENTATION_TAG)
        return orientation if orientation in _TRANSPOSE_BY_ORIENTATION else None
    except Exception:  # damaged EXIF: the pixels are still good
        return None


def limit_exif(info: dict[Any, Any]) -> None:
    """Shortens the first directory of the EXIF data in Pillow's `info` to its first MAX_EXIF_FIELDS fields.

    ImageMagick writes the data into a text of a PNG, in hexadecimal digits; it is moved to where Pillow looks first.
    """
    if "exif" not in info and _RAW_PROFILE in info:
        info["exif"] = bytes.fromhex("".join(info[_RAW_PROFILE].split("\n")[_RAW_PROFILE_HEADER_LINES:]))
    if "exif" in info:
        info["exif"] = _shorten_directory(info["exif"])


def _shorten_directory(exif: bytes) -> bytes:
    prefix = _EXIF_PREFIX.match(exif)
    start = prefix.end() if prefix else 0
    order = ">" if exif[start : start + 2] == b"MM" else "<"
    try:
        (offset,) = struct.unpack_from(f"{order}4xL", exif, start)
        (fields,) = struct.unpack_from(f"{order}H", exif, start + offset)
    except struct.error:  # truncated
        return exif
    if fields <= MAX_EXIF_FIELDS:
        return exif
    return exif[: start + offset] + struct.pack(f"{order}H", MAX_EXIF_FIELDS) + exif[start + offset + 2 :]


def swapped_if(is_swapped: bool, size: tuple[T, T]) -> tuple[T, T]:
    return (size[1], size[0]) if is_swapped else size
