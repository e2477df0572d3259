"""The cost curves of replays: what was gained, and how right it was, against the questions asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from segloop.reporting.style import (
    BLUE,
    GREEN,
    GREY,
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
from segloop.simulation.replay import Result
from segloop.simulation.tables import grouped

Style = Literal["-", "--"]

_MARKERS: Final[dict[Style, str]] = {"-": "osD^vP", "--": "X*<>hp"}
_LOOKS: Final[list[tuple[str, str, Style]]] = [
    (colour, marker, line)
    for line, markers in _MARKERS.items()
    for colour, marker in zip((VERMILLION, BLUE, GREEN, ORANGE, PURPLE, SKY), markers, strict=True)
]
"""Colour, marker and line of each policy in turn; marker and line tell apart what a greyscale print makes alike."""
_GRID: Final = 200

Floats = npt.NDArray[np.float64]


def draw_cost_curves(results: Sequence[Result], *paths: Path) -> None:
    """Draw recall and precision against questions, all policies in one figure.

    Parameters
    ----------
    results
        Replays on one world; of several seeds the mean is drawn, and each seed's end as a mark.
    paths
        Where the figure goes (.svg, .png).
    """
    with style():
        figure = new_figure(10.5, 5.2)
        left, right = figure.subplots(1, 2)
        handles = draw_panel(left, results, "recall")
        draw_panel(right, results, "precision")
        left.set_title(_title(results))
        right.set_title("Precision of what would be accepted")
        if handles:
            handles += marks_explained()
            figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=9)
        save(figure, *paths)


def marks_explained() -> list[Line2D]:
    """Return what the marks at the ends of curves mean, as handles for a legend."""
    words = {
        GREY: "end of a seed, certified or asked one by one",
        "white": "end of a seed, precision known from the truth alone",
    }
    return [
        Line2D([], [], color=GREY, marker="o", mfc=face, mec=GREY, ms=5.5, lw=0, label=label)
        for face, label in words.items()
    ]


def _title(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(one.world for one in results))
    return f"Recall on {names[0]}" if len(names) == 1 else "Recall"


def draw_panel(axes: Axes, results: Sequence[Result], what: str, looks: dict[str, int] | None = None) -> list[Line2D]:
    """Draw one quantity against questions; return one handle a policy for a legend.

    Parameters
    ----------
    what
        `recall` or `precision`.
    looks
        Which look each label takes, so that several panels agree; by default in the order of the results.
    """
    groups = grouped(results)
    asked = {label: group for label, group in groups.items() if any(one.questions for one in group)}
    if not groups:
        say_missing(axes, "No policy was replayed.")
        return []
    looks = {label: place for place, label in enumerate(groups)} if looks is None else looks
    handles = []
    for label, group in groups.items():
        colour, marker, line = _LOOKS[looks[label] % len(_LOOKS)]
        if label in asked:
            _draw_group(axes, group, what, colour, marker, line)
        else:
            _draw_without_questions(axes, group, what, colour, marker)
        handles.append(
            Line2D([], [], color=colour, marker=marker, linestyle=line if label in asked else "", label=label)
        )
    _dress(axes, what)
    return handles


def _draw_group(axes: Axes, group: Sequence[Result], what: str, colour: str, marker: str, line: Style) -> None:
    questions, mean = mean_curve(group, what)
    axes.step(questions, mean, where="post", color=colour, linestyle=line, lw=1.8)
    for one in group:
        value = getattr(one, what)
        if value is not None and one.questions:
            # Filled: certified, or asked one by one; hollow: nobody knows the precision without the truth.
            shown = one.certified is not None or one.answered_throughout
            face = colour if shown else "white"
            axes.plot(one.questions, value, marker=marker, mfc=face, mec=colour, ms=5.5, lw=0, zorder=4)


def _draw_without_questions(axes: Axes, group: Sequence[Result], what: str, colour: str, marker: str) -> None:
    values = [value for one in group if (value := getattr(one, what)) is not None]
    if values:
        height = float(np.mean(values))
        axes.axhline(height, color=colour, linestyle=":", lw=1.2)
        axes.plot(
            0, height, marker=marker, mfc="white", mec=colour, transform=axes.get_yaxis_transform(), clip_on=False
        )


def mean_curve(group: Sequence[Result], what: str) -> tuple[Floats, Floats]:
    """Return questions [P] and the mean over the replays [P] of what would be accepted then; NaN where nothing would.

    A replay that ended earlier goes on as it ended.
    """
    most = max(one.questions for one in group)
    grid = np.unique(np.round(np.geomspace(1, max(most, 2), _GRID)))
    values = np.stack([_at(one, grid, what) for one in group])
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    mean = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
    return grid, np.asarray(mean, np.float64)


def _at(one: Result, grid: Floats, what: str) -> Floats:
    curve = one.curve
    below = one.good if what == "recall" else curve.accepted
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.asarray(curve.correct / below, np.float64)
    place = np.searchsorted(curve.questions, grid, side="right") - 1
    return np.where(place >= 0, values[np.maximum(place, 0)], np.nan)


def _dress(axes: Axes, what: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("questions asked")
    axes.set_ylabel("share of the good masks" if what == "recall" else "good ones among the accepted")
    lowest = min((float(np.nanmin(line.get_ydata(), initial=1.0)) for line in axes.lines), default=0.0)
    axes.set_ylim(0.48 if what == "precision" and lowest >= 0.5 else -0.02, 1.03)
    axes.grid(True, axis="both")
    axes.xaxis.set_major_formatter(FuncFormatter(_count))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(colors=GREY, labelcolor=INK)
    if not np.isfinite(axes.dataLim.minposx):
        # No policy that asks accepted anything: nothing on the axis says how far it goes.
        axes.set_xlim(1, 10)


def _count(value: float, _: int) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1000 else f"{value:g}"
