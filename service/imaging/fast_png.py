"""Decodes the simplest kind of PNG with kornia-rs, in 3 us where Pillow takes 40 (28x28, 8-bit gray).

This saves a fifth of the processor time of a request with such images: unlike other decoders, this one keeps Python's
lock, which an image so small is not worth passing to another thread and back. It is written in Rust. `decode` reads all
other images.
"""

import numpy as np
from kornia_rs.io import decode_image_png_u8
from numpy.typing import NDArray

HEADER_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
MODES = {1: "mono", 3: "rgb"}
"""What kornia-rs calls grayscale and RGB, by channels."""
COLOR_TYPES = {1: 0, 3: 2}
"""Grayscale and RGB in the IHDR chunk, by channels (Portable Network Graphics, section 11.2.1)."""
END = b"\0\0\0\0IEND\xaeB`\x82"
MAX_PIXELS = 64 * 64
MAX_DATA_BYTES = 2 * 3 * MAX_PIXELS  # entirely uncompressed pixels take little more than half of it
DATA_OFFSET = 41


def decode_simple_png(data: bytes, channels: int, max_pixels: int) -> NDArray[np.uint8] | None:
    """Pixels, uint8 (height, width, channels), of a PNG of up to `MAX_PIXELS` and `max_pixels` that consists of header,
    one IDAT and end, with 8 bits per sample, not interlaced, grayscale for 1 channel and RGB for 3. None for every
    other image, and for a damaged one.

    Such a file can contain nothing else: no transparency, no orientation, no second frame.
    """
    if not data.startswith(HEADER_START) or data[24:29] != bytes((8, COLOR_TYPES[channels], 0, 0, 0)):
        return None
    data_bytes = int.from_bytes(data[33:37])
    data_end = DATA_OFFSET + data_bytes
    if data_bytes > MAX_DATA_BYTES or data[37:DATA_OFFSET] != b"IDAT" or data[data_end + 4 :] != END:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not 0 < width * height <= min(MAX_PIXELS, max_pixels):
        return None
    try:
        pixels: NDArray[np.uint8] = decode_image_png_u8(data, (height, width), MODES[channels])
    except Exception:  # a checksum is wrong, or data is damaged or missing
        return None
    return pixels
