from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segloop.annotation.verdicts import ACCEPTED
from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.reporting import gallery
from segloop.reporting.gallery import plot_galleries
from segloop.reporting.sheets import Sheet

from .conftest import Iteration, judge, match

NAMES = ("accepted", "rejected", "undecided")


def draw(made: Iteration, folder: Path, **changed: Any) -> None:
    arguments: dict[str, Any] = {
        "predictions": made.predictions,
        "verdicts": made.verdicts,
        "shards": made.shards,
        "seed_set": made.seed_set,
        "truth_match": made.truth_match,
        "matching": "any",
        "iteration": 1,
        "masks": 24,
        "seed": 0,
    }
    plot_galleries(**arguments | {name: folder / f"{name}.png" for name in NAMES} | changed)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sheet]:
    """Catch what is drawn, by the name of its file; it is drawn all the same."""
    caught: dict[str, Sheet] = {}
    whole = gallery.draw_sheet

    def catch(sheet: Sheet, path: Path, *, side: int) -> None:
        caught[path.stem] = sheet
        whole(sheet, path, side=side)

    monkeypatch.setattr(gallery, "draw_sheet", catch)
    return caught


def tiles(sheet: Sheet) -> list[Any]:
    return [tile for row in sheet.rows for tile in row]


def test_each_verdict_has_its_sheet_without_duplicates(
    judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]
) -> None:
    draw(judged, tmp_path / "out")
    assert {name: len(tiles(sheet)) for name, sheet in sheets.items()} == {"accepted": 4, "rejected": 3, "undecided": 1}
    for name in NAMES:
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert image.format == "PNG"


def test_verdicts_that_the_truth_contradicts_are_marked(
    judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]
) -> None:
    draw(judged, tmp_path)
    marked = {name: [tile.lines[-1] for tile in tiles(sheet) if tile.marked] for name, sheet in sheets.items()}
    # 0.8 itself is not above 0.8: not good, so that rejecting it was right.
    assert marked == {"accepted": ["✗ true IoU 0.50"], "rejected": ["✗ true IoU 0.85"], "undecided": []}
    assert sheets["accepted"].notes[1].startswith("3 of these 4 are good")
    assert sheets["rejected"].notes[1].startswith("1 of these 3 are good")


def test_masks_are_sorted_by_category_then_score(judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]) -> None:
    draw(judged, tmp_path)
    assert [tile.lines[:2] for tile in tiles(sheets["accepted"])] == [
        ("red", "score 0.90"),
        ("red", "score 0.85"),
        ("green", "score 0.95"),
        ("green", "score 0.90"),
    ]


def test_without_truth_nothing_is_said_about_it(judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]) -> None:
    draw(judged, tmp_path, truth_match=None)
    shown = tiles(sheets["accepted"])
    assert {len(tile.lines) for tile in shown} == {2}
    assert not any(tile.marked for tile in shown)
    assert len(sheets["accepted"].notes) == 1


def test_a_verdict_nobody_got_gives_a_picture_that_says_so(
    iteration: Callable[..., Iteration], tmp_path: Path, sheets: dict[str, Sheet]
) -> None:
    made = iteration()
    judge(made, [ACCEPTED] * 9)
    draw(made, tmp_path, truth_match=None)
    assert sheets["rejected"].message == "No mask of iteration 1 is rejected."
    assert (tmp_path / "rejected.png").stat().st_size > 0


def test_an_iteration_without_predictions_gives_three_pictures(
    iteration: Callable[..., Iteration], tmp_path: Path
) -> None:
    made = iteration(images=())
    judge(made, [])
    match(made, [])
    draw(made, tmp_path)
    assert all((tmp_path / f"{name}.png").is_file() for name in NAMES)


def test_no_more_masks_than_wished_are_drawn(judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]) -> None:
    draw(judged, tmp_path, masks=2)
    assert len(tiles(sheets["accepted"])) == 2
    assert "2 of 4, drawn at random" in sheets["accepted"].notes[0]
    draw(judged, tmp_path, masks=0)
    assert "report.gallery is 0" in sheets["accepted"].message


def test_the_seed_decides_which(judged: Iteration, tmp_path: Path) -> None:
    pictures = []
    for seed in (0, 0, 1, 2, 3, 4):
        draw(judged, tmp_path, masks=1, seed=seed)
        pictures.append((tmp_path / "accepted.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) > 1


def test_a_deleted_pool_image_costs_one_tile(judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]) -> None:
    judged.image(2).unlink()
    draw(judged, tmp_path)
    assert [tile.picture is None for tile in tiles(sheets["accepted"])] == [False, False, True, True]


def test_a_category_without_a_name_shows_its_id(judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]) -> None:
    write_json(judged.seed_set, {"categories": []})
    draw(judged, tmp_path)
    assert tiles(sheets["undecided"])[0].lines[0] == "category 3"


def test_truth_of_other_predictions_is_refused(judged: Iteration, tmp_path: Path) -> None:
    match(judged, [0.5] * 8)
    with pytest.raises(SegloopError, match="hold different predictions"):
        draw(judged, tmp_path)


def test_a_truth_that_serves_one_mask_makes_the_other_bad(
    judged: Iteration, tmp_path: Path, sheets: dict[str, Sheet]
) -> None:
    match(judged, [0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1], matched=[0, 1, 2, 0, 0, 0, 0, 0, 0])
    draw(judged, tmp_path / "any")
    assert sheets["accepted"].notes[1].startswith("4 of these 4 are good")
    draw(judged, tmp_path / "once", matching="one_to_one")
    assert sheets["accepted"].notes[1].startswith("2 of these 4 are good")
