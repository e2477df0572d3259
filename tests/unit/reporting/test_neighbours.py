from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segloop.files import read_json
from segloop.reporting import neighbours
from segloop.reporting.neighbours import plot_neighbours
from segloop.reporting.sheets import Sheet

from .conftest import Iteration


def draw(made: Iteration, folder: Path, **changed: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "partitions": made.partitions,
        "predictions": made.predictions,
        "shards": made.shards,
        "seed_set": made.seed_set,
        "png": folder / "neighbours.png",
        "ids": folder / "neighbours.json",
        "iteration": 1,
        "queries": 4,
        "neighbours": 3,
        "seed": 0,
    }
    plot_neighbours(**arguments | changed)
    with Image.open(folder / "neighbours.png") as image:
        assert image.format == "PNG"
    found: dict[str, Any] = read_json(folder / "neighbours.json")
    return found


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Sheet]:
    """Catch what is drawn; it is drawn all the same."""
    caught: list[Sheet] = []
    whole = neighbours.draw_sheet

    def catch(sheet: Sheet, path: Path, *, side: int) -> None:
        caught.append(sheet)
        whole(sheet, path, side=side)

    monkeypatch.setattr(neighbours, "draw_sheet", catch)
    return caught


def test_neighbours_are_the_predictions_with_similar_embeddings(
    iteration: Callable[..., Iteration], tmp_path: Path, sheets: list[Sheet]
) -> None:
    made = iteration()
    found = draw(made, tmp_path)
    group = {str(id_): place // 3 for place, id_ in enumerate(made.ids.tolist())}
    assert len(found["rows"]) == 4
    for line in found["rows"]:
        near = [each["prediction"] for each in line["neighbours"]]
        assert line["query"] not in near
        assert [group[id_] for id_ in near[:2]] == [group[line["query"]]] * 2
        assert group[near[2]] != group[line["query"]]  # an image has three predictions only
        cosines = [each["cosine"] for each in line["neighbours"]]
        assert cosines == sorted(cosines, reverse=True)
    assert [[tile.marked for tile in row] for row in sheets[0].rows] == [[False, False, False, True]] * 4
    assert "8 of 12 neighbours have the category of their query" in sheets[0].notes[0]


def test_the_same_seed_gives_the_same_bytes(iteration: Callable[..., Iteration], tmp_path: Path) -> None:
    made = iteration()
    draws = []
    for seed in (0, 0, 1, 2, 3):
        draw(made, tmp_path, seed=seed, queries=1)
        draws.append(((tmp_path / "neighbours.png").read_bytes(), (tmp_path / "neighbours.json").read_bytes()))
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


def test_queries_are_different_predictions(iteration: Callable[..., Iteration], tmp_path: Path) -> None:
    found = draw(iteration(), tmp_path, queries=50)
    assert len({line["query"] for line in found["rows"]}) == len(found["rows"]) == 9


def test_fewer_predictions_than_neighbours_are_all_shown(
    iteration: Callable[..., Iteration], tmp_path: Path, sheets: list[Sheet]
) -> None:
    found = draw(iteration(each=1), tmp_path, neighbours=10)
    assert {len(line["neighbours"]) for line in found["rows"]} == {2}
    assert sheets[0].headings == ("query", "neighbour 1", "neighbour 2")


@pytest.mark.parametrize(("each", "images", "count"), [(1, (2,), 1), (3, (), 0)])
def test_one_or_no_prediction_gives_a_picture_that_says_so(
    each: int,
    images: tuple[int, ...],
    count: int,
    iteration: Callable[..., Iteration],
    tmp_path: Path,
    sheets: list[Sheet],
) -> None:
    found = draw(iteration(each=each, images=images), tmp_path)
    assert sheets[0].rows == []
    assert f"has {count} prediction" in sheets[0].message
    assert [line["neighbours"] for line in found["rows"]] == [[]] * count


def test_no_queries_wished_gives_a_picture_that_says_so(
    iteration: Callable[..., Iteration], tmp_path: Path, sheets: list[Sheet]
) -> None:
    assert draw(iteration(), tmp_path, queries=0)["rows"] == []
    assert "report.neighbour_queries is 0" in sheets[0].message


def test_a_deleted_pool_image_costs_its_tiles_only(
    iteration: Callable[..., Iteration], tmp_path: Path, sheets: list[Sheet]
) -> None:
    made = iteration()
    made.image(1).unlink()
    draw(made, tmp_path, queries=9)
    missing = [tile.picture is None for row in sheets[0].rows for tile in row]
    assert any(missing)
    assert not all(missing)
