"""What a run cost, iteration by iteration: people, machines, what a mask came to, and why masks were refused."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final

from segloop.files import atomic_file, read_document
from segloop.reporting.summaries import read_run
from segloop.reporting.table_page import table_page

Ledger = dict[str, Any]
Column = tuple[str, Callable[[Ledger], float | None], str]


def _each(name: str) -> Callable[[Ledger], float | None]:
    return lambda row: None if row["per_accepted_mask"] is None else row["per_accepted_mask"][name]


COLUMNS: Final[tuple[Column, ...]] = (
    ("masks collected", lambda row: row["accepted"], ",.0f"),
    ("questions", lambda row: row["people"]["questions"], ",.0f"),
    ("hours of people", lambda row: row["people"]["seconds"] / 3600, ",.2f"),
    ("dollars", lambda row: row["people"]["dollars"], ",.2f"),
    ("hours of a GPU", lambda row: row["machine"]["gpu_hours"], ",.2f"),
    ("hours of a CPU core", lambda row: row["machine"]["cpu_hours"], ",.2f"),
    ("dollars of machines", lambda row: row["machine"]["dollars"], ",.2f"),
    ("dollars in all", lambda row: row["total_dollars"], ",.2f"),
    ("worth in dollars", lambda row: row["value"], ",.2f"),
    ("questions a mask", _each("questions"), ",.2f"),
    ("seconds a mask", _each("seconds"), ",.2f"),
    ("dollars a mask", _each("total_dollars"), ",.4f"),
)

_NOTES: Final = (
    "Dollars: people's time, at annotation.hourly_wage or as the answers say. Machines: the steps of the loop, without "
    "control, upper bound, reports and simulations, at prices.gpu_hour and prices.cpu_hour.",
    "Questions: every answer, whatever it was asked for; masks that were redrawn cost time and are no questions. "
    "Worth: the collected masks at loop.value_per_mask.",
    "Reasons: answers that said why a mask was not accepted.",
    "–: not known, or nothing was collected.",
)


def tabulate_costs(*, ledger: Path, summary: Path, html: Path) -> None:
    """Write the costs of a run as a self-contained HTML page.

    Parameters
    ----------
    ledger, summary
        `results/ledger.json` and `results/summary.json`.

    Raises
    ------
    SegloopError
        If one of them is missing or damaged.
    """
    costs, run = read_document(ledger), read_run(summary)
    reasons = {str(row["iteration"]): row.get("reasons") or {} for row in run.iterations}
    words = sorted({word for found in reasons.values() for word in found})
    rows = [(str(row["iteration"]), row, reasons.get(str(row["iteration"]), {})) for row in costs["iterations"]]
    whole = {word: sum(found.get(word, 0) for found in reasons.values()) for word in words}
    rows.append(("all", costs["total"], whole))
    with atomic_file(html) as temporary:
        temporary.write_text(_page(rows, words), encoding="utf-8")


def _page(rows: list[tuple[str, Ledger, dict[str, int]]], words: list[str]) -> str:
    heads = ["iteration", *(title for title, _, _ in COLUMNS), *(word.replace("_", " ") for word in words)]
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in heads)
    lines = [_line(*row, words) for row in rows]
    return table_page("Costs of this run", "Costs of this run", f"<tr>{head}</tr>", lines, _NOTES)


def _line(name: str, row: Ledger, reasons: dict[str, int], words: list[str]) -> str:
    values = [(read(row), form) for _, read, form in COLUMNS]
    cells = ["–" if value is None else format(value, form) for value, form in values]
    cells += [format(reasons.get(word, 0), ",d") for word in words]
    kind = "" if name.isdigit() else ' class="whole"'
    return f'<tr{kind}><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
