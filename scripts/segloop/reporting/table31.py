"""This run in the shape of the thesis's Table 3.1, the thesis's numbers beside it.

The numbers are those of J. Hu, "Clustering for Large-scale Segmentation Dataset Collection", MIT, 2019. Where its text
and its table differ, both are given.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from segloop.files import atomic_file
from segloop.reporting.numbers import write_csv
from segloop.reporting.summaries import RunSummary, percent, read_run, total
from segloop.reporting.table_page import table_page


@dataclass(frozen=True)
class Row:
    """One line of the table: percentages are 0 to 100, None is unknown."""

    iteration: str
    questions: float | None = None
    collected: float | None = None
    collected_total: float | None = None
    yield_percent: float | None = None
    precision_percent: float | None = None
    certified_percent: float | None = None
    mean_iou_percent: float | None = None
    mean_iou_low_percent: float | None = None
    mean_iou_high_percent: float | None = None
    sq_percent: float | None = None
    truth_percent: float | None = None
    ap_percent: float | None = None
    ap50_percent: float | None = None
    control_ap_percent: float | None = None
    thesis_questions: int | None = None
    thesis_collected: int | None = None
    thesis_yield_percent: float | None = None
    thesis_truth_percent: float | None = None
    thesis_ap_percent: float | None = None


THESIS: Final[dict[str, dict[str, Any]]] = {
    "0": {"thesis_ap_percent": 17.08},
    "1": {"thesis_questions": 82_306, "thesis_collected": 21_034, "thesis_yield_percent": 25.6},
    "2": {"thesis_yield_percent": 7.6},
    "3": {"thesis_yield_percent": 4.4},
    "4": {"thesis_yield_percent": 3.1},
    "5": {"thesis_yield_percent": 2.2},
    "6": {"thesis_yield_percent": 2.2},
    # 27,198 of 237,219 questions; the share of the truth is that of the half of ADE20K that served as pool.
    "all": {
        "thesis_questions": 237_219,
        "thesis_collected": 27_198,
        "thesis_yield_percent": 11.5,
        "thesis_truth_percent": 27.8,
    },
    "upper bound": {"thesis_ap_percent": 19.90},
}
"""What is known of Table 3.1; cells that are not known stay empty."""

_HEADINGS: Final = {
    "iteration": "iteration",
    "questions": "questions",
    "collected": "masks collected",
    "collected_total": "masks in all",
    "yield_percent": "yield (%)",
    "precision_percent": "precision (%)",
    "certified_percent": "certified precision (%)",
    "mean_iou_percent": "mean IoU (%)",
    "sq_percent": "SQ (%)",
    "truth_percent": "share of truth (%)",
    "ap_percent": "AP (%)",
    "ap50_percent": "AP50 (%)",
    "control_ap_percent": "control AP (%)",
    "thesis_questions": "questions",
    "thesis_collected": "masks collected",
    "thesis_yield_percent": "yield (%)",
    "thesis_truth_percent": "share of truth (%)",
    "thesis_ap_percent": "AP (%)",
}
_DECIMALS: Final = {"ap_percent": 2, "ap50_percent": 2, "control_ap_percent": 2, "thesis_ap_percent": 2}

_WHERE_KNOWN: Final = ("certified_percent", "mean_iou_percent", "sq_percent")
"""Columns of the page that are left out where nothing is known."""
_IN_ANOTHER_CELL: Final = ("mean_iou_low_percent", "mean_iou_high_percent")

_STOPPED: Final = {
    "iterations": "The run ended after the configured number of iterations.",
    "no_new_masks": "The run stopped because the last iteration collected no new masks.",
    "no_better_ap": "The run stopped because AP no longer rose.",
    "cost": "The run stopped because the last iteration cost more than its masks are worth.",
}


def table_31(*, summary: Path, csv: Path, html: Path) -> None:
    """Write the table of a run as CSV (unrounded) and as a self-contained HTML page.

    Parameters
    ----------
    summary
        `results/summary.json`.
    csv, html
        Where the table goes.

    Raises
    ------
    SegloopError
        If the summary is missing or is not one.
    """
    run = read_run(summary)
    rows = table_rows(run)
    names = [column.name for column in fields(Row)]
    write_csv(csv, names, ([getattr(row, name) for name in names] for row in rows))
    with atomic_file(html) as temporary:
        temporary.write_text(_page(run, rows), encoding="utf-8")


def table_rows(run: RunSummary) -> list[Row]:
    """Return the lines: the iterations of the run and of the thesis, all together, and the upper bound."""
    own = {str(row["iteration"]): _iteration(row, run) for row in run.iterations}
    own["all"] = _all_iterations(run.iterations)
    if run.upper_bound is not None:
        own["upper bound"] = _average_precision(run.upper_bound)
    numbers = sorted({int(key) for key in (*own, *THESIS) if key.isdigit()})
    names = [*map(str, numbers), "all", "upper bound"]
    return [Row(name, **own.get(name, {}), **THESIS.get(name, {})) for name in names]


def _iteration(row: dict[str, Any], run: RunSummary) -> dict[str, Any]:
    return {
        "questions": row.get("questions"),
        "collected": row.get("collected"),
        "collected_total": row.get("collected_total"),
        "yield_percent": percent(row.get("masks_per_question")),
        "precision_percent": percent(row.get("precision")),
        "certified_percent": percent(row.get("certified")),
        **_quality(row.get("quality") or {}),
        "truth_percent": percent(row.get("truth_recall")),
        "control_ap_percent": percent(run.control.get(int(row["iteration"]), {}).get("ap")),
        **_average_precision(row),
    }


def _quality(measured: dict[str, Any]) -> dict[str, Any]:
    low, high = measured.get("interval") or (None, None)
    return {
        "mean_iou_percent": percent(measured.get("mean_iou")),
        "mean_iou_low_percent": percent(low),
        "mean_iou_high_percent": percent(high),
        "sq_percent": percent(measured.get("sq")),
    }


def _average_precision(row: dict[str, Any]) -> dict[str, Any]:
    return {"ap_percent": percent(row.get("ap")), "ap50_percent": percent(row.get("ap50"))}


def _all_iterations(rows: list[dict[str, Any]]) -> dict[str, Any]:
    questions, collected = total(rows, "questions"), total(rows, "collected")
    shares = [row["truth_recall"] for row in rows if row.get("truth_recall") is not None]
    return {
        "questions": questions,
        "collected": collected,
        "collected_total": collected,
        "yield_percent": percent(collected / questions) if questions and collected is not None else None,
        "precision_percent": percent(_pooled_precision(rows)),
        "truth_percent": percent(shares[-1]) if shares else None,
    }


def _pooled_precision(rows: list[dict[str, Any]]) -> float | None:
    # The masks of an iteration count by their number; an iteration of unknown precision leaves the whole unknown.
    counted = [(row["collected"], row.get("precision")) for row in rows if row.get("collected")]
    if not counted or any(precision is None for _, precision in counted):
        return None
    return float(sum(n * precision for n, precision in counted) / sum(n for n, _ in counted))


def _columns(rows: list[Row]) -> list[str]:
    """Return the columns of the page."""
    unknown = [name for name in _WHERE_KNOWN if all(getattr(row, name) is None for row in rows)]
    return [column.name for column in fields(Row) if column.name not in (*unknown, *_IN_ANOTHER_CELL)]


def _page(run: RunSummary, rows: list[Row]) -> str:
    names = _columns(rows)
    thesis = sum(name.startswith("thesis_") for name in names)
    titles = "".join(f'<th scope="col" class="{_kind(name)}">{_HEADINGS[name]}</th>' for name in names)
    head = (
        f'<tr><td></td><th scope="colgroup" colspan="{len(names) - thesis - 1}">this run</th>\n'
        f'<th scope="colgroup" colspan="{thesis}" class="thesis first">thesis</th></tr>\n<tr>{titles}</tr>'
    )
    heading = "This run in the shape of the thesis's Table 3.1"
    return table_page("Table 3.1 of this run", heading, head, [_line(row, names) for row in rows], _notes(run))


def _kind(name: str) -> str:
    if name == "iteration":
        return "name"
    if not name.startswith("thesis_"):
        return "own"
    return "thesis first" if name == "thesis_questions" else "thesis"


def _line(row: Row, names: list[str]) -> str:
    cells = "".join(f'<td class="{_kind(name)}">{_cell(row, name)}</td>' for name in names if name != "iteration")
    kind = "" if row.iteration.isdigit() else ' class="whole"'
    label = {"0": "0 (seed model)", "all": "all together"}.get(row.iteration, row.iteration)
    return f'<tr{kind}><th scope="row">{label}</th>{cells}</tr>'


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None:
        return "–"
    places = _DECIMALS.get(name, 1 if name.endswith("_percent") else 0)
    mark = "<sup>*</sup>" if name == "thesis_ap_percent" and row.iteration == "0" else ""
    interval = ""
    if name == "mean_iou_percent" and row.mean_iou_low_percent is not None:
        interval = f" ({row.mean_iou_low_percent:.1f} to {row.mean_iou_high_percent:.1f})"
    return f"{value:,.{places}f}{interval}{mark}"


def _notes(run: RunSummary) -> list[str]:
    notes = [
        "–: not known, or not asked (iteration 0 is the seed model alone).",
        "Yield: masks collected per 100 questions; above 100, one answer decided several masks.",
        "Precision: share of the collected masks that are good by the truth. Share of truth: objects of the pool that "
        "collected masks match one to one. Both need a pool whose truth is known.",
        "Certified precision: what the audit's answers claim at least, whoever knows no truth "
        "(annotation.audit). Mean IoU: of a random sample of the collected masks with what was redrawn, and its 95 % "
        "interval; a mask where nothing is counts with 0. SQ: the mean over those alone whose IoU is above 1/2 "
        "(annotation.audit.redraws).",
        "Control: the same further training steps on the seed set alone. Upper bound: training on the seed set and all "
        "truth of the pool.",
        "Thesis: ADE20K, 100 categories, one half labelled and the other half as pool. Its sum is 27,198 masks for "
        "237,219 questions, which found 27.8 % of the half's objects.",
        "* The thesis's text says AP 17.02 for the seed model, its table 17.08.",
    ]
    if run.iterations and run.iterations[-1].get("detectors"):
        notes.insert(0, _of_detectors(run.iterations[-1]))
    if run.stop_reason:
        notes.insert(0, _STOPPED.get(run.stop_reason, f"The run ended: {run.stop_reason}."))
    elif run.planned is not None and run.iterations:
        last = run.iterations[-1]["iteration"]
        notes.insert(
            0, f"The run has not ended: {last} of {run.planned} iterations are done. All figures are of these."
        )
    return notes


def _of_detectors(last: dict[str, Any]) -> str:
    """Return what each of several detectors came to in the last iteration, in words."""
    found = last["detectors"]
    each = []
    for name, one in found.items():
        words = "unknown" if one["ap"] is None else f"{100 * one['ap']:.2f} %"
        masks = "" if one["collected"] is None else f", {one['collected']:,} masks collected"
        each.append(f"{name} {words}{masks}")
    return f"AP is that of the first detector. Iteration {last['iteration']} of each: {'; '.join(each)}."
