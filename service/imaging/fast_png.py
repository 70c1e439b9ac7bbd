"""Decodes the simplest kind of small PNG with kornia-rs.

`python -m tests.bench decoding` measures what this pays in the service. Unlike other decoders, kornia-rs holds the GIL,
because an image so small is not worth a switch to another thread. `decode` reads all other images.
"""

import numpy as np
from kornia_rs.io import decode_image_png_u8
from numpy.typing import NDArray

HEADER_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
MODES = {1: "mono", 3: "rgb"}
"""The names of grayscale and RGB in kornia-rs, by channels."""
COLOR_TYPES = {1: 0, 3: 2}
"""Grayscale and RGB in the IHDR chunk, by channels (Portable Network Graphics, section 11.2.1)."""
END = b"\0\0\0\0IEND\xaeB`\x82"
MAX_PIXELS = 64 * 64
MAX_DATA_BYTES = 2 * 3 * MAX_PIXELS  # pixels that are stored without compression take little more than half of it
DATA_OFFSET = 41


def decode_simple_png(data: bytes, channels: int, max_pixels: int) -> NDArray[np.uint8] | None:
    """Returns the pixels of a simple PNG, uint8 (height, width, channels); None for other and for damaged images.

    A simple PNG has at most `MAX_PIXELS` and `max_pixels`, 8 bits per sample, no interlacing, and grayscale for 1
    channel or RGB for 3. It consists of a header, one IDAT chunk and the end, so it has no transparency, orientation or
    second frame.
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
