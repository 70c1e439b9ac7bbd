"""Arrays to PNG, for people: an image, a heat map laid over it, many small images in a grid. Knows no model."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

COLUMNS = 8
GAP = 1
MOST_SIDE = 64
SHEET_WIDTH = 448
FOR, AGAINST = (255, 122, 26), (64, 140, 255)  # orange and blue, which nearly everybody can tell apart
FADED = 0.45
FAINT = 1e-6


def png(pixels: Pixels) -> bytes:
    """Encodes (height, width, channels): 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def upscale(pixels: Pixels, least_width: int = SHEET_WIDTH) -> Pixels:
    """Every pixel as a square of as many as bring the image nearest to `least_width`, never fewer than one."""
    factor = max(1, round(least_width / pixels.shape[1]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def overlay_heatmap(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """RGB of the image in faded grey under its heat: orange where `heat`, (height, width), is above 0, blue below.

    `image` is uint8 (height, width, 1 or 3). The strongest value, of either sign, is opaque.
    """
    grey = np.repeat(image.mean(axis=2, keepdims=True) * FADED, 3, axis=2)
    strength = np.abs(heat) / max(float(np.abs(heat).max()), FAINT)
    colour = np.where(heat[..., np.newaxis] > 0, np.array(FOR), np.array(AGAINST))
    mixed = grey + (colour - grey) * strength[..., np.newaxis]
    return np.asarray(mixed, np.uint8)


def grid(images: NDArray[np.float32]) -> Pixels:
    """Many images (n, height, width, 1 or 3) in rows of eight, each stretched from its own darkest to its brightest.

    Those of more than 64 pixels a side are averaged down. Returns uint8 with alpha; between them it is transparent.
    """
    images = _small(images)
    count, height, width, channels = images.shape
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    down, right = height + GAP, width + GAP
    stack_vertically = np.zeros((rows * down - GAP, columns * right - GAP, channels + 1), np.uint8)
    for at, image in enumerate(images):
        top, left = at // columns * down, at % columns * right
        stack_vertically[top : top + height, left : left + width, :-1] = _stretched(image)
        stack_vertically[top : top + height, left : left + width, -1] = 255
    return stack_vertically


def stack_vertically(images: list[Pixels]) -> Pixels:
    """Images of any kind one below the other, RGBA, each enlarged to about the same width."""
    rows = [upscale(_rgba(image)) for image in images]
    width, gap = max(row.shape[1] for row in rows), 8
    whole = np.zeros((sum(row.shape[0] + gap for row in rows) - gap, width, 4), np.uint8)
    top = 0
    for row in rows:
        whole[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0] + gap
    return whole


def _small(images: NDArray[np.float32]) -> NDArray[np.float32]:
    count, height, width, channels = images.shape
    factor = -(-max(height, width) // MOST_SIDE)
    down, right = height // factor, width // factor
    if factor == 1 or not down or not right:
        return images
    blocks = images[:, : down * factor, : right * factor].reshape(count, down, factor, right, factor, channels)
    return np.asarray(blocks.mean(axis=(2, 4)), np.float32)


def _stretched(image: NDArray[np.float32]) -> Pixels:
    lowest, span = image.min(), float(np.ptp(image))
    if span < FAINT:
        return np.zeros(image.shape, np.uint8)
    return np.asarray(np.rint((image - lowest) * (255 / span)), np.uint8)


def _rgba(pixels: Pixels) -> Pixels:
    channels = pixels.shape[2]
    colours = pixels[..., :-1] if channels in (2, 4) else pixels
    alpha = pixels[..., -1:] if channels in (2, 4) else np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return np.concatenate([np.broadcast_to(colours, (*pixels.shape[:2], 3)), alpha], axis=2)
