"""Draws digits like MNIST's: white strokes on black, 20 pixels high, centered by mass in 28x28 pixels.

The drawn digits replace the real data set if it is missing. A digit consists of a few pen strokes. Slant, width, tilt
and thickness depend on the seed.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE_PX = 28
INK_PX = 20
OVERSAMPLING = 8  # strokes are drawn larger by this factor, then scaled down smoothly

Point = tuple[float, float]
Stroke = list[Point]


def arc(x: float, y: float, across: float, down: float, start_deg: float, end_deg: float) -> Stroke:
    """Returns a part of an ellipse around (x, y) with these radii; 0 degrees is right, 90 is down."""
    angles = np.radians(np.linspace(start_deg, end_deg, 24))
    return [(x + across * math.cos(a), y + down * math.sin(a)) for a in angles]


# Coordinates are in a box of 1x1, with x to the right and y down.
STROKES: dict[int, list[Stroke]] = {
    0: [arc(0.5, 0.5, 0.34, 0.5, -90, 270)],
    1: [[(0.5, 0.0), (0.5, 1.0)]],
    2: [[*arc(0.48, 0.28, 0.34, 0.28, 190, 385), (0.1, 1.0), (0.9, 1.0)]],
    3: [arc(0.45, 0.25, 0.33, 0.25, 205, 450), arc(0.45, 0.74, 0.38, 0.26, 270, 515)],
    4: [[(0.2, 0.0), (0.12, 0.55), (0.9, 0.5)], [(0.78, 0.05), (0.7, 1.0)]],
    5: [[(0.85, 0.0), (0.3, 0.02), (0.22, 0.42), *arc(0.42, 0.69, 0.36, 0.31, 245, 510)]],
    6: [[*arc(0.78, 0.62, 0.6, 0.62, 255, 180), *arc(0.48, 0.7, 0.3, 0.3, 180, 540)]],
    7: [[(0.1, 0.05), (0.85, 0.02), (0.45, 1.0)]],
    8: [arc(0.5, 0.25, 0.27, 0.25, 90, 450), arc(0.5, 0.75, 0.32, 0.25, -90, 270)],
    9: [arc(0.45, 0.28, 0.3, 0.28, 0, 360), [(0.75, 0.25), (0.72, 0.6), (0.6, 1.0)]],
}


def draw_digit(digit: int, seed: int) -> NDArray[np.uint8]:
    """Draws `digit`, uint8 (28, 28, 1). The same seed gives the same handwriting."""
    random = np.random.default_rng([digit, seed])
    transform = _handwriting_transform(random)
    strokes = [(np.array(stroke) - 0.5) @ transform.T for stroke in STROKES[digit]]
    return _centered_on_canvas(_ink(strokes, thickness_px=random.uniform(2.0, 3.0)))[..., np.newaxis]


def _handwriting_transform(random: np.random.Generator) -> NDArray[np.float64]:
    """Returns slant, width and tilt as one matrix."""
    tilt = math.radians(random.uniform(-6, 6))
    turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    slant = np.array([[random.uniform(0.75, 1.0), random.uniform(-0.3, 0.05)], [0.0, 1.0]])
    return turn @ slant


def _ink(strokes: list[NDArray[np.float64]], thickness_px: float) -> Image.Image:
    """Draws the strokes in proportion, with 20 pixels on the longer side, in mode L."""
    points = np.concatenate(strokes)
    low, size = points.min(0), np.ptp(points, 0)
    drawable_px = (INK_PX - thickness_px) * OVERSAMPLING
    scale, pen = drawable_px / size.max(), thickness_px * OVERSAMPLING
    width, height = np.ceil(size * scale + pen).astype(int)
    canvas = Image.new("L", (int(width), int(height)))
    draw = ImageDraw.Draw(canvas)
    for stroke in strokes:
        points_px = [tuple(point) for point in (stroke - low) * scale + pen / 2]
        draw.line(points_px, fill=255, width=round(pen), joint="curve")
        for x, y in (points_px[0], points_px[-1]):
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    small = (max(1, round(width / OVERSAMPLING)), max(1, round(height / OVERSAMPLING)))
    return canvas.resize(small, Image.Resampling.BOX)


def _centered_on_canvas(ink: Image.Image) -> NDArray[np.uint8]:
    """Places the ink on a black square with its center of mass in the middle, unless it would reach outside."""
    pixels = np.asarray(ink)
    canvas = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mass = pixels.astype(float)
    at = []
    for axis, length in enumerate(pixels.shape):
        center = mass.sum(1 - axis) @ np.arange(length) / mass.sum()
        at.append(int(np.clip(round((SIDE_PX - 1) / 2 - center), 0, SIDE_PX - length)))
    canvas[at[0] : at[0] + pixels.shape[0], at[1] : at[1] + pixels.shape[1]] = pixels
    return canvas
