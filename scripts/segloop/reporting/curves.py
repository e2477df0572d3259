"""Curves over the iterations of a run: what the detector gained and what it cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from segloop.reporting.numbers import write_csv
from segloop.reporting.style import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, new_figure, save, say_missing, style
from segloop.reporting.summaries import RunSummary, percent, read_run

Series = list[tuple[int, float]]


def plot_ap(*, summary: Path, svg: Path, png: Path, table: Path) -> None:
    """Draw AP and AP50 per iteration, with control and upper bound where the run has them.

    Parameters
    ----------
    summary
        `results/summary.json`.
    svg, png, table
        The figure, and CSV of its numbers as shares: iteration (or `upper bound`), ap, ap50, control_ap, control_ap50.

    Raises
    ------
    SegloopError
        If the summary is missing or is not one.
    """
    run = read_run(summary)
    with style():
        figure = new_figure(9.0, 4.3)
        left, right = figure.subplots(1, 2)
        _ap_panel(left, run, "ap", "AP, mask IoU 0.50 to 0.95")
        _ap_panel(right, run, "ap50", "AP50, mask IoU 0.50")
        handles, labels = left.get_legend_handles_labels()
        if len(handles) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        save(figure, svg, png)
    write_csv(table, ("iteration", "ap", "ap50", "control_ap", "control_ap50"), _ap_rows(run))


def _ap_rows(run: RunSummary) -> list[list[object]]:
    rows: list[list[object]] = []
    for row in run.iterations:
        control = run.control.get(int(row["iteration"]), {})
        rows.append([row["iteration"], row.get("ap"), row.get("ap50"), control.get("ap"), control.get("ap50")])
    bound = run.upper_bound
    return rows + ([["upper bound", bound.get("ap"), bound.get("ap50"), None, None]] if bound else [])


def _ap_panel(axes: Axes, run: RunSummary, key: str, title: str) -> None:
    loop = _series(run.iterations, key)
    axes.set_title(title)
    if not loop:
        say_missing(axes, f"No iteration of this run\nhas an {key.upper()}.")
        return
    control = [(number, 100 * row[key]) for number, row in sorted(run.control.items()) if row.get(key) is not None]
    bound = percent((run.upper_bound or {}).get(key))
    if bound is not None:
        axes.axhline(bound, color=GREEN, linestyle=":", label="upper bound (all truth of the pool)")
        _note(axes, axes.get_xlim()[1], bound, f"{bound:.1f}", GREEN)
    if control:
        axes.plot(
            *zip(*control, strict=True), color=ORANGE, linestyle="--", marker="s", label="control (seed set alone)"
        )
    axes.plot(*zip(*loop, strict=True), color=BLUE, marker="o", label="loop (seed set + collected masks)")
    _iteration_axis(axes, [number for number, _ in loop + control])
    axes.set_ylabel("average precision (%)")
    _percent_range(axes, [value for _, value in loop + control] + ([] if bound is None else [bound]))
    _value_labels(axes, loop, control)
    _place_bound_label(axes)


def _series(rows: Sequence[dict[str, Any]], key: str) -> Series:
    return [(int(row["iteration"]), 100.0 * row[key]) for row in rows if row.get(key) is not None]


def _note(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(text, (x, y), (-2, 4), textcoords="offset points", color=colour, ha="right", gid="bound")


def _place_bound_label(axes: Axes) -> None:
    # The right end of the line is known only after the axis has its range.
    for text in axes.texts:
        if text.get_gid() == "bound":
            text.xy = (axes.get_xlim()[1], text.xy[1])  # type: ignore[attr-defined]


def _value_labels(axes: Axes, loop: Series, control: Series) -> None:
    # A value stands on the side where the other curve is not.
    other = dict(control)
    for number, value in loop:
        above = value >= other.get(number, float("-inf"))
        _label_point(axes, number, value, BLUE, above)
    for number, value in control:
        mine = dict(loop).get(number)
        if mine is None or mine != value:
            _label_point(axes, number, value, VERMILLION, mine is None or value > mine)


def _label_point(axes: Axes, x: float, y: float, colour: str, above: bool) -> None:
    offset, anchor = ((0, 8), "bottom") if above else ((0, -8), "top")
    axes.annotate(
        f"{y:.1f}", (x, y), offset, textcoords="offset points", ha="center", va=anchor, color=colour, fontsize=9
    )


def _iteration_axis(axes: Axes, numbers: Sequence[int]) -> None:
    axes.set_xlabel("iteration (0: seed model)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(min(numbers) - 0.4, max(numbers) + 0.4)


def _percent_range(axes: Axes, values: Sequence[float]) -> None:
    # Not from zero: differences of a point matter. But never so narrow that noise fills the panel.
    low, high = min(values), max(values)
    room = max(0.22 * (high - low), 1.0)
    axes.set_ylim(max(low - room, 0.0) if low >= room else min(low, 0.0) - 0.4, high + room)


def plot_questions(*, summary: Path, svg: Path, png: Path, table: Path) -> None:
    """Draw questions asked, masks collected, and masks per question, iteration by iteration.

    Parameters
    ----------
    summary
        `results/summary.json`.
    svg, png, table
        The figure, and CSV of its numbers: iteration, questions, collected, masks_per_question.

    Raises
    ------
    SegloopError
        If the summary is missing or is not one.
    """
    run = read_run(summary)
    asked = [row for row in run.iterations if row.get("questions") is not None]
    with style():
        figure = new_figure(9.0, 4.3)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        left.set_title("Questions asked and masks collected")
        right.set_title("Masks per question")
        if asked:
            _question_bars(left, asked)
            _yield_bars(right, asked)
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        else:
            say_missing(left, "No iteration of this run\nhas asked a question yet.")
            say_missing(right, "No yield without questions.")
        save(figure, svg, png)
    keys = ("iteration", "questions", "collected", "masks_per_question")
    write_csv(table, keys, ([row.get(key) for key in keys] for row in asked))


def _question_bars(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    numbers = [int(row["iteration"]) for row in rows]
    questions = [row["questions"] for row in rows]
    collected = [row.get("collected") or 0 for row in rows]
    digits, size = (3, 9.0) if len(rows) <= 4 else (2, 8.0)
    left = axes.bar([n - 0.2 for n in numbers], questions, 0.38, color=ORANGE, label="questions asked")
    # White hatching tells the two apart on a greyscale print.
    right = axes.bar([n + 0.2 for n in numbers], collected, 0.38, color=BLUE, hatch="///", label="masks collected")
    for bar in right:
        bar.set(edgecolor="white", linewidth=0)
    axes.bar_label(left, [short_count(value, digits) for value in questions], padding=3, fontsize=size)
    axes.bar_label(right, [short_count(value, digits) for value in collected], padding=3, fontsize=size)
    _bar_axis(axes, numbers, "number in the iteration")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_ylim(0, 1.12 * max([*questions, *collected, 1]))


def _yield_bars(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    numbers = [int(row["iteration"]) for row in rows]
    yields = [row.get("masks_per_question") for row in rows]
    highest = max(value or 0 for value in yields)
    bars = axes.bar(numbers, [value or 0 for value in yields], 0.5, color=GREY)
    labels = ["unknown" if value is None else f"{value:.2f}" for value in yields]
    axes.bar_label(bars, labels, padding=3, fontsize=9 if len(rows) <= 4 else 8)
    _bar_axis(axes, numbers, "masks collected per question")
    axes.set_ylim(0, 1.15 * highest if highest else 1.0)
    if highest >= 0.5:  # below that the line would press the bars into the ground
        axes.set_ylim(0, max(1.15 * highest, 1.15))
        axes.axhline(1.0, color=INK, linestyle="--", linewidth=1.0)
        _note_on_line(axes, 1.0, "one question a mask")


def _note_on_line(axes: Axes, y: float, text: str) -> None:
    where = axes.get_yaxis_transform()
    axes.annotate(text, (0, y), (4, 3), xycoords=where, textcoords="offset points", color=INK, fontsize=8.5)


def _bar_axis(axes: Axes, numbers: Sequence[int], label: str) -> None:
    axes.set_xlabel("iteration")
    axes.set_ylabel(label)
    axes.set_xticks(numbers)
    axes.set_xlim(min(numbers) - 0.7, max(numbers) + 0.7)
    axes.tick_params(axis="x", length=0)


def short_count(value: float, digits: int = 3) -> str:
    """Return a count as a person writes it on a bar, with that many digits: 950, 4,213, 82.3k, 1.20M.

    Counts of up to four digits stay exact unless only two digits fit: 4,213 is then 4.2k.
    """
    if value < (9_999.5 if digits > 2 else 999.5):
        return f"{value:,.0f}"
    unit, size = ("M", 1e6) if value >= 999_500 else ("k", 1e3)
    scaled = value / size
    places = max(digits - len(str(int(scaled))), 0)
    return f"{scaled:.{places}f}{unit}"
