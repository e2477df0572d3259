"""What each iteration brought and cost: average precision by category and by collected masks; masks, time, money."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from segloop.reporting.curves import short_count
from segloop.reporting.numbers import write_csv
from segloop.reporting.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, new_figure, save, say_missing, style
from segloop.reporting.summaries import RunSummary, read_run

MOST_CATEGORIES: Final = 40

Row = dict[str, Any]


def plot_ap_by_masks(*, summary: Path, svg: Path, png: Path, table: Path) -> None:
    """Draw AP against the logarithm of the collected masks, and what each category gained.

    Parameters
    ----------
    summary
        `results/summary.json`.
    svg, png, table
        The figure, and CSV of its numbers: iteration, collected_total, category, ap.

    Raises
    ------
    SegloopError
        If the summary is missing or is not one.
    """
    run = read_run(summary)
    names = _names(run)
    with style():
        figure = new_figure(11.0, max(4.6, 1.6 + 0.2 * min(len(names), MOST_CATEGORIES)))
        left, right = figure.subplots(1, 2)
        _by_masks(left, run)
        _by_category(right, run, names)
        save(figure, svg, png)
    write_csv(table, ("iteration", "collected_total", "category", "ap"), _ap_lines(run, names))


def _names(run: RunSummary) -> list[str]:
    return sorted({name for row in run.iterations for name in row.get("ap_per_category") or {}})


def _ap_lines(run: RunSummary, names: Sequence[str]) -> list[Sequence[object]]:
    lines: list[Sequence[object]] = []
    for row in run.iterations:
        head = (row["iteration"], row.get("collected_total") or 0)
        lines.append((*head, "all", row.get("ap")))
        lines += [(*head, name, (row.get("ap_per_category") or {}).get(name)) for name in names]
    return lines


def _by_masks(axes: Axes, run: RunSummary) -> None:
    axes.set_title("AP against collected masks")
    known = [row for row in run.iterations if row.get("ap") is not None]
    asked = [row for row in known if row.get("collected_total")]
    if not asked:
        say_missing(axes, "No iteration has collected masks.")
        return
    totals = [row["collected_total"] for row in asked]
    axes.semilogx(totals, [100 * row["ap"] for row in asked], color=BLUE, marker="o", label="after an iteration")
    for row in asked:
        axes.annotate(f"{row['iteration']}", (row["collected_total"], 100 * row["ap"]), (6, 5),
                      textcoords="offset points", fontsize=9, color=BLUE)  # fmt: skip
    seed = next((row for row in known if int(row["iteration"]) == 0), None)
    if seed is not None:
        axes.axhline(
            100 * seed["ap"], color=GREY, linestyle="--", linewidth=1.4, label="seed model (no collected mask)"
        )
    axes.set_xlim(min(totals) / 1.6, max(totals) * 1.6)
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.set_xlabel("masks collected so far (logarithmic)")
    axes.set_ylabel("average precision (%)")
    axes.legend(loc="best")


def _tick(value: float) -> str:
    """Return 1, 2 and 5 of each decade as a person writes them; other ticks stay bare."""
    return short_count(value) if f"{value:.0e}"[0] in "125" else ""


def _by_category(axes: Axes, run: RunSummary, names: Sequence[str]) -> None:
    axes.set_title("AP by category")
    first, last = run.iterations[0], run.iterations[-1]
    pairs = [
        (name, (first.get("ap_per_category") or {}).get(name), (last.get("ap_per_category") or {}).get(name))
        for name in names
    ]
    known = [(name, before, after) for name, before, after in pairs if before is not None and after is not None]
    if not known:
        say_missing(axes, "No iteration knows AP by category.")
        return
    known.sort(key=lambda one: one[2] - one[1])
    if len(known) > MOST_CATEGORIES:
        half = MOST_CATEGORIES // 2
        axes.set_title(f"AP by category: the {half} that lost and gained most")
        known = [*known[:half], *known[-half:]]
    places = np.arange(len(known))
    for place, (_, before, after) in zip(places, known, strict=True):
        axes.plot([100 * before, 100 * after], [place, place], color=GREY, linewidth=1.5, zorder=1)
    axes.plot([100 * one[1] for one in known], places, "o", color=ORANGE, markerfacecolor="white", label="seed model")
    axes.plot([100 * one[2] for one in known], places, "D", color=BLUE, label=f"iteration {last['iteration']}")
    axes.set_yticks(places, [one[0] for one in known], fontsize=10 if len(known) < 16 else 7)
    axes.set_xlabel("average precision (%)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.legend(loc="best")


_PANELS: Final = (
    ("collected", "Masks collected", "masks", BLUE, ""),
    ("questions", "Questions", "questions", ORANGE, "//"),
    ("seconds", "People's time", "hours", GREEN, ".."),
    ("dollars", "Price", "dollars, machines included", PURPLE, "xx"),
)


def plot_effort(*, summary: Path, svg: Path, png: Path, table: Path) -> None:
    """Draw masks, questions, hours and dollars of each iteration.

    Parameters
    ----------
    summary
        `results/summary.json`.
    svg, png, table
        The figure, and CSV of its numbers: iteration, collected, questions, seconds, dollars.

    Raises
    ------
    SegloopError
        If the summary is missing or is not one.
    """
    run = read_run(summary)
    asked = [row for row in run.iterations if row.get("questions") is not None]
    with style():
        figure = new_figure(11.0, 3.6)
        for axes, (key, title, unit, colour, hatch) in zip(figure.subplots(1, 4), _PANELS, strict=True):
            axes.set_title(title)
            values = [_amount(row, key) for row in asked]
            if not any(value is not None for value in values):
                say_missing(axes, "not known")
                continue
            _bars(axes, [int(row["iteration"]) for row in asked], values, colour, hatch)
            axes.set_ylabel(unit)
        save(figure, svg, png)
    keys = ("collected", "questions", "seconds", "dollars")
    write_csv(table, ("iteration", *keys), [(row["iteration"], *(_raw(row, key) for key in keys)) for row in asked])


def _raw(row: Row, key: str) -> float | None:
    if key == "dollars":
        parts = [row[name] for name in ("dollars", "machine_dollars") if row.get(name) is not None]
        return sum(parts) if parts else None
    return row.get(key)


def _amount(row: Row, key: str) -> float | None:
    value = _raw(row, key)
    return value / 3600 if key == "seconds" and value is not None else value


def _bars(axes: Axes, numbers: list[int], values: list[float | None], colour: str, hatch: str) -> None:
    heights = [value or 0.0 for value in values]
    bars = axes.bar(numbers, heights, color=colour, hatch=hatch, edgecolor="white", width=0.7)
    digits = 0 if max(heights) >= 100 else 2
    labels = ["–" if value is None else f"{value:,.{0 if float(value).is_integer() else digits}f}" for value in values]
    axes.bar_label(bars, labels, fontsize=8, color=INK)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
    # Room for the labels; of nothing at all too, where an automatic range would go below zero.
    axes.set_ylim(0, 1.12 * max(heights) or 1.0)
