from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segloop.reporting.sheets import MARGIN, Sheet, Tile, _fitting_font, _font, _wrap, draw_sheet, shorten
from segloop.reporting.style import VERMILLION

SIDE = 40
RED = np.full((SIDE, SIDE, 3), (200, 0, 0), np.uint8)


def pixels(sheet: Sheet, path: Path) -> np.ndarray:
    draw_sheet(sheet, path, side=SIDE)
    with Image.open(path) as image:
        return np.asarray(image)


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(axis=2).sum())


def test_every_tile_is_drawn_pixel_for_pixel(tmp_path: Path) -> None:
    rows = [[Tile(RED, ("a",)), Tile(RED, ("b",))], [Tile(RED, ("c",))]]
    assert count(pixels(Sheet("t", rows=rows), tmp_path / "s.png"), (200, 0, 0)) == 3 * SIDE * SIDE


def test_tiles_keep_clear_of_each_other_and_of_the_edges(tmp_path: Path) -> None:
    rows = [[Tile(RED, ("a", "b", "c"), marked=True)] * 30] * 3
    image = pixels(Sheet("t", ("note " * 60,), rows, ("query",) * 30, apart=True), tmp_path / "s.png")
    assert count(image, (200, 0, 0)) == 90 * SIDE * SIDE
    for border in (image[: MARGIN // 2], image[-MARGIN // 2 :], image[:, : MARGIN // 2], image[:, -MARGIN // 2 :]):
        assert (border == 255).all()


def test_only_marked_tiles_are_framed(tmp_path: Path) -> None:
    frame = tuple(bytes.fromhex(VERMILLION[1:]))
    plain = pixels(Sheet("t", rows=[[Tile(RED, ("a",))]]), tmp_path / "a.png")
    marked = pixels(Sheet("t", rows=[[Tile(RED, ("a",), marked=True)]]), tmp_path / "b.png")
    assert count(plain, frame) == 0
    assert count(marked, frame) > 3 * 4 * SIDE


def test_a_missing_picture_is_an_empty_square_that_says_so(tmp_path: Path) -> None:
    image = pixels(Sheet("t", rows=[[Tile(None, ("a",))]]), tmp_path / "s.png")
    assert count(image, (0xE4, 0xE8, 0xEC)) > SIDE * SIDE / 3


def test_an_empty_sheet_shows_its_message(tmp_path: Path) -> None:
    blank = pixels(Sheet("t"), tmp_path / "a.png")
    message = pixels(Sheet("t", message="No mask is accepted."), tmp_path / "b.png")
    assert blank.shape == message.shape
    assert (blank != message).any()


def test_the_same_sheet_gives_the_same_bytes(tmp_path: Path) -> None:
    sheet = Sheet("t", ("n",), [[Tile(RED, ("a", "✗ true IoU 0.31"))]])
    for name in ("a.png", "b.png"):
        draw_sheet(sheet, tmp_path / name, side=SIDE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("width", [5, 20, 60, 400])
def test_long_captions_are_cut_to_the_tile(width: int) -> None:
    font = _font(14)
    text = "traffic light, traffic signal, stoplight"
    cut = shorten(text, width, font)
    assert font.getlength(cut) <= max(width, font.getlength("…"))
    assert cut == text if width == 400 else "…" in cut
    assert text.startswith(cut.split("…")[0])
    assert text.endswith(cut.split("…")[-1])


def test_long_names_are_set_smaller_before_they_are_cut() -> None:
    short, long = _fitting_font("disc", 160, bold=True), _fitting_font("nucleus_fluorescence", 160, bold=False)
    assert (short.size, _fitting_font("x" * 99, 160, bold=False).size) == (14, 12)
    assert 12 <= long.size <= 14
    assert long.getlength("nucleus_fluorescence") <= 160


def test_notes_are_wrapped_without_losing_words() -> None:
    note = "framed and ✗: the truth contradicts the verdict of each of these masks"
    lines = _wrap(note, 150)
    assert " ".join(lines) == note
    assert len(lines) > 2
    assert all(_font(15).getlength(line) <= 150 for line in lines)
