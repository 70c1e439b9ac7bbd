"""Writes PNG files of every kind according to the standard, so that no decoder is tested with its own encoder."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = struct.pack(">L", 0) + b"IEND" + struct.pack(">L", zlib.crc32(b"IEND"))
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def encode_png(
    samples: NDArray[np.integer],
    depth: int,
    color: int,
    *,
    palette: NDArray[np.uint8] | None = None,
    transparent: bytes | None = None,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    """Encodes `samples`, (h, w, samples per pixel), with values below 2**depth. `palette` has the shape (entries, 3).

    `extra` chunks precede the pixels.
    """
    height, width = samples.shape[:2]
    if interlaced:
        passes = [samples[y::down, x::right] for x, y, right, down in ADAM7]
        lines = b"".join(_scan_lines(part, depth) for part in passes if part.size)
    else:
        lines = _scan_lines(samples, depth)
    plte = b"" if palette is None else chunk(b"PLTE", palette.tobytes())
    trns = b"" if transparent is None else chunk(b"tRNS", transparent)
    head = header(width, height, depth, color, interlaced)
    return head + plte + trns + extra + chunk(b"IDAT", zlib.compress(lines)) + END


def header(width: int, height: int, depth: int = 8, color: int = GRAY, interlaced: bool = False) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, color, 0, 0, interlaced))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def transparent_value(*samples: int) -> bytes:
    """Returns the content of tRNS for gray (one sample) and RGB (three)."""
    return struct.pack(f">{len(samples)}H", *samples)


def _scan_lines(samples: NDArray[np.integer], depth: int) -> bytes:
    """Returns unfiltered scan lines. Samples smaller than a byte are packed, the leftmost into the highest bits."""
    rows = samples.reshape(len(samples), -1)
    if depth >= 8:
        packed = rows.astype(f">u{depth // 8}").view(np.uint8)
    else:
        bits = rows[..., np.newaxis] >> np.arange(depth - 1, -1, -1) & 1
        packed = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)
