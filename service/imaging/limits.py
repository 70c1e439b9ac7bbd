"""Limits that stop decompression bombs: pixels, sides, pieces, scans and segments, checked before pixels are decoded.

Untrusted clients send these bytes: an image that would cost memory or time out of proportion to its pixels is rejected.
Knows Pillow's image headers; decodes nothing.
"""

import io
import re

from PIL import Image, ImageFile, JpegImagePlugin

from service.errors import BadImage, ImageTooLarge

# Images in use have some tens of chunks before their pixels, at most some thousands in all, and about ten scans.
# A malicious body of 16 MB can hold a million chunks, each one iteration of a Python loop, or as many scans, each a
# pass over all pixels.
MAX_HEADER_READS = 1_000
MAX_PIXEL_READS = 5_000
BYTES_PER_EXTRA_READ = 128  # so that all images of one request together are bounded by its body
MAX_SCANS = 100
MAX_SEGMENTS = 1_000
# Pillow unpacks these in a Python loop: two seconds at 25 million pixels.
MAX_RUN_LENGTH_PIXELS = 1_000_000
# The longest side of a JPEG or GIF. Pillow keeps a pointer per row: 200 MB for an image that is one pixel wide.
MAX_SIDE_PX = 65_535

# Pixels of these count double, because they take twice the memory or time of others: libwebp keeps two canvases beside
# its output, and libjpeg keeps all coefficients of a progressive JPEG and passes over them repeatedly; CMYK has four
# samples per pixel.
DOUBLE_COST_FORMATS = "WebP, CMYK and progressive JPEG"
# Resident memory at its peak while an image of 12 megapixels is decoded to RGB, with Pillow 12: 7.8 bytes per pixel for
# RGB, RGBA and CMYK, 5.8 for gray and palettes, 9.8 for progressive JPEG, 11.8 with CMYK, and 15.9 for WebP.
DECODED_BYTES_PER_PIXEL = 8

# The start of a JPEG's segment, also among entropy-coded bytes: those follow 0xff with 0, and restarts have no length.
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
SEARCH_BYTES = 1 << 18
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_BMP_RUN_LENGTH = (1, 2)


class TooManyReads(OSError):
    """An image has more pieces than it may have."""


class LimitedReader(io.BytesIO):
    """An encoded image as a file that allows a limited number of reads: TooManyReads after that."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_HEADER_READS

    def allow_pixel_reads(self, encoded_bytes: int) -> None:
        """Sets the limit for reading the pixels, once the header has been accepted."""
        self._reads_left = MAX_PIXEL_READS + encoded_bytes // BYTES_PER_EXTRA_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise TooManyReads("it is cut into too many small pieces")
        return super().read(size)


def decode_cost_pixels(image: Image.Image) -> int:
    """Width x height, or twice that for DOUBLE_COST_FORMATS: the measure of the memory and time that decoding takes."""
    is_double = image.format == "WEBP" or image.mode == "CMYK" or "progressive" in image.info
    return image.width * image.height * (2 if is_double else 1)


def decode_cost_bytes(image: Image.Image) -> int:
    """The memory that decoding takes at its peak: Pillow's pixels, and their upright or converted copy."""
    return DECODED_BYTES_PER_PIXEL * decode_cost_pixels(image)


def check_limits(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    """Raises ImageTooLarge or BadImage for an image, opened from `data`, that would cost too much memory or time."""
    if decode_cost_pixels(image) > max_pixels:
        raise too_many_pixels(max_pixels)
    if max(image.size) > MAX_SIDE_PX:
        raise ImageTooLarge(f"The image's header announces a side of more than {MAX_SIDE_PX} pixels, the limit.")
    if isinstance(image, JpegImagePlugin.JpegImageFile) and not _has_few_scans(data):
        raise BadImage(f"The JPEG has more than {MAX_SCANS} scans, or more than {MAX_SEGMENTS} segments.")
    is_run_length = image.format == "BMP" and image.info.get("compression") in _BMP_RUN_LENGTH
    if is_run_length and image.width * image.height > MAX_RUN_LENGTH_PIXELS:
        raise ImageTooLarge(f"The BMP is run-length encoded; such may have {MAX_RUN_LENGTH_PIXELS} pixels.")


def too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The image's header announces more than {max_pixels} pixels, the limit, "
        f"or half of that for {DOUBLE_COST_FORMATS}."
    )


def _has_few_scans(jpeg: bytes) -> bool:
    """Walks the segments as libjpeg does, up to the end of the image; phones append whole videos after it."""
    position, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        segment = _find_segment(jpeg, position)
        if segment is None or segment[0] == _END_OF_IMAGE:
            return scans <= MAX_SCANS
        scans += segment[0] == _START_OF_SCAN
        position = segment.end() + max(2, int.from_bytes(jpeg[segment.end() : segment.end() + 2]))
    return False


def _find_segment(jpeg: bytes, position: int) -> re.Match[bytes] | None:
    """Searches slice by slice, because a search holds Python's lock. A marker's two bytes may lie in two slices."""
    while position < len(jpeg):
        if (segment := _SEGMENT.search(jpeg, position, position + SEARCH_BYTES + 1)) is not None:
            return segment
        position += SEARCH_BYTES
    return None
