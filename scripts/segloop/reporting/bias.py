"""What was collected beside what was predicted and what is there: bias, coverage, and pseudo-labels to truth."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from segloop.errors import SegloopError
from segloop.files import read_document
from segloop.reporting.numbers import write_csv
from segloop.reporting.style import BLUE, GREEN, GREY, INK, ORANGE, new_figure, save, say_missing, style

ADE20K_PER_IMAGE: Final = 18
"""Annotations an image of ADE20K: 450,000 on 25,000 (thesis, section 2)."""
MOST_CATEGORIES: Final = 30

Census = dict[str, Any]


def read_census(path: Path) -> Census:
    """Read census.json.

    Raises
    ------
    SegloopError
        If the file is missing or is not one.
    """
    census = read_document(path)
    if not isinstance(census, dict) or "predicted" not in census:
        raise SegloopError(f"{path} is no census of collected masks. Run `snakemake {path}` again.")
    return dict(census)


def plot_bias(*, census: Path, svg: Path, png: Path, table: Path) -> None:
    """Draw what was collected against what was predicted: by category, size, position and score.

    Parameters
    ----------
    census
        See `segloop.collection.census`.
    svg, png
        The figure.
    table
        CSV of its numbers: panel, name, predicted, collected, truth.

    Raises
    ------
    SegloopError
        If the census is missing or damaged.
    """
    counted = read_census(census)
    with style():
        figure = new_figure(11.0, 9.0)
        axes = figure.subplots(2, 2)
        if counted["collected"]["count"]:
            _category_panel(axes[0, 0], counted)
            _shares_panel(axes[0, 1], counted, "size")
            _position_panel(axes[1, 0], counted)
            _shares_panel(axes[1, 1], counted, "score")
        else:
            for each in axes.flat:
                say_missing(each, "No mask has been collected.")
        save(figure, svg, png)
    write_csv(table, ("panel", "name", "predicted", "collected", "truth"), _rows(counted))


def _rows(census: Census) -> Iterable[Sequence[object]]:
    truth = census["truth"]
    for one in census["categories"]:
        yield "category", one["name"], one["predicted"], one["collected"], one["truth"]
    for panel in ("size", "score"):
        for place, name in enumerate(_ranges(census["edges"][panel])):
            known = truth[panel][place] if truth and panel in truth else None
            yield panel, name, census["predicted"][panel][place], census["collected"][panel][place], known
    for row, line in enumerate(census["collected"]["position"]):
        for column, count in enumerate(line):
            known = truth["position"][row][column] if truth else None
            yield (
                "position",
                f"row {row + 1}, column {column + 1}",
                census["predicted"]["position"][row][column],
                count,
                known,
            )


def _ranges(edges: Sequence[float]) -> list[str]:
    return [f"{low:g} to {high:g}" for low, high in pairwise(edges)]


def _share(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(counts, np.float64)
    return np.asarray(values / max(values.sum(), 1.0), np.float64)


def _category_panel(axes: Axes, census: Census) -> None:
    """Draw the share of each category's predictions that was collected."""
    known = [one for one in census["categories"] if one["predicted"]]
    shown = sorted(known, key=lambda one: -int(one["predicted"]))[:MOST_CATEGORIES]
    mean = census["collected"]["count"] / max(census["predicted"]["count"], 1)
    more = f", the {len(shown)} largest of {len(known)}" if len(shown) < len(known) else ""
    axes.set_title(f"Collected, by category{more}")
    names = [f"{one['name']} ({one['predicted']:,})" for one in shown]
    shares = [100 * one["collected"] / one["predicted"] for one in shown]
    places = np.arange(len(shown))[::-1]
    axes.barh(places, shares, color=BLUE, height=0.7)
    axes.set_yticks(places, names, fontsize=10 if len(shown) < 16 else 7)
    axes.axvline(100 * mean, color=INK, linestyle="--", linewidth=1.2)
    axes.annotate(f"all: {100 * mean:.0f} %", (100 * mean, 1.0), (3, -2), xycoords=("data", "axes fraction"),
                  textcoords="offset points", va="top", fontsize=9)  # fmt: skip
    axes.set_xlabel("collected (% of the predictions, whose number stands in brackets)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


_TITLES: Final = {
    "size": ("By size", "part of the image that a mask covers"),
    "score": ("By score", "score of the detector"),
}


def _shares_panel(axes: Axes, census: Census, panel: str) -> None:
    """Draw how predictions, collected masks and truth are spread over sizes or scores."""
    edges = census["edges"][panel]
    used = [
        place
        for place in range(len(edges) - 1)
        if census["predicted"][panel][place] or census["collected"][panel][place]
    ]
    first, last = (min(used), max(used) + 1) if used else (0, len(edges) - 1)
    places = np.arange(first, last)
    title, label = _TITLES[panel]
    axes.set_title(title)
    kinds = [("predicted", ORANGE, "//"), ("collected", BLUE, "")]
    if census["truth"] and panel in census["truth"]:
        kinds.append(("truth", GREEN, ".."))
    width = 0.8 / len(kinds)
    for number, (kind, colour, hatch) in enumerate(kinds):
        shares = 100 * _share(census[kind][panel])[first:last]
        count = f"{census[kind]['count']:,}"
        axes.bar(places + (number - (len(kinds) - 1) / 2) * width, shares, width, color=colour, hatch=hatch,
                 edgecolor="white", label=f"{kind} ({count})")  # fmt: skip
    axes.set_xticks(np.arange(first, last + 1) - 0.5, [f"{edge:g}" for edge in edges[first : last + 1]], fontsize=8)
    if len(places) > 8:
        axes.tick_params(axis="x", rotation=45)
    axes.set_xlabel(label)
    axes.set_ylabel("share of its kind (%)")
    # Room for the legend above the bars.
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper right")


_PRIOR: Final = 10.0


def _position_panel(axes: Axes, census: Census) -> None:
    """Draw where in the image masks were collected more or less often than predicted."""
    predicted, collected = (np.asarray(census[kind]["position"], np.float64) for kind in ("predicted", "collected"))
    # A few predictions that were collected as often as all others keep cells with hardly any from saying much.
    mean = collected.sum() / max(predicted.sum(), 1.0)
    ratio = (collected + _PRIOR * mean) / (predicted + _PRIOR) / max(mean, 1e-12)
    axes.set_title("By position: collected to predicted")
    picture = axes.imshow(np.log2(ratio), cmap="PuOr_r", norm=TwoSlopeNorm(0, -1.5, 1.5), extent=(0, 100, 100, 0))
    step = 100 / len(ratio)
    for row, line in enumerate(ratio):
        for column, value in enumerate(line):
            colour = "white" if abs(np.log2(value)) > 1 else INK
            axes.text(
                (column + 0.5) * step,
                (row + 0.5) * step,
                f"{value:.1f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color=colour,
            )
    bar = axes.figure.colorbar(picture, ax=axes, ticks=[-1, 0, 1], shrink=0.8)
    bar.ax.set_yticklabels(["half", "as predicted", "twice"])
    axes.set_xlabel("middle of the box (% of the width)")
    axes.set_ylabel("middle of the box (% of the height)")
    axes.grid(visible=False)


def plot_coverage(*, census: Path, svg: Path, png: Path, table: Path) -> None:
    """Draw how many collected masks the images of the pool have, and pseudo-labels to truth by category.

    Parameters
    ----------
    census
        See `segloop.collection.census`.
    svg, png, table
        The figure, and CSV of its numbers: panel, name, value.

    Raises
    ------
    SegloopError
        If the census is missing or damaged.
    """
    counted = read_census(census)
    with style():
        figure = new_figure(11.0, 4.6)
        left, right = figure.subplots(1, 2)
        _coverage_panel(left, counted["images"])
        ratios = _ratio_panel(right, counted)
        save(figure, svg, png)
    having = counted["images"]["with"]
    names = [*map(str, range(len(having) - 1)), f"{len(having) - 1} or more"]
    images = [("images with so many masks", name, count) for name, count in zip(names, having, strict=True)]
    write_csv(table, ("panel", "name", "value"), [*images, *(("collected to truth", *row) for row in ratios)])


def _coverage_panel(axes: Axes, images: dict[str, Any]) -> None:
    having, pool = images["with"], images["pool"]
    axes.set_title("Collected masks an image")
    if not pool:
        say_missing(axes, "The pool has no image.")
        return
    shares = [100 * count / pool for count in having]
    places = np.arange(len(having))
    bars = axes.bar(places, shares, color=[GREY, *[BLUE] * (len(having) - 1)])
    axes.bar_label(bars, [f"{share:.0f}" if share >= 0.5 or share == 0 else "<1" for share in shares], fontsize=8.5)
    axes.set_xticks(places, [*map(str, range(len(having) - 1)), f"{len(having) - 1}+"])
    axes.set_xlabel("collected masks on an image")
    axes.set_ylabel(f"images (% of the pool's {pool:,})")
    covered = images["per_covered_image"]
    lines = [f"an image of the pool has {images['per_image']:.2f} on average", f"ADE20K has {ADE20K_PER_IMAGE}"]
    if covered is not None:
        lines.insert(1, f"an image with any has {covered:.2f}")
    axes.text(0.98, 0.97, "\n".join(lines), transform=axes.transAxes, ha="right", va="top", fontsize=9.5)


def _ratio_panel(axes: Axes, census: Census) -> list[tuple[str, float]]:
    """Draw collected masks to truth, or to the seed set where nobody knows the truth; return what is drawn."""
    kind = "truth" if census["truth"] else "seed"
    known = sorted((one for one in census["categories"] if one[kind]), key=lambda one: -int(one[kind]))
    other = "true masks of the pool" if census["truth"] else "objects of the seed set"
    shown = known[:MOST_CATEGORIES]
    axes.set_title(f"Collected masks to {other}")
    if not shown:
        say_missing(axes, f"There are no {other}.")
        return []
    ratios = [one["collected"] / one[kind] for one in shown]
    places = np.arange(len(shown))[::-1]
    axes.barh(places, ratios, color=BLUE, height=0.7)
    names = [f"{one['name']} ({one[kind]:,})" for one in shown]
    axes.set_yticks(places, names, fontsize=10 if len(shown) < 16 else 7)
    axes.axvline(1.0, color=INK, linestyle="--", linewidth=1.2)
    axes.set_xlabel(f"collected masks for each of the {other} (in brackets)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    return [(str(one["name"]), one["collected"] / one[kind]) for one in known]
