"""Decodes encoded images to pixels: formats, damage, and JPEGs at a reduced scale. Knows no model and no HTTP.

Training reads its evaluation images with the same code, so that both halves see the same pixels. The limits on memory
and time are in `limits`.
"""

import contextlib
import re
import threading
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

# Importing a plugin registers its format. Otherwise Pillow imports all forty plugins at the first unknown image.
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # isort: skip # noqa: F401

from service.errors import BadImage, UnsupportedImage
from service.imaging import bmp_run_length, png_texts  # noqa: F401  # register a decoder and a class
from service.imaging.fast_png import decode_simple_png
from service.imaging.limits import (
    DecodeCost,
    DecodeLimits,
    LimitedReader,
    TooManyReads,
    check_cost,
    check_header,
    decode_cost,
    too_many_pixels,
)
from service.imaging.orientation import (
    MIRRORED_X,
    MIRRORED_Y,
    SWAPPED,
    JpegImage,
    apply_orientation,
    orientation_of,
    swapped_if,
)
from service.imaging.pixel_formats import to_array
from service.imaging.preprocess import Box
from service.imaging.unsupported_formats import unsupported_format
from service.model_store.checksums import LFS_POINTER_START

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")

SEARCHED_BYTES = 4096
"""Bytes at the start of an unreadable file that are searched for the reason. A search holds the GIL, and some take
100 ms per megabyte."""

LARGE_WEBP_PIXELS = 2_000_000
_large_webp_lock = threading.Lock()
"""Held while a large WebP file is decoded. Pillow holds the GIL for about 5 ms each time it copies all pixels
of such a file. Two threads that do this in turn stop the event loop for up to 100 ms."""

JPEG_START = b"\xff\xd8\xff"

Size = tuple[int, int]

# Clients must not be able to fill the log: some images cause thousands of warnings. Pillow raises the real errors.
warnings.filterwarnings("ignore", module=r"PIL\.")

# The beginning of PNG, JPEG, WebP, BMP and GIF in base64, also in a data URL or in a JSON string, in which slashes may
# be escaped.
_BASE64_IMAGE = re.compile(
    rb"\s*\"?(?i:data:[\w./+\\-]*(?:;[\w=.-]*)*,\s*)?"
    rb"(?:iVBORw0KGgo|\\?/9j\\?/|UklGR|Qk[0-9A-Za-z+/]|R0lGOD)"
)
_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/=\s\\]{16}")
_DATA_URL = re.compile(rb"\s*\"?(?i:data:(?:image\\?/|[\w./+\\-]*;base64,))")
_JSON = re.compile(rb'\s*(?:[{\[]|"[^"]*"\s*\Z|"[^"]{1000,}\Z)')
_BASE64_HINT = 'Decode it first, or send it to .../classify/batch as JSON: {"images": [{"data": "<base64>"}]}.'
_LFS_HINT = "Run `git lfs pull` in the clone that the image comes from, and send the image again."
_JSON_HINT = "Send the image as the body, or as the file of a form; .../classify/batch takes images in JSON."


class OpenedImage(NamedTuple):
    """An image whose header has been read and accepted, and whose pixels have not been read.

    `full_size` is the width and height in the header. A JPEG that will be decoded at a reduced scale has a smaller
    `image.size`, which is rounded up, and `box` is the part of its upright pixels that the image fills.
    """

    image: Image.Image
    full_size: Size
    cost: DecodeCost
    box: Box | None = None


def open_image(
    data: bytes, limits: DecodeLimits, min_jpeg_size: Callable[[int, int], Size] | None = None
) -> OpenedImage:
    """Reads the header of an encoded image. Cheap, because it decodes no pixels.

    With `min_jpeg_size`, a JPEG will be decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that is no smaller
    than the width and height that this function returns for the upright image. Raises BadImage, UnsupportedImage or
    ImageTooLarge.
    """
    reader = LimitedReader(data)
    image = _read_header(data, reader, limits.max_pixels)
    scans = check_header(image, data, limits)
    full_size, box = image.size, None
    if min_jpeg_size is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
        box = _reduce(image, min_jpeg_size)
    cost = decode_cost(image, full_size, scans)
    check_cost(cost, full_size, scans, limits)
    _scale_transparent_value(image)
    reader.allow_pixel_reads()
    return OpenedImage(image, full_size, cost, box)


