import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.reporting import comparison
from segloop.reporting.comparison import HEADS, read_runs, rows_of, write_comparison
from segloop.reporting.style import save

from .conftest import row


def run(folder: Path, policy: str | None, *rows: dict[str, Any]) -> Path:
    write_json(folder / "results" / "summary.json", {"iterations": list(rows), "stop_reason": "iterations"})
    if policy:
        text = yaml.safe_dump({"annotation": {"policy": policy}, "detector": {"backend": "torchvision"}})
        (folder / "results" / "config.yaml").write_text(text, encoding="utf-8")
    return folder


def cell(line: list[Any], head: str) -> Any:
    return line[HEADS.index(head)]


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    known = {"questions": 100, "seconds": 1800.0, "dollars": 9.0, "machine_dollars": 1.0}
    a = run(
        tmp_path / "a",
        "thesis",
        row(0, ap=0.2),
        row(1, ap=0.22, collected=50, precision=0.9, collected_total=50, **known),
        row(2, ap=0.24, collected=150, precision=0.7, collected_total=200, truth_recall=0.3, **known),
    )
    b = run(tmp_path / "b", None, row(0, ap=0.2))
    first, second = rows_of(read_runs([a, b]))
    assert cell(first, "policy") == "thesis"
    assert cell(first, "masks") == 200
    assert cell(first, "masks a question") == 1.0
    assert cell(first, "precision") == pytest.approx((50 * 0.9 + 150 * 0.7) / 200)
    assert cell(first, "AP") == pytest.approx(24.0)
    assert cell(first, "dollars") == 20.0
    assert cell(second, "policy") == "–"
    assert cell(second, "questions") is None
    write_comparison(read_runs([a, b]), tmp_path / "out")
    with (tmp_path / "out" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        assert [one["run"] for one in csv.DictReader(file)] == ["a", "b"]
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "data:image/png" in page and "http" not in page.replace("http-equiv", "")


def test_precision_is_unknown_if_one_iteration_does_not_know_it(tmp_path: Path) -> None:
    known = {"questions": 10, "collected": 5, "collected_total": 5}
    a = run(tmp_path / "a", "thesis", row(1, precision=0.9, **known), row(2, **known))
    assert cell(rows_of(read_runs([a]))[0], "precision") is None


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = [run(tmp_path / name / "demo", None, row(0)) for name in ("x", "y")]
    assert [one.name for one in read_runs(found)] == [str(path) for path in found]
    with pytest.raises(SegloopError, match="named twice"):
        read_runs([found[0], found[0]])


def test_a_run_whose_name_begins_with_an_underscore_has_its_line_in_the_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []

    def saved(figure: Figure, svg: Path, png: Path) -> None:
        figures.append(figure)
        save(figure, svg, png)

    monkeypatch.setattr(comparison, "save", saved)
    found = [run(tmp_path / name, None, row(0, ap=0.2), row(1, ap=0.3)) for name in ("_first", "second")]
    write_comparison(read_runs(found), tmp_path / "out")
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["_first", "second"]


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"summary\.json"):
        read_runs([tmp_path])
