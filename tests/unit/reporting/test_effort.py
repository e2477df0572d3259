import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segloop.reporting.effort import plot_ap_by_masks, plot_effort

from .conftest import row


def paths(folder: Path) -> dict[str, Path]:
    return {"svg": folder / "e.svg", "png": folder / "e.png", "table": folder / "e.csv"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_ap_by_masks_and_category(summary: Callable[..., Path], tmp_path: Path) -> None:
    made = summary(
        row(0, ap=0.2, ap_per_category={"disc": 0.1, "star": 0.3}),
        row(1, ap=0.25, questions=9, collected=30, collected_total=30, ap_per_category={"disc": 0.2, "star": None}),
    )
    plot_ap_by_masks(summary=made, **paths(tmp_path))
    found = rows(paths(tmp_path)["table"])
    assert [(one["iteration"], one["category"], one["ap"]) for one in found] == [
        ("0", "all", "0.2"), ("0", "disc", "0.1"), ("0", "star", "0.3"),
        ("1", "all", "0.25"), ("1", "disc", "0.2"), ("1", "star", ""),
    ]  # fmt: skip
    assert found[-1]["collected_total"] == "30"


@pytest.mark.parametrize("known", [{}, {"ap": 0.2}, {"questions": 5, "collected": 0, "collected_total": 0}])
def test_what_is_missing_is_said(summary: Callable[..., Path], tmp_path: Path, known: dict[str, Any]) -> None:
    made = summary(row(0, **known))
    plot_ap_by_masks(summary=made, **paths(tmp_path))
    plot_effort(summary=made, **paths(tmp_path))
    assert paths(tmp_path)["png"].stat().st_size > 1000


def test_effort_adds_machines_to_people(summary: Callable[..., Path], tmp_path: Path) -> None:
    known = {"questions": 50, "collected": 20, "seconds": 90.0}
    made = summary(row(0), row(1, **known, dollars=3.0, machine_dollars=1.5), row(2, **known))
    plot_effort(summary=made, **paths(tmp_path))
    found = rows(paths(tmp_path)["table"])
    assert [one["dollars"] for one in found] == ["4.5", ""]
    assert found[0]["seconds"] == "90.0"
