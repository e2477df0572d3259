"""The table of a run for a terminal."""

from typing import Any

COLUMNS = (
    ("iteration", "iteration", "d"),
    ("predictions", "predictions", ",d"),
    ("questions", "questions", ",d"),
    ("collected", "collected", ",d"),
    ("masks_per_question", "per question", ".2f"),
    ("precision", "precision", ".1%"),
    ("certified", "certified", ".1%"),
    ("truth_recall", "of all truth", ".1%"),
    ("ap", "AP", ".1%"),
    ("control_ap", "control AP", ".1%"),
)


def text_table(summary: dict[str, Any]) -> str:
    """Return the rows of `results/summary.json` as aligned text; columns without any value are left out.

    Parameters
    ----------
    summary
        The content of the file.
    """
    rows = summary["iterations"]
    shown = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    cells = [[title for _, title, _ in shown]]
    cells += [[_cell(row.get(key), form) for key, _, form in shown] for row in rows]
    lines = aligned(cells)
    bound = summary.get("upper_bound")
    if bound:
        lines.append(f"upper bound, trained on all truth of the pool: AP {_cell(bound['ap'], '.1%')}")
    planned = summary.get("planned_iterations")
    going = f"not ended; iteration {rows[-1]['iteration'] if rows else 0}" + (f" of {planned}" if planned else "")
    lines.append(f"stopped: {summary['stop_reason']}" if summary["stop_reason"] else going)
    return "\n".join(lines) + "\n"


def aligned(cells: list[list[str]]) -> list[str]:
    """Return rows of cells as lines in which columns stand below each other, each to the right."""
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
