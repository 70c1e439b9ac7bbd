"""A confusion matrix as a PNG, drawn with Pillow: right classes down, answers across."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 800  # pixels of the matrix, where its classes are few enough
CELL = 44
MOST_WITH_NUMBERS = 25
MOST_WITH_NAMES = 60
MOST_CLASSES = 2000
MARGIN = 12
CORNER = 110  # pixels that the words in it need
NAME_LENGTH = 24
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (220, 220, 220)
BLUE = (8, 48, 107)  # of a share of 1


def draw_confusion(pairs: Mapping[tuple[str, str], int], shown: Sequence[str], path: Path) -> None:
    """Draws `pairs`, counts of (right, answered) by label, with `shown` as order of rows and columns.

    Cells are shaded by the share of their row.
    """
    cell = max(1, min(CELL, SIDE // len(shown)))
    font = ImageFont.load_default(max(9, min(13, cell - 4)))
    names = [label[:NAME_LENGTH] for label in shown] if len(shown) <= MOST_WITH_NAMES else []
    room = max(CORNER, int(max((font.getlength(name) for name in names), default=0)) + 2 * MARGIN)
    side = cell * len(shown)
    image = Image.new("RGB", (room + side + MARGIN, room + side + MARGIN), WHITE)
    draw = ImageDraw.Draw(image)
    _draw_cells(draw, pairs, shown, (room, room), cell, font)
    draw.rectangle((room - 1, room - 1, room + side, room + side), outline=GREY)
    _draw_names(image, names, room, cell, font)
    image.save(path, "PNG")


def _draw_cells(
    draw: ImageDraw.ImageDraw,
    pairs: Mapping[tuple[str, str], int],
    shown: Sequence[str],
    at: tuple[int, int],
    cell: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    place = {label: index for index, label in enumerate(shown)}
    totals = dict.fromkeys(shown, 0)
    for (right, _), count in pairs.items():
        totals[right] += count
    for (right, answer), count in pairs.items():
        share = count / totals[right]
        x, y = at[0] + place[answer] * cell, at[1] + place[right] * cell
        shade = tuple(round(255 + (channel - 255) * share) for channel in BLUE)
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=shade)
        if len(shown) <= MOST_WITH_NUMBERS:
            ink = WHITE if share > 0.5 else BLACK
            draw.text((x + cell / 2, y + cell / 2), str(count), ink, font, anchor="mm")


def _draw_names(
    image: Image.Image,
    names: Sequence[str],
    room: int,
    cell: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Right classes beside their rows; answers above their columns, read from below."""
    draw = ImageDraw.Draw(image)
    for index, name in enumerate(names):
        draw.text((room - 6, room + (index + 0.5) * cell), name, BLACK, font, anchor="rm")
    above = Image.new("RGB", (room, cell * max(1, len(names))), WHITE)
    upright = ImageDraw.Draw(above)
    for index, name in enumerate(names):
        upright.text((6, (index + 0.5) * cell), name, BLACK, font, anchor="lm")
    if names:
        image.paste(above.transpose(Image.Transpose.ROTATE_90), (room, 0))
    draw.text((MARGIN, MARGIN), "right: down", BLACK, font)
    draw.text((MARGIN, MARGIN + 16), "answer: across", BLACK, font)
