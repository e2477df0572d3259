import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segloop.collection.census import CELLS, SCORE_EDGES, SIZE_EDGES
from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.reporting.bias import plot_bias, plot_coverage


def part(count: int, scored: bool = True) -> dict[str, Any]:
    size = [0] * (len(SIZE_EDGES) - 1)
    size[3] = count
    position = [[0] * CELLS for _ in range(CELLS)]
    position[2][5] = count
    found = {"count": count, "size": size, "position": position}
    score = [0] * (len(SCORE_EDGES) - 1)
    score[17] = count
    return found | {"score": score} if scored else found


def census(folder: Path, collected: int, truth: bool) -> Path:
    known = {"id": 1, "name": "a <b> & c", "seed": 4, "predicted": 40, "collected": collected}
    write_json(
        folder / "census.json",
        {
            "schema_version": 1,
            "images": {"pool": 10, "with": [8, 1, 1], "per_image": 0.3, "per_covered_image": 1.5},
            "categories": [known | {"truth": 50 if truth else None}],
            "edges": {"size": list(SIZE_EDGES), "score": list(SCORE_EDGES)},
            "predicted": part(40),
            "collected": part(collected),
            "truth": part(50, scored=False) if truth else None,
        },
    )
    return folder / "census.json"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("truth", [True, False])
def test_bias_is_drawn_and_its_numbers_stand_in_a_table(tmp_path: Path, truth: bool) -> None:
    png, svg, table = (tmp_path / f"bias.{kind}" for kind in ("png", "svg", "csv"))
    plot_bias(census=census(tmp_path, 6, truth), svg=svg, png=png, table=table)
    found = rows(table)
    assert found[0] == {
        "panel": "category", "name": "a <b> & c", "predicted": "40", "collected": "6", "truth": "50" if truth else "",
    }  # fmt: skip
    assert {row["panel"] for row in found} == {"category", "size", "position", "score"}
    assert sum(int(row["collected"]) for row in found if row["panel"] == "position") == 6
    assert "<svg" in svg.read_text(encoding="utf-8")
    with Image.open(png) as image:
        assert image.width > 1000


def test_nothing_collected_is_said_instead_of_drawn(tmp_path: Path) -> None:
    paths = {"svg": tmp_path / "a.svg", "png": tmp_path / "a.png", "table": tmp_path / "a.csv"}
    plot_bias(census=census(tmp_path, 0, False), **paths)
    assert rows(paths["table"])[0]["collected"] == "0"


@pytest.mark.parametrize(("truth", "ratio"), [(True, 6 / 50), (False, 6 / 4)])
def test_coverage_and_ratios(tmp_path: Path, truth: bool, ratio: float) -> None:
    paths = {"svg": tmp_path / "c.svg", "png": tmp_path / "c.png", "table": tmp_path / "c.csv"}
    plot_coverage(census=census(tmp_path, 6, truth), **paths)
    found = rows(paths["table"])
    assert [row["value"] for row in found[:3]] == ["8", "1", "1"]
    assert found[2]["name"] == "2 or more"
    assert float(found[3]["value"]) == pytest.approx(ratio)


def test_another_file_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "other.json", {})
    with pytest.raises(SegloopError, match="no census"):
        plot_bias(census=tmp_path / "other.json", svg=tmp_path / "a", png=tmp_path / "b", table=tmp_path / "c")
