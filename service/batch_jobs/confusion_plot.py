"""Draws a confusion matrix as a PNG: expected classes are rows, predicted classes are columns.

The service has no matplotlib, so this module uses Pillow, whose built-in font has only ASCII letters. Training draws
its matrices with matplotlib, because the labels of users' own images may contain any letters.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MAX_MATRIX_SIDE_PX = 800  # A cell has at least one pixel, so a matrix with more classes than this is larger.
MAX_CELL_PX = 44
MAX_CLASSES_WITH_COUNTS = 25
MAX_CLASSES_WITH_LABELS = 60
MAX_CLASSES = 2000
MARGIN_PX = 12
MIN_HEADER_PX = 120  # The corner contains the two lines of the legend.
MAX_LABEL_LENGTH = 24
WHITE, BLACK, GRAY = (255, 255, 255), (0, 0, 0), (220, 220, 220)
BLUE = (8, 48, 107)  # the color of a cell with all images of its row


def plot_confusion(counts: Mapping[tuple[str, str], int], labels: Sequence[str], path: Path) -> None:
    """Draws `counts`, the number of images for each (expected, predicted) label, in the order of `labels`.

    A cell is darker the larger its fraction of the row's images is.
    """
    cell_px = max(1, min(MAX_CELL_PX, MAX_MATRIX_SIDE_PX // len(labels)))
    font = ImageFont.load_default(max(9, min(13, cell_px - 4)))
    shown_labels = [label[:MAX_LABEL_LENGTH] for label in labels] if len(labels) <= MAX_CLASSES_WITH_LABELS else []
    longest_label_px = int(max((font.getlength(label) for label in shown_labels), default=0))
    header_px = max(MIN_HEADER_PX, longest_label_px + 2 * MARGIN_PX)
    matrix_px = cell_px * len(labels)
    side_px = header_px + matrix_px + MARGIN_PX
    image = Image.new("RGB", (side_px, side_px), WHITE)
    draw = ImageDraw.Draw(image)
    _draw_cells(draw, counts, labels, (header_px, header_px), cell_px, font)
    draw.rectangle((header_px - 1, header_px - 1, header_px + matrix_px, header_px + matrix_px), outline=GRAY)
    _draw_labels(image, shown_labels, header_px, cell_px, font)
    image.save(path, "PNG")


def _draw_cells(
    draw: ImageDraw.ImageDraw,
    counts: Mapping[tuple[str, str], int],
    labels: Sequence[str],
    origin: tuple[int, int],
    cell_px: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    position = {label: index for index, label in enumerate(labels)}
    totals = dict.fromkeys(labels, 0)
    for (expected, _), count in counts.items():
        totals[expected] += count
    for (expected, predicted), count in counts.items():
        fraction = count / totals[expected]
        x, y = origin[0] + position[predicted] * cell_px, origin[1] + position[expected] * cell_px
        fill_color = tuple(round(255 + (channel - 255) * fraction) for channel in BLUE)
        draw.rectangle((x, y, x + cell_px - 1, y + cell_px - 1), fill=fill_color)
        if len(labels) <= MAX_CLASSES_WITH_COUNTS:
            text_color = WHITE if fraction > 0.5 else BLACK
            draw.text((x + cell_px / 2, y + cell_px / 2), str(count), text_color, font, anchor="mm")


def _draw_labels(
    image: Image.Image,
    shown_labels: Sequence[str],
    header_px: int,
    cell_px: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Draws expected classes to the left of their rows, and predicted classes above their columns, rotated by 90
    degrees."""
    draw = ImageDraw.Draw(image)
    for index, label in enumerate(shown_labels):
        draw.text((header_px - 6, header_px + (index + 0.5) * cell_px), label, BLACK, font, anchor="rm")
    column_labels = Image.new("RGB", (header_px, cell_px * max(1, len(shown_labels))), WHITE)
    column_draw = ImageDraw.Draw(column_labels)
    for index, label in enumerate(shown_labels):
        column_draw.text((6, (index + 0.5) * cell_px), label, BLACK, font, anchor="lm")
    if shown_labels:
        image.paste(column_labels.transpose(Image.Transpose.ROTATE_90), (header_px, 0))
    draw.text((MARGIN_PX, MARGIN_PX), "expected: down", BLACK, font)
    draw.text((MARGIN_PX, MARGIN_PX + 16), "predicted: across", BLACK, font)