def read_pixels(image: Image.Image, channels: int, background: int) -> NDArray[np.uint8]:
    """Decodes an opened image (of an animation the first frame), turns it upright, and blends it with `background`.

    Returns uint8 (height, width, channels); 1 channel is luma (ITU-R 601-2), 3 channels are RGB. Closes the image,
    because its memory is needed for the next step. Raises BadImage.
    """
    try:
        with _large_webp_lock if _is_large_webp(image) else contextlib.nullcontext():
            image.load()
        upright = apply_orientation(image)
        if upright is not image:
            image.close()
        return to_array(upright, channels, background)
    except MemoryError:  # not caused by the image, whose size has been checked
        raise
    except Exception as error:  # Pillow's plugins and codecs raise many types
        raise BadImage(f"The image is damaged or truncated{_reason(error)}.") from error
    finally:
        image.close()


def _is_large_webp(image: Image.Image) -> bool:
    return image.format == "WEBP" and image.width * image.height > LARGE_WEBP_PIXELS


def decode(data: bytes, channels: int, background: int, max_pixels: int) -> NDArray[np.uint8]:
    """Decodes an encoded image at its full size: `open_image` and `read_pixels` in one call."""
    if (pixels := decode_simple_png(data, channels, max_pixels)) is not None:
        return pixels
    return read_pixels(open_image(data, DecodeLimits(max_pixels)).image, channels, background)


def _read_header(data: bytes, reader: LimitedReader, max_pixels: int) -> ImageFile.ImageFile:
    if not data:
        raise BadImage("The body is empty; an image was expected.")
    # Some plugins allocate memory for the size in the header while they open a file. Pillow checks the size before
    # that, but raises only above twice this limit. `check_cost` enforces the exact limit.
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        if data.startswith(JPEG_START):
            # Without Pillow's check of the size: a JPEG may be larger if it is decoded at a reduced scale.
            return JpegImage(reader)
        return Image.open(reader, formats=FORMATS)
    except (UnidentifiedImageError, SyntaxError):
        raise _unreadable_error(data) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_many_pixels(max_pixels) from None
    except Exception as error:  # Pillow's plugins raise many types for damaged headers
        raise BadImage(f"The image's header is damaged{_reason(error)}.") from error


def _reduce(image: JpegImagePlugin.JpegImageFile, min_jpeg_size: Callable[[int, int], Size]) -> Box | None:
    """Sets the scale at which the image will be decoded. Returns the box for `OpenedImage`; None for the full scale."""
    full_size, orientation = image.size, orientation_of(image)
    is_swapped = orientation in SWAPPED
    min_size = min_jpeg_size(*swapped_if(is_swapped, full_size))
    drafted = image.draft(None, swapped_if(is_swapped, min_size))
    if drafted is None or image.size == full_size:
        return None
    filled_size = swapped_if(is_swapped, (drafted[1][2], drafted[1][3]))
    width, height = swapped_if(is_swapped, image.size)
    left = width - filled_size[0] if orientation in MIRRORED_X else 0
    top = height - filled_size[1] if orientation in MIRRORED_Y else 0
    return left, top, left + filled_size[0], top + filled_size[1]


def _reason(error: Exception) -> str:
    """Returns the reason if Convoy raised the error. Pillow's texts are omitted: they are about its own functions."""
    return f": {error}" if isinstance(error, TooManyReads) else ""


def _unreadable_error(file: bytes) -> BadImage | UnsupportedImage:
    data = file[:SEARCHED_BYTES]
    if name := unsupported_format(data):
        return UnsupportedImage(f"The file's format is {name}, which is not read here.")
    if data.startswith(LFS_POINTER_START):
        return BadImage("The bytes are a Git LFS pointer, not the image itself.", _LFS_HINT)
    if (start := _BASE64_IMAGE.match(data)) and _BASE64_TEXT.match(data, start.end()):
        return BadImage("The bytes are an image in base64, not the image itself.", _BASE64_HINT)
    if _DATA_URL.match(data):
        return BadImage("The bytes are a data URL, not the image itself.", _BASE64_HINT)
    if _JSON.match(data):
        return BadImage("The bytes are not an image, but look like JSON.", _JSON_HINT)
    return BadImage("The bytes are not an image, or its header is damaged.")


def _scale_transparent_value(image: ImageFile.ImageFile) -> None:
    # Pillow scales all PNG samples except 16-bit gray to 8 bits, but leaves the transparent value as it was.
    if image.format != "PNG" or "transparency" not in image.info or not image.tile:
        return
    transparent, samples = image.info["transparency"], image.tile[0].args
    if samples in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (85 if samples == "L;2" else 17)
    elif samples == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
