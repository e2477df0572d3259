from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.reporting.costs import COLUMNS, tabulate_costs

from .conftest import row
from .test_table31 import Cells


def part(accepted: int, questions: int, dollars: float, machine: float, **more: Any) -> dict[str, Any]:
    each = {"questions": 0.25, "seconds": 1.5, "total_dollars": 0.125} if accepted else None
    return {
        "accepted": accepted,
        "people": {"questions": questions, "seconds": 7200.0, "dollars": dollars},
        "machine": {"gpu_hours": 1.5, "cpu_hours": 20.0, "dollars": machine},
        "total_dollars": dollars + machine,
        "per_accepted_mask": each,
        "value": None,
    } | more


def page(folder: Path, summary: Path) -> list[list[str]]:
    iterations = [part(0, 0, 0.0, 2.0, iteration=0), part(4000, 1000, 30.0, 2.5, iteration=1, value=99.5)]
    write_json(folder / "ledger.json", {"iterations": iterations, "total": part(4000, 1000, 30.0, 4.5, value=99.5)})
    tabulate_costs(ledger=folder / "ledger.json", summary=summary, html=folder / "costs.html")
    cells = Cells()
    cells.feed((folder / "costs.html").read_text(encoding="utf-8"))
    assert cells.loaded == []
    return cells.rows


def test_costs_and_reasons_stand_in_the_table(summary: Callable[..., Path], tmp_path: Path) -> None:
    reasons = {"partial": 7, "not_part_of_cluster": 2}
    head, seed, first, whole = page(tmp_path, summary(row(0), row(1, reasons=reasons)))
    assert head[0] == "iteration"
    assert head[-2:] == ["not part of cluster", "partial"]
    assert seed[:3] == ["0", "0", "0"]
    assert seed[-5:] == ["–", "–", "–", "0", "0"]
    assert first[:4] == ["1", "4,000", "1,000", "2.00"]
    assert first[7:13] == ["2.50", "32.50", "99.50", "0.25", "1.50", "0.1250"]
    assert first[-2:] == whole[-2:] == ["2", "7"]
    assert (whole[0], whole[7], whole[8]) == ("all", "4.50", "34.50")
    assert {len(line) for line in (head, seed, first, whole)} == {len(COLUMNS) + 3}


def test_without_reasons_there_are_no_columns_of_them(summary: Callable[..., Path], tmp_path: Path) -> None:
    assert {len(line) for line in page(tmp_path, summary(row(0), row(1, reasons={})))} == {len(COLUMNS) + 1}


def test_a_missing_ledger_is_named(full: Path, tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"ledger\.json does not exist"):
        tabulate_costs(ledger=tmp_path / "ledger.json", summary=full, html=tmp_path / "costs.html")
