"""Limits against decompression bombs: pixels, sides, chunks, scans and segments, checked before pixels are decoded.

Images come from untrusted clients, so an image whose cost is out of proportion to its pixels is rejected. Knows
Pillow's image headers; decodes nothing.
"""

import io
import re
import sys
from typing import NamedTuple

from PIL import Image, ImageFile, JpegImagePlugin

from service.errors import BadImage, ImageTooLarge

# Ordinary images have tens of chunks before their pixels, at most thousands in total, and about ten scans. A malicious
# body of 16 MB can contain a million chunks, each of which costs an iteration of a Python loop, or a million scans,
# each of which costs a pass over all pixels.
MAX_HEADER_READS = 1_000
MAX_PIXEL_READS = 5_000
BYTES_PER_EXTRA_READ = 128  # one more read per 128 bytes, so that the size of the body limits the reads of a request
COLOR_PROFILE, PNG_CHUNK_HEADER_BYTES = b"iCCP", 8  # a valid PNG has at most one color profile
MAX_SCANS = 100
MAX_SEGMENTS = 1_000
# Pixels times scans of a progressive JPEG that is decoded at a reduced scale: its header may have a much larger size
# than those of other images.
MAX_SCANNED_PIXELS = 1_250_000_000
# A pixel of a run-length encoded BMP counts this many times, because it is unpacked run by run in a Python loop.
RUN_LENGTH_COST = 8
# The longest possible side of a JPEG or GIF. Pillow keeps a pointer per row, which would take 200 MB for an image of
# 25 megapixels that is one pixel wide.
MAX_SIDE_PX = 65_535

# Pixels of these formats count double, because they take twice the memory or time: libwebp keeps two canvases beside
# its output, libjpeg keeps all coefficients of a progressive JPEG and processes them repeatedly, and CMYK has four
# samples per pixel.
DOUBLE_COST_FORMATS = "WebP, CMYK and progressive JPEG"
# Peak resident memory while Pillow 12 decodes an image of 12 megapixels to RGB: 7.8 bytes per pixel for RGB, RGBA and
# CMYK, 5.8 for gray and palettes, 9.8 for progressive JPEG, 11.8 for progressive CMYK, and 15.9 for WebP.
DECODED_BYTES_PER_PIXEL = 8
# At 1/n of its size, a baseline JPEG takes the time of 1/n of its pixels and of two pixels per encoded byte, because
# libjpeg decodes all bytes at any scale: `python -m tests.bench jpeg-cost` measures it. A progressive JPEG gains too
# little: it is decoded scan by scan, and its coefficients take up to 8 bytes per pixel.
REDUCED_PIXELS_PER_BYTE = 2

# The start of a JPEG's segment, also after entropy-coded bytes. In those, 0xff is followed by 0. Restart markers have
# no length and are skipped.
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
SEARCH_BYTES = 1 << 18
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_BMP_RUN_LENGTH = (1, 2)


class TooManyReads(OSError):
    """An image has more chunks or other small parts than are allowed."""


