"""Draws seven.png next to this file: a handwritten 7 in the format of MNIST's digits. Run: `python draw_seven.py`."""

from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 28  # side of the image; the digit fits into a box of 20 pixels around its center of mass, as in MNIST
ENLARGED = 16
PEN = 2.6
STROKES = [
    [(6.0, 10.8), (8.2, 9.6), (11.7, 9.2), (15.7, 8.9), (20.3, 8.4)],
    [(20.3, 8.4), (19.1, 11.4), (17.3, 14.8), (15.3, 18.4), (13.7, 22.0), (12.6, 25.4)],
]


def seven() -> Image.Image:
    """Draws the 7 in 8-bit gray, white on black, scaled down from a larger drawing, so that edges are smooth."""
    large = Image.new("L", (SIDE * ENLARGED, SIDE * ENLARGED))
    pen = ImageDraw.Draw(large)
    radius = PEN * ENLARGED / 2
    for stroke in STROKES:
        points = [(x * ENLARGED, y * ENLARGED) for x, y in stroke]
        pen.line(points, fill=255, width=round(2 * radius))
        for x, y in points:  # round joints and ends
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return large.resize((SIDE, SIDE), Image.Resampling.BOX)


if __name__ == "__main__":
    seven().save(Path(__file__).with_name("seven.png"))
