"""Converts decoded pixels of any format to 8-bit gray or RGB: blends transparency with the background, scales 16 bits.

Knows Pillow's modes; decodes nothing.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRIP_PIXELS = 1 << 20


def to_array(image: Image.Image, channels: int, background: int) -> NDArray[np.uint8]:
    """Converts a decoded image to uint8 (height, width, channels), over `background` where it is transparent.

    1 channel is luma (ITU-R 601-2), 3 channels are RGB. Large images are converted strip by strip, because converting
    one at once needs four times its memory.
    """
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    if rows >= height:
        return _convert(image, channels, background)
    pixels = np.empty((height, width, channels), np.uint8)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = _convert(strip, channels, background)
    return pixels


def _convert(image: Image.Image, channels: int, background: int) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        image = _composite_over(image, background)
    mode = "L" if channels == 1 else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def _to_8_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16-bit gray clips at 255 instead of scaling.
    samples = np.asarray(image)
    gray = Image.fromarray((samples >> 8).astype(np.uint8))
    if "transparency" in image.info:
        gray.putalpha(Image.fromarray(np.where(samples == image.info["transparency"], 0, 255).astype(np.uint8)))
    return gray


def _composite_over(image: Image.Image, background: int) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, (background, background, background))
    canvas.paste(image, mask=image)
    return canvas
