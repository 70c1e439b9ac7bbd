"""Draws heatmaps over images and grids of small images, and encodes arrays as PNG. Knows no model."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

GRID_COLUMNS = 8
GRID_GAP_PX = 1
MAX_TILE_SIDE_PX = 64
STACK_WIDTH_PX = 448
STACK_GAP_PX = 8
POSITIVE_COLOR, NEGATIVE_COLOR = (255, 122, 26), (64, 140, 255)  # orange and blue: distinct for most color-blind people
FADED_BRIGHTNESS = 0.45
MIN_SPAN = 1e-6


def encode_png(pixels: Pixels) -> bytes:
    """Encodes uint8 (height, width, channels) as PNG: 1 channel is gray, 2 are gray and alpha, 3 RGB, 4 RGBA."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def upscale(pixels: Pixels, target_width: int = STACK_WIDTH_PX) -> Pixels:
    """Repeats every pixel by the whole factor, at least 1, that brings the image closest to `target_width`."""
    factor = max(1, round(target_width / pixels.shape[1]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def overlay_heatmap(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Returns RGB of the image in faded gray below its heatmap, which is orange for positive values and blue otherwise.

    `image` is uint8 (height, width, 1 or 3), `heat` is (height, width). The strongest value, of either sign, is opaque.
    """
    gray = np.repeat(image.mean(axis=2, keepdims=True) * FADED_BRIGHTNESS, 3, axis=2)
    strength = np.abs(heat) / max(float(np.abs(heat).max()), MIN_SPAN)
    color = np.where(heat[..., np.newaxis] > 0, np.array(POSITIVE_COLOR), np.array(NEGATIVE_COLOR))
    blended = gray + (color - gray) * strength[..., np.newaxis]
    return np.asarray(blended, np.uint8)


def grid(images: NDArray[np.float32]) -> Pixels:
    """Arranges images (n, height, width, 1 or 3) in rows of eight, each stretched from its minimum to its maximum.

    Images of more than 64 pixels a side are averaged down. Returns uint8 with alpha; the gaps are transparent.
    """
    images = _shrink_to_tiles(images)
    count, height, width, channels = images.shape
    columns = min(GRID_COLUMNS, count)
    rows = -(-count // columns)
    stride_y, stride_x = height + GRID_GAP_PX, width + GRID_GAP_PX
    canvas = np.zeros((rows * stride_y - GRID_GAP_PX, columns * stride_x - GRID_GAP_PX, channels + 1), np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * stride_y, index % columns * stride_x
        canvas[top : top + height, left : left + width, :-1] = _stretch_contrast(image)
        canvas[top : top + height, left : left + width, -1] = 255
    return canvas


def stack_vertically(images: list[Pixels]) -> Pixels:
    """Stacks images of any kind vertically, as RGBA, each upscaled to about the same width."""
    upscaled = [upscale(_to_rgba(image)) for image in images]
    width = max(image.shape[1] for image in upscaled)
    canvas = np.zeros((sum(image.shape[0] + STACK_GAP_PX for image in upscaled) - STACK_GAP_PX, width, 4), np.uint8)
    top = 0
    for image in upscaled:
        canvas[top : top + image.shape[0], : image.shape[1]] = image
        top += image.shape[0] + STACK_GAP_PX
    return canvas


def _shrink_to_tiles(images: NDArray[np.float32]) -> NDArray[np.float32]:
    count, height, width, channels = images.shape
    factor = -(-max(height, width) // MAX_TILE_SIDE_PX)
    rows, columns = height // factor, width // factor
    if factor == 1 or not rows or not columns:
        return images
    blocks = images[:, : rows * factor, : columns * factor].reshape(count, rows, factor, columns, factor, channels)
    return np.asarray(blocks.mean(axis=(2, 4)), np.float32)


def _stretch_contrast(image: NDArray[np.float32]) -> Pixels:
    minimum, span = image.min(), float(np.ptp(image))
    if span < MIN_SPAN:
        return np.zeros(image.shape, np.uint8)
    return np.asarray(np.rint((image - minimum) * (255 / span)), np.uint8)


def _to_rgba(pixels: Pixels) -> Pixels:
    channels = pixels.shape[2]
    colors = pixels[..., :-1] if channels in (2, 4) else pixels
    alpha = pixels[..., -1:] if channels in (2, 4) else np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return np.concatenate([np.broadcast_to(colors, (*pixels.shape[:2], 3)), alpha], axis=2)
