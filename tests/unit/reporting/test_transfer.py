from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segloop.collection.transfer import Transferred
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.reporting.transfer import COLUMNS, tabulate_transfer

from .conftest import row
from .test_table31 import Cells


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Transferred]:
    known: dict[str, Any] = {"predictions": 5000, "good": 1200, "retrieved": 900, "audited": 40, "ap50": None}
    rows = {
        "one": known | {"embedding": "box_head", "collected": 898, "precision": 0.75, "certified": None, "ap": 0.2},
        "two": known | {"embedding": "<b>", "collected": 0, "precision": None, "certified": 0.5, "ap": 0.25},
    }
    monkeypatch.setattr(Transferred, "row", lambda self, truth, config: rows[self.retrieved.name])
    return [Transferred(*[Path(name)] * 5) for name in rows]


def test_each_embedding_stands_beside_the_asked_iterations(
    files: list[Transferred], summary: Callable[..., Path], tmp_path: Path
) -> None:
    asked = row(1, questions=1000, collected=500, precision=0.9, certified=0.875, ap=0.31)
    run = summary(row(0, ap=0.3), asked, control={"1": {"ap": 0.29, "ap50": 0.5}})
    outputs = {"table": tmp_path / "transfer.json", "html": tmp_path / "transfer.html"}
    tabulate_transfer(transferred=files, summary=run, truth_match=None, annotation=AnnotationConfig(), **outputs)
    text = outputs["html"].read_text(encoding="utf-8")
    cells = Cells()
    cells.feed(text)
    assert cells.loaded == []
    assert cells.rows[0][1:] == [heading for _, heading, _ in COLUMNS]
    assert {line[0]: line[1:] for line in cells.rows[1:]} == {
        "seed model": ["–", "–", "–", "–", "30.00", "–"],
        "asked, iteration 1": ["1,000", "500", "90.0", "87.5", "31.00", "–"],
        "control, iteration 1": ["–", "–", "–", "–", "29.00", "50.00"],
        "transfer, box_head": ["40", "898", "75.0", "–", "20.00", "–"],
        "transfer, <b>": ["40", "0", "–", "50.0", "25.00", "–"],
    }
    assert "box_head: 1,200 of 5,000 predictions" in text and "transfer, <b>" not in text
    content = read_json(outputs["table"])
    assert [one["embedding"] for one in content["transfer"]] == ["box_head", "<b>"]
    assert content["asked"][1]["certified"] == 0.875 and content["control"]["1"]["ap"] == 0.29


def test_a_missing_summary_is_named(files: list[Transferred], tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"summary\.json does not exist"):
        tabulate_transfer(
            transferred=files,
            summary=tmp_path / "summary.json",
            truth_match=None,
            annotation=AnnotationConfig(),
            table=tmp_path / "transfer.json",
            html=tmp_path / "transfer.html",
        )