class LimitedReader(io.BytesIO):
    """An encoded image as a file. Raises TooManyReads after a limited number of reads, and for two color profiles."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_HEADER_READS
        self._color_profiles = 0

    def allow_pixel_reads(self) -> None:
        """Sets the limit for reading the pixels, after the header has been accepted."""
        self._reads_left = MAX_PIXEL_READS + len(self.getbuffer()) // BYTES_PER_EXTRA_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise TooManyReads("it consists of too many small parts")
        data = super().read(size)
        if size == PNG_CHUNK_HEADER_BYTES and data[4:] == COLOR_PROFILE:
            self._color_profiles += 1
            if self._color_profiles > 1:
                raise TooManyReads("it has more than one color profile")
        return data


class DecodeLimits(NamedTuple):
    """Limits on the cost of one image. `max_pixels` limits the decoded pixels.

    `max_header_pixels` limits the size in the header of a JPEG that is decoded at a reduced scale, if it is larger than
    `max_pixels`. `max_decoded_bytes` is the memory for all images that this process decodes at a time.
    """

    max_pixels: int
    max_header_pixels: int = 0
    max_decoded_bytes: int = sys.maxsize

    @property
    def max_jpeg_pixels(self) -> int:
        return max(self.max_pixels, self.max_header_pixels)


class DecodeCost(NamedTuple):
    """The cost of decoding an image: pixels in memory, time in units of a fully decoded pixel, and peak memory.

    The memory holds Pillow's pixels, their upright or converted copy, and a JPEG's coefficients. `is_progressive` says
    whether libjpeg keeps the coefficients of the full size, even at a reduced scale.
    """

    pixels: int
    time_pixels: int
    memory_bytes: int
    is_progressive: bool = False


class JpegScans(NamedTuple):
    """The number of scans of a JPEG, and the bytes up to the end of the image.

    `is_first_partial`: the first scan lacks a component, and libjpeg therefore keeps all coefficients.
    """

    scan_count: int = 0
    is_first_partial: bool = False
    encoded_bytes: int = 0


def decode_cost(image: ImageFile.ImageFile, full_size: tuple[int, int], scans: JpegScans) -> DecodeCost:
    """Returns the cost of an opened image. `full_size` is the size in its header; its own size may be reduced."""
    is_progressive = "progressive" in image.info or scans.is_first_partial
    pixel_cost = 2 if image.format == "WEBP" or image.mode == "CMYK" or is_progressive else 1
    pixels = pixel_cost * image.width * image.height
    if _is_run_length_encoded(image):
        return DecodeCost(pixels, RUN_LENGTH_COST * pixels, DECODED_BYTES_PER_PIXEL * pixels)
    if image.size == full_size:
        return DecodeCost(pixels, pixels, DECODED_BYTES_PER_PIXEL * pixels, is_progressive)
    full_pixels = full_size[0] * full_size[1]
    if is_progressive:
        return DecodeCost(pixels, pixel_cost * full_pixels, DECODED_BYTES_PER_PIXEL * (pixels + full_pixels), True)
    scale = round(full_size[0] / image.width)
    reduced_pixels = pixel_cost * full_pixels // scale + REDUCED_PIXELS_PER_BYTE * scans.encoded_bytes
    return DecodeCost(pixels, min(pixel_cost * full_pixels, reduced_pixels), DECODED_BYTES_PER_PIXEL * pixels)


def check_header(image: ImageFile.ImageFile, data: bytes, limits: DecodeLimits) -> JpegScans:
    """Checks costs that do not depend on the scale. Returns the scans of a JPEG. Raises ImageTooLarge or BadImage."""
    if max(image.size) > MAX_SIDE_PX:
        raise ImageTooLarge(f"The image's header announces a side of more than {MAX_SIDE_PX} pixels, the limit.")
    if _is_run_length_encoded(image) and RUN_LENGTH_COST * image.width * image.height > limits.max_pixels:
        allowed_pixels = limits.max_pixels // RUN_LENGTH_COST
        raise ImageTooLarge(f"The BMP is run-length encoded; the limit for such images is {allowed_pixels} pixels.")
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return JpegScans()
    if image.width * image.height > limits.max_jpeg_pixels:
        raise too_many_pixels(limits.max_jpeg_pixels)
    if (scans := _count_scans(data, image.layers)) is None or scans.scan_count > MAX_SCANS:
        raise BadImage(f"The JPEG has more than {MAX_SCANS} scans, or more than {MAX_SEGMENTS} segments.")
    return scans


def check_cost(cost: DecodeCost, full_size: tuple[int, int], scans: JpegScans, limits: DecodeLimits) -> None:
    """Raises ImageTooLarge or BadImage for an image that would take too much memory or time."""
    if cost.pixels > limits.max_pixels:
        raise too_many_pixels(limits.max_pixels)
    full_pixels = full_size[0] * full_size[1]
    if not cost.is_progressive or 2 * full_pixels <= limits.max_pixels:
        return
    if cost.memory_bytes > limits.max_decoded_bytes:
        raise ImageTooLarge(
            f"Decoding the image takes {cost.memory_bytes} bytes, because it is a progressive JPEG; "
            f"the limit is {limits.max_decoded_bytes}."
        )
    if full_pixels * scans.scan_count > MAX_SCANNED_PIXELS:
        raise BadImage(f"The JPEG has {scans.scan_count} scans, which is too many for {full_pixels} pixels.")


def _is_run_length_encoded(image: Image.Image) -> bool:
    return image.format == "BMP" and image.info.get("compression") in _BMP_RUN_LENGTH


def too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The image's header announces more than {max_pixels} pixels, the limit, "
        f"or half of that for {DOUBLE_COST_FORMATS}."
    )


def _count_scans(jpeg: bytes, components: int) -> JpegScans | None:
    """Reads the segments in the same way as libjpeg, up to the end of the image, after which phones append videos.

    Returns None for more than MAX_SEGMENTS segments.
    """
    position, count, is_first_partial = 2, 0, False
    for _ in range(MAX_SEGMENTS):
        segment = _find_segment(jpeg, position)
        if segment is None:
            return JpegScans(count, is_first_partial, len(jpeg))
        end = segment.end()
        if segment[0] == _END_OF_IMAGE:
            return JpegScans(count, is_first_partial, end)
        if segment[0] == _START_OF_SCAN:
            is_first_partial |= count == 0 and jpeg[end + 2 : end + 3] < bytes([components])
            count += 1
        position = end + max(2, int.from_bytes(jpeg[end : end + 2]))
    return None


def _find_segment(jpeg: bytes, position: int) -> re.Match[bytes] | None:
    """Searches slice by slice, because a search holds the GIL. Slices overlap, as a marker may begin in one and end in
    the next."""
    while position < len(jpeg):
        if (segment := _SEGMENT.search(jpeg, position, position + SEARCH_BYTES + 1)) is not None:
            return segment
        position += SEARCH_BYTES
    return None
