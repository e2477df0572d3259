import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from segloop.reporting import illustrations
from segloop.reporting.canvas import Canvas
from segloop.reporting.diagrams import draw_all, draw_loop, draw_model, draw_overview, main
from segloop.reporting.style import style

FILES = ["loop.png", "loop.svg", "model.png", "model.svg", "overview.png"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    draw_all(folder)
    return folder


def test_all_drawings_are_made(drawn: Path) -> None:
    assert sorted(path.name for path in drawn.iterdir()) == FILES
    for name in FILES:
        if name.endswith("svg"):
            assert ElementTree.parse(drawn / name).getroot().tag.endswith("svg")
        else:
            with Image.open(drawn / name) as image:
                assert image.width > 1000
        assert (drawn / name).stat().st_size < 1_500_000


def test_drawings_load_nothing_from_elsewhere(drawn: Path) -> None:
    for svg in drawn.glob("*.svg"):
        for element in ElementTree.parse(svg).iter():
            link = element.get("{http://www.w3.org/1999/xlink}href", "#")
            assert link.startswith(("#", "data:image/png;base64,"))


def test_drawings_are_the_same_every_time(drawn: Path, tmp_path: Path) -> None:
    with style():
        draw_model().save(tmp_path / "model.svg", tmp_path / "model.png")
    for name in ("model.svg", "model.png"):
        assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes()


@pytest.mark.parametrize("draw", [draw_loop, draw_model, draw_overview])
def test_no_text_leaves_the_drawing_or_lies_on_another(draw: object) -> None:
    with style():
        canvas: Canvas = draw()  # type: ignore[operator]
        figure = canvas._figure
        figure.canvas.draw()
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        boxes = [text.get_window_extent() for text in texts if text.axes is not None and text in text.axes.texts]
    assert len(boxes) > 10
    width, height = figure.canvas.get_width_height()
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    for place, a in enumerate(boxes):
        for b in boxes[place + 1 :]:
            # Boxes of letters hold room for accents above and below: a real overlap is deeper than that.
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across <= 0 or down <= 0.35 * min(a.height, b.height)


def test_the_embedding_is_marked() -> None:
    with style():
        words = [text.get_text() for text in draw_model()._figure.findobj(Text)]
    assert "embedding: 1024 numbers" in words


def test_a_spoilt_mask_differs_from_the_object_and_stays_in_the_picture() -> None:
    example = illustrations.examples("ring", 1)[0]
    moved = illustrations.spoilt(example).mask
    both = (moved & example.mask).sum() / (moved | example.mask).sum()
    assert 0 < both < 0.8
    assert moved.shape == example.mask.shape


def test_what_is_accepted_was_predicted_and_good() -> None:
    assert (illustrations.predicted(31) != illustrations.accepted(31)).any()
    assert illustrations.labelled(31).shape == illustrations.accepted(31).shape == (192, 192, 3)
    assert np.array_equal(illustrations.scene(31).picture, illustrations.scene(31).picture)


def test_too_many_examples_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        illustrations, "scene", lambda number: illustrations.Scene(np.zeros((9, 9, 3), np.uint8), [], 0)
    )
    with pytest.raises(ValueError, match="hold only 0 examples of star"):
        illustrations.examples("star", 1)


def test_the_command_wants_a_folder() -> None:
    with pytest.raises(SystemExit, match="usage"):
        main([])
