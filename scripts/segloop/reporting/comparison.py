"""Finished runs side by side: what each asked, collected, cost and learned."""

import base64
from dataclasses import dataclass
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from segloop.config import read_values
from segloop.errors import SegloopError
from segloop.files import atomic_file
from segloop.reporting.numbers import write_csv
from segloop.reporting.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    new_figure,
    save,
    say_missing,
    style,
)
from segloop.reporting.summaries import RunSummary, read_run, total
from segloop.reporting.table_page import table_page

_COLOURS: Final = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, INK)
_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")

Cell = float | str | None


@dataclass(frozen=True)
class ComparedRun:
    """A run, its summary, and what of its configuration runs are compared by."""

    name: str
    summary: RunSummary
    policy: str
    embedding: str
    detector: str


HEADS: Final = (
    "run", "policy", "embedding", "detector", "iterations", "questions", "masks", "masks a question", "precision",
    "claimed", "of all truth", "AP of the seed model", "AP", "hours of people", "dollars",
)  # fmt: skip


def read_runs(directories: list[Path]) -> list[ComparedRun]:
    """Read the summaries of runs.

    Raises
    ------
    SegloopError
        If a directory holds no finished run, or two have the same name and path.
    """
    if len({path.resolve() for path in directories}) < len(directories):
        raise SegloopError("a run is named twice. Name different run directories.")
    names = [path.resolve().name for path in directories]
    # Runs of several projects are often called the same.
    unique = [name if names.count(name) == 1 else str(path) for name, path in zip(names, directories, strict=True)]
    return [_read(path, name) for path, name in zip(directories, unique, strict=True)]


def _read(directory: Path, name: str) -> ComparedRun:
    summary = read_run(directory / "results" / "summary.json")
    path = directory / "results" / "config.yaml"
    config: dict[str, Any] = read_values(path) if path.exists() else {}
    annotation, clustering, detector = (config.get(part) or {} for part in ("annotation", "clustering", "detector"))
    return ComparedRun(
        name,
        summary,
        str(annotation.get("policy", "–")),
        str(clustering.get("embedding", "–")),
        f"{detector.get('backend', '–')}, {detector.get('architecture', '–')}",
    )


def rows_of(runs: list[ComparedRun]) -> list[list[Cell]]:
    """Return a row a run, in the columns of `HEADS`; None where a run does not know."""
    return [_row(run) for run in runs]


def _row(run: ComparedRun) -> list[Cell]:
    iterations = run.summary.iterations
    asked = [row for row in iterations if row.get("questions") is not None]
    questions, masks = total(asked, "questions"), total(asked, "collected")
    last = asked[-1] if asked else {}
    spent = [total(iterations, key) for key in ("dollars", "machine_dollars")]
    seconds = total(asked, "seconds")
    return [
        run.name,
        run.policy,
        run.embedding,
        run.detector,
        len(asked),
        questions,
        masks,
        masks / questions if questions and masks is not None else None,
        _mean_precision(asked),
        last.get("certified"),
        last.get("truth_recall"),
        _percent(iterations[0].get("ap")) if iterations else None,
        _percent(iterations[-1].get("ap")) if iterations else None,
        None if seconds is None else seconds / 3600,
        None if all(part is None for part in spent) else sum(part or 0.0 for part in spent),
    ]


def _mean_precision(asked: list[dict[str, Any]]) -> float | None:
    """Return the precision of all collected masks, where every iteration knows its own."""
    known = [(row["precision"], row["collected"]) for row in asked if row.get("collected")]
    if not known or any(precision is None for precision, _ in known):
        return None
    return float(sum(precision * count for precision, count in known) / sum(count for _, count in known))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


_DIGITS: Final = {"masks a question": 2, "precision": 3, "claimed": 3, "of all truth": 3, "AP of the seed model": 1,
                  "AP": 1, "hours of people": 2, "dollars": 2}  # fmt: skip


def shown(head: str, value: Cell) -> str:
    """Return a cell as people read it."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:,.{_DIGITS.get(head, 0)}f}"


_NOTES: Final = (
    "Precision: of all collected masks, where the truth of the pool is known. Claimed: what audits showed of the last "
    "iteration's masks. AP: in percent, after the last iteration.",
    "Runs on other pools, seed sets or validation sets cannot be compared by these numbers.",
)


def write_comparison(runs: list[ComparedRun], folder: Path) -> None:
    """Write comparison.{html,svg,png,csv} into a folder; the page needs nothing but itself."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(runs)
    write_csv(folder / "comparison.csv", HEADS, rows)
    with style():
        figure = new_figure(11.0, 4.8)
        left, right = figure.subplots(1, 2)
        drawn = _curves(left, runs, "ap", "Average precision by questions", "average precision (%)", 100.0)
        _curves(right, runs, "collected_total", "Collected masks by questions", "masks collected", 1.0)
        if drawn:
            # Named one by one: a label that begins with _ is none to matplotlib, a run of that name is a run.
            names = list(drawn)
            figure.legend(list(drawn.values()), names, loc="outside lower center", ncols=min(len(names), 4))
        save(figure, folder / "comparison.svg", folder / "comparison.png")
    picture = base64.b64encode((folder / "comparison.png").read_bytes()).decode("ascii")
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in HEADS)
    lines = [
        f'<tr><th scope="row">{escape(shown(HEADS[0], row[0]))}</th>'
        + "".join(f"<td>{escape(shown(title, value))}</td>" for title, value in zip(HEADS[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    ]
    page = table_page("Runs side by side", "Runs side by side", f"<tr>{head}</tr>", lines, _NOTES)
    alt = "Average precision and collected masks by questions"
    image = f'<p><img alt="{alt}" src="data:image/png;base64,{picture}" style="max-width:100%"></p>'
    with atomic_file(folder / "comparison.html") as temporary:
        temporary.write_text(page.replace("</body>", f"{image}\n</body>"), encoding="utf-8")


def _curves(axes: Axes, runs: list[ComparedRun], key: str, title: str, label: str, scale: float) -> dict[str, Line2D]:
    """Draw a line a run and return those that have one, by name."""
    axes.set_title(title)
    drawn: dict[str, Line2D] = {}
    for run, colour, mark in zip(runs, cycle(_COLOURS), cycle(_MARKS), strict=False):
        questions, points = 0.0, []
        for row in run.summary.iterations:
            questions += row.get("questions") or 0
            value = row.get(key) if row.get(key) is not None or key == "ap" else 0
            if value is not None:
                points.append((questions, scale * value))
        if points:
            (drawn[run.name],) = axes.plot(*zip(*points, strict=True), color=colour, marker=mark)
    if not drawn:
        say_missing(axes, "No run knows it.")
        return drawn
    axes.set_xlabel("questions so far, audits and gold included")
    axes.set_ylabel(label)
    return drawn
