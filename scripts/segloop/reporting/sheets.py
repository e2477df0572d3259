"""Contact sheets: rows of pictures with captions, pixel for pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segloop.files import atomic_file
from segloop.reporting.drawing import Pixels
from segloop.reporting.style import GREY, INK, PALE, PAPER, VERMILLION

MARGIN, GAP, LINE = 24, 14, 20
SMALLEST_WIDTH = 760
_TITLE, _TEXT, _CAPTION, _SMALLEST = 22, 15, 14, 12


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes
    ----------
    picture
        uint8 [side, side, 3]; None draws an empty square that says so.
    lines
        Captions below it; what is too long for the tile is set smaller, then cut in its middle.
    marked
        Frame the picture and print the last line in the colour of warnings.
    empty
        There is no picture to be missed: draw the captions alone, so that a row keeps its columns.
    """

    picture: Pixels | None
    lines: tuple[str, ...]
    marked: bool = False
    empty: bool = False


@dataclass(frozen=True)
class Sheet:
    """What stands on a contact sheet.

    Attributes
    ----------
    title, notes
        Heading and the sentences below it.
    rows
        Tiles, row by row.
    headings
        One a column, or none.
    apart
        The first column stands apart: it is what the others are compared with.
    message
        Stands in place of the tiles where there are none.
    """

    title: str
    notes: tuple[str, ...] = ()
    rows: list[list[Tile]] = field(default_factory=list)
    headings: tuple[str, ...] = ()
    apart: bool = False
    message: str = ""


def draw_sheet(sheet: Sheet, path: Path, *, side: int) -> None:
    """Write a contact sheet as PNG, whole or not at all; the same sheet gives the same bytes.

    Parameters
    ----------
    side
        Side of a tile in pixels.
    """
    height_of_tile = side + 4 + LINE * max((len(tile.lines) for row in sheet.rows for tile in row), default=0)
    columns = max((len(row) for row in sheet.rows), default=0)
    width = max(SMALLEST_WIDTH, _left(columns, side, sheet.apart) - GAP + MARGIN)
    notes = [line for note in sheet.notes for line in _wrap(note, width - 2 * MARGIN)]
    top = MARGIN + 34 + LINE * len(notes) + (10 + LINE if sheet.headings else 12)
    height = top + (len(sheet.rows) * (height_of_tile + GAP) if sheet.rows else 120) + MARGIN - GAP
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    _head(draw, sheet, notes)
    for column, heading in enumerate(sheet.headings[:columns]):
        draw.text((_left(column, side, sheet.apart), top - LINE - 4), heading, GREY, _font(_CAPTION))
    if not sheet.rows:
        draw.text((MARGIN, top + 30), sheet.message, GREY, _font(_TEXT))
    for number, row in enumerate(sheet.rows):
        for column, tile in enumerate(row):
            corner = (_left(column, side, sheet.apart), top + number * (height_of_tile + GAP))
            _draw_tile(canvas, draw, tile, corner, side)
    _save(canvas, path)


def _left(column: int, side: int, apart: bool) -> int:
    return MARGIN + column * (side + GAP) + (2 * GAP if apart and column else 0)


def _head(draw: ImageDraw.ImageDraw, sheet: Sheet, notes: Sequence[str]) -> None:
    draw.text((MARGIN, MARGIN - 4), sheet.title, INK, _font(_TITLE, bold=True))
    for number, line in enumerate(notes):
        draw.text((MARGIN, MARGIN + 30 + number * LINE), line, GREY, _font(_TEXT))


def _draw_tile(canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], side: int) -> None:
    left, top = corner
    square = (left, top, left + side - 1, top + side - 1)
    if tile.picture is None and not tile.empty:
        draw.rectangle(square, fill=PALE)
        draw.text((left + side // 2, top + side // 2), "no image", GREY, _font(_CAPTION), anchor="mm")
    elif tile.picture is not None:
        canvas.paste(Image.fromarray(np.ascontiguousarray(tile.picture)), corner)
    if tile.marked:
        draw.rectangle((left - 4, top - 4, left + side + 3, top + side + 3), outline=VERMILLION, width=3)
    for number, line in enumerate(tile.lines):
        warning = tile.marked and number == len(tile.lines) - 1
        font = _fitting_font(line, side, bold=number == 0 or warning)
        colour = VERMILLION if warning else INK if number == 0 else GREY
        draw.text((left, top + side + 5 + number * LINE), shorten(line, side, font), colour, font)


def shorten(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Return the text, cut in its middle where it is wider than `width` pixels: names often differ at their end."""
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept and font.getlength(_ends(text, kept)) > width:
        kept -= 1
    return _ends(text, kept)


def _ends(text: str, kept: int) -> str:
    return text[: (kept + 1) // 2] + "…" + (text[-(kept // 2) :] if kept > 1 else "")


def _fitting_font(text: str, width: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    """Return the largest type in which the text fits, or the smallest there is."""
    sizes = range(_CAPTION, _SMALLEST - 1, -1)
    return next(
        (font for size in sizes if (font := _font(size, bold)).getlength(text) <= width), _font(_SMALLEST, bold)
    )


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(_TEXT).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Matplotlib ships DejaVu: the same letters as in the other figures, on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _save(canvas: Image.Image, path: Path) -> None:
    with atomic_file(path) as temporary:
        canvas.save(temporary, format="PNG", optimize=True)
