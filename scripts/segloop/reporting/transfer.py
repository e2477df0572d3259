"""What was collected unasked from another labelled set, beside the iterations that asked."""

from html import escape
from pathlib import Path
from typing import Any, Final

from segloop.collection.transfer import Transferred
from segloop.config import AnnotationConfig
from segloop.files import atomic_file, write_json
from segloop.reporting.summaries import RunSummary, percent, read_run
from segloop.reporting.table_page import table_page

Row = dict[str, Any]

TRANSFER_SCHEMA: Final = 1

COLUMNS: Final = (
    ("questions", "questions", 0),
    ("collected", "masks collected", 0),
    ("precision", "precision (%)", 1),
    ("certified", "certified precision (%)", 1),
    ("ap", "AP (%)", 2),
    ("ap50", "AP50 (%)", 2),
)
"""Key, heading and decimals; shares are given in per cent."""

_NOTES: Final = (
    "Transfer: predictions of the seed model on another labelled set whose IoU with a mask of that set is high; their "
    "nearest neighbours in the pool, each with its own predicted category, were collected unasked, and a model was "
    "trained on them as iteration 1 trains on what was asked. Its questions are those of the audit alone, which decide "
    "nothing but what they show to be bad.",
    "The higher AP is, the better an embedding tells what a mask is worth: the thesis proposes it as the measure of an "
    "embedding. One training is one draw; differences of a point may be chance.",
    "Precision: by the pool's truth, where it is known. Certified precision: what the answers claim at least.",
    "–: not known, or nobody was asked.",
)


def tabulate_transfer(
    *,
    transferred: list[Transferred],
    summary: Path,
    truth_match: Path | None,
    annotation: AnnotationConfig,
    table: Path,
    html: Path,
) -> None:
    """Write what each embedding came to beside the asked iterations, as JSON and as a self-contained HTML page.

    Parameters
    ----------
    transferred
        The files of each embedding.
    summary
        `results/summary.json`.
    truth_match
        Of the pool in the iteration whose predictions were retrieved; None where the truth is not known.
    table
        {"schema_version", "transfer": [a row each], "asked": [{"iteration", "questions", "collected", "precision",
        "certified", "ap", "ap50"}], "control": {"1": {"ap", "ap50"}, ...}}.

    Raises
    ------
    SegloopError
        If an input is missing or damaged.
    """
    run = read_run(summary)
    rows = [one.row(truth_match, annotation) for one in transferred]
    names = ("iteration", *(key for key, _, _ in COLUMNS))
    asked = [{name: row.get(name) for name in names} for row in run.iterations]
    control = {str(number): known for number, known in run.control.items()}
    content = {"schema_version": TRANSFER_SCHEMA, "transfer": rows, "asked": asked, "control": control}
    write_json(table, content)
    with atomic_file(html) as temporary:
        temporary.write_text(_page(rows, asked, run), encoding="utf-8")


def _page(transfer: list[Row], asked: list[Row], run: RunSummary) -> str:
    lines = [
        _line("seed model" if row["iteration"] == 0 else f"asked, iteration {row['iteration']}", row) for row in asked
    ]
    lines += [_line(f"control, iteration {number}", row) for number, row in sorted(run.control.items())]
    lines += [_line(f"transfer, {row['embedding']}", row | {"questions": row["audited"]}, "whole") for row in transfer]
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for _, heading, _ in COLUMNS)
    counts = [
        f"{row['embedding']}: {row['good']:,d} of {row['predictions']:,d} predictions on the labelled set are good; "
        f"they retrieved {row['retrieved']:,d} masks of the pool."
        for row in transfer
    ]
    heading = "Transfer at no cost, beside the iterations that asked"
    return table_page("Transfer at no cost", heading, f"<tr><td></td>{heads}</tr>", lines, (*counts, *_NOTES))


def _line(label: str, row: Row, kind: str = "") -> str:
    cells = "".join(f"<td>{_cell(row.get(key), heading, places)}</td>" for key, heading, places in COLUMNS)
    mark = f' class="{kind}"' if kind else ""
    return f'<tr{mark}><th scope="row">{escape(label)}</th>{cells}</tr>'


def _cell(value: float | None, heading: str, places: int) -> str:
    shown = percent(value) if "%" in heading else value
    return "–" if shown is None else f"{shown:,.{places}f}"
