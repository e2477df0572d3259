import csv
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segloop.errors import SegloopError
from segloop.reporting.summaries import read_run
from segloop.reporting.table31 import table_31, table_rows

from .conftest import row


class Cells(HTMLParser):
    """Collect the cells of the table and everything that would load another file."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.loaded: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        self._open = tag in ("td", "th")
        if self._open:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")


def tables(summary: Path, folder: Path) -> tuple[list[dict[str, str]], Cells, str]:
    table_31(summary=summary, csv=folder / "t.csv", html=folder / "t.html")
    with (folder / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    text = (folder / "t.html").read_text(encoding="utf-8")
    cells = Cells()
    cells.feed(text)
    return rows, cells, text


def test_the_run_stands_in_the_table(full: Path, tmp_path: Path) -> None:
    rows, _, _ = tables(full, tmp_path)
    by_name = {line["iteration"]: line for line in rows}
    second = by_name["2"]
    assert (second["questions"], second["collected"], second["collected_total"]) == ("200", "300", "500")
    assert float(second["yield_percent"]) == 150
    assert (float(second["precision_percent"]), float(second["truth_percent"])) == (80, 20)
    assert (float(second["ap_percent"]), float(second["control_ap_percent"])) == (25, 19)
    assert float(by_name["upper bound"]["ap_percent"]) == 35.3


def test_all_iterations_together_weigh_masks_not_iterations(full: Path) -> None:
    together = next(line for line in table_rows(read_run(full)) if line.iteration == "all")
    assert (together.questions, together.collected, together.yield_percent) == (1000, 500, 50)
    assert together.precision_percent == pytest.approx(100 * (200 * 0.9 + 300 * 0.8) / 500)
    assert together.truth_percent == 20  # a share that already counts all iterations


def test_the_thesis_stands_beside_it_where_its_numbers_are_known(full: Path, tmp_path: Path) -> None:
    rows, _, text = tables(full, tmp_path)
    by_name = {line["iteration"]: line for line in rows}
    assert [by_name[str(n)]["thesis_yield_percent"] for n in range(1, 7)] == ["25.6", "7.6", "4.4", "3.1", "2.2", "2.2"]
    assert (by_name["1"]["thesis_questions"], by_name["1"]["thesis_collected"]) == ("82306", "21034")
    assert (by_name["all"]["thesis_questions"], by_name["all"]["thesis_collected"]) == ("237219", "27198")
    assert by_name["2"]["thesis_questions"] == by_name["3"]["thesis_ap_percent"] == ""
    assert (by_name["0"]["thesis_ap_percent"], by_name["upper bound"]["thesis_ap_percent"]) == ("17.08", "19.9")
    assert "17.02" in text


def test_the_thesis_agrees_with_itself(full: Path) -> None:
    by_name = {line.iteration: line for line in table_rows(read_run(full))}
    for name in ("1", "all"):
        line = by_name[name]
        assert line.thesis_questions and line.thesis_collected
        assert line.thesis_yield_percent == round(100 * line.thesis_collected / line.thesis_questions, 1)


def test_the_page_is_whole_and_loads_nothing(full: Path, tmp_path: Path) -> None:
    rows, cells, text = tables(full, tmp_path)
    head, body = cells.rows[1], cells.rows[2:]
    assert {len(line) for line in body} == {len(head)} == {15}
    assert len(body) == len(rows)
    assert body[1][:5] == ["1", "800", "200", "200", "25.0"]
    assert cells.loaded == []
    assert "url(" not in text
    assert "@import" not in text


def test_what_is_unknown_is_a_dash_not_a_zero(summary: Callable[..., Path], tmp_path: Path) -> None:
    rows, cells, _ = tables(summary(row(0), stop_reason=None), tmp_path)
    assert rows[0]["questions"] == rows[0]["ap_percent"] == ""
    assert set(cells.rows[2][1:10]) == {"–"}
    assert len(rows) == 9  # seed, six iterations of the thesis, all, upper bound


def test_a_run_that_has_not_ended_says_how_far_it_is(summary: Callable[..., Path], tmp_path: Path) -> None:
    path = summary(row(0), row(1), stop_reason=None, planned_iterations=6)
    assert "The run has not ended: 1 of 6 iterations are done." in tables(path, tmp_path)[2]
    assert "has not ended" not in tables(summary(row(0), row(1), planned_iterations=6), tmp_path)[2]


def test_what_audits_show_stands_beside_precision(summary: Callable[..., Path], tmp_path: Path) -> None:
    quality = {"mean_iou": 0.875, "interval": [0.8, 0.93], "sq": 0.9, "sq_interval": [0.85, 0.95]}
    run = summary(row(0), row(1, precision=0.94, certified=0.9, quality=quality), row(2, certified=0.91, quality=None))
    rows, cells, text = tables(run, tmp_path)
    first = {
        name: float(rows[1][name]) for name in rows[1] if "iou" in name or name in ("certified_percent", "sq_percent")
    }
    assert first == {
        "certified_percent": 90,
        "mean_iou_percent": 87.5,
        "mean_iou_low_percent": 80,
        "mean_iou_high_percent": 93,
        "sq_percent": 90,
    }
    head, body = cells.rows[1], cells.rows[3]
    place = head.index("precision (%)")
    assert head[place + 1 : place + 4] == ["certified precision (%)", "mean IoU (%)", "SQ (%)"]
    assert body[place : place + 4] == ["94.0", "90.0", "87.5 (80.0 to 93.0)", "90.0"]
    assert cells.rows[4][place : place + 4] == ["–", "91.0", "–", "–"]
    assert f'colspan="{len(head) - 6}"' in text
    # What nobody audited needs no empty columns.
    assert "certified precision (%)" not in tables(summary(row(0), row(1)), tmp_path)[1].rows[1]


def test_an_iteration_of_unknown_precision_leaves_the_whole_unknown(summary: Callable[..., Path]) -> None:
    run = read_run(summary(row(1, collected=5, precision=0.5), row(2, collected=5)))
    assert next(line for line in table_rows(run) if line.iteration == "all").precision_percent is None


def test_a_run_longer_than_the_thesis_keeps_all_its_rows(summary: Callable[..., Path]) -> None:
    run = read_run(summary(*(row(n, collected=n) for n in range(12))))
    assert [line.iteration for line in table_rows(run)] == [*map(str, range(12)), "all", "upper bound"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [("no_new_masks", "collected no new masks"), ("no_better_ap", "AP no longer rose"), ("<b>", "&lt;b&gt;")],
)
def test_the_page_says_why_the_run_ended(reason: str, words: str, summary: Callable[..., Path], tmp_path: Path) -> None:
    assert words in tables(summary(row(0), stop_reason=reason), tmp_path)[2]


def test_the_page_says_what_each_detector_came_to(summary: Callable[..., Path], tmp_path: Path) -> None:
    several = {"plain": {"ap": 0.123, "collected": 1200}, "judging": {"ap": None, "collected": None}}
    page = tables(summary(row(0), row(1, detectors=several)), tmp_path)[2]
    assert "Iteration 1 of each: plain 12.30 %, 1,200 masks collected; judging unknown." in page
    assert "of the first detector" not in tables(summary(row(0), row(1)), tmp_path)[2]


def test_control_of_a_run_stands_in_for_what_iterations_do_not_know(summary: Callable[..., Path]) -> None:
    run = read_run(summary(row(1, control_ap=0.1), row(2), control={"2": {"ap": 0.2, "ap50": 0.3}}))
    assert run.control == {1: {"ap": 0.1}, 2: {"ap": 0.2, "ap50": 0.3}}


def test_a_missing_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"summary\.json does not exist"):
        table_31(summary=tmp_path / "summary.json", csv=tmp_path / "t.csv", html=tmp_path / "t.html")
