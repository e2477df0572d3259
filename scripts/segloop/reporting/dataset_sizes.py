"""Figure 2-1 of the thesis: how many images data sets have, and how densely they are annotated."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from segloop.data.json_stream import JsonFile
from segloop.files import atomic_file
from segloop.reporting.style import BLUE, GREY, INK, PALE, VERMILLION, new_figure, save, style

Offset = tuple[float, float]


@dataclass(frozen=True)
class DataSet:
    """A point of the figure."""

    name: str
    images: int
    masks: int | None
    """None where the source gives images alone."""
    source: str
    label: Offset = (8, -3)
    """Where its name stands, in points from the marker; to the left of it where the first number is negative. Names of
    one's own sets find a free place by themselves."""


THESIS: Final = (
    DataSet("PASCAL VOC", 10_000, 30_000, "thesis"),
    DataSet("COCO", 163_000, 1_200_000, "thesis", (-8, -12)),
    DataSet("ADE20K", 25_000, 450_000, "thesis", (-8, -4)),
    DataSet("Open Images", 1_000_000, 2_800_000, "thesis"),
    DataSet("Cityscapes", 5_000, None, "thesis"),
    DataSet("Mapillary Vistas", 25_000, None, "thesis"),
    DataSet("BDD", 100_000, None, "thesis"),
)
"""As J. Hu, Clustering for Large-scale Segmentation Dataset Collection, MIT, 2019, gives them."""

LATER: Final = (
    DataSet("LVIS v1", 159_623, 2_000_000, "later", (8, 2)),
    DataSet("SA-1B", 11_000_000, 1_100_000_000, "later", (-8, -4)),
    DataSet("ADE20K 2021", 27_574, 707_868, "later", (8, 2)),
)
"""LVIS: README of its API (images), Gupta et al., CVPR 2019 (masks, rounded). SA-1B: Kirillov et al., ICCV 2023. ADE20K
2021: the index of release 2021_17_01."""

OWN: Final = "own"
_PLACES: Final[tuple[Offset, ...]] = (
    (11, -4), (-11, -4), (0, 13), (0, -21), (11, 12), (-11, 12), (11, -20), (-11, -20), (0, 30), (0, -38), (11, 40),
)  # fmt: skip
"""Where the name of one's own set may stand, in points from the marker; the last one if none is free."""
_LOOKS: Final = {
    "thesis": ("o", INK, "in the thesis"),
    "later": ("s", BLUE, "later"),
    OWN: ("*", VERMILLION, "this run or data set"),
}
_TOTALS: Final = (10**4, 10**5, 10**6, 10**7, 10**8, 10**9)


def plot_dataset_sizes(own: Sequence[DataSet], *, svg: Path, png: Path, table: Path) -> None:
    """Draw images against masks an image on logarithmic axes, and write the numbers.

    Parameters
    ----------
    own
        Points of one's own, in the order in which a line joins them; those without images or masks are left out.
    svg, png
        Where the figure goes.
    table
        A CSV file of name, images, masks, masks an image and source.
    """
    shown = [one for one in own if one.images and one.masks]
    everything = [*THESIS, *LATER, *shown]
    with style():
        figure = new_figure(8.2, 5.8)
        axes = figure.subplots()
        dense = [(one.images, one.masks / one.images) for one in everything if one.masks]
        axes.set(xscale="log", yscale="log")
        left = min(images for images, _ in dense)
        axes.set_xlim(min(2e3, left / 2), 1e8)
        low = min(density for _, density in dense)
        axes.set_ylim(min(0.5, low / 2.5), max(400.0, 2.5 * max(density for _, density in dense)))
        _total_lines(axes)
        for source in _LOOKS:
            _points(axes, [one for one in everything if one.source == source], source)
        _images_alone(axes, [one for one in everything if one.masks is None])
        _decorate(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        _name_own(axes, shown)
        save(figure, svg, png)
    _write_table(table, everything)


def _points(axes: Axes, sets: Sequence[DataSet], source: str) -> None:
    marker, colour, words = _LOOKS[source]
    sets = [one for one in sets if one.masks]
    if not sets:
        return
    x, y = [one.images for one in sets], [(one.masks or 0) / one.images for one in sets]
    own = source == OWN
    axes.plot(
        x, y, marker, color=colour, markersize=15 if own else 8, markeredgecolor="white", markeredgewidth=0.8,
        linestyle="-" if own else "none", linewidth=1.2, label=words, zorder=5 if own else 3,
    )  # fmt: skip
    for one in () if own else sets:
        _name(axes, one, one.label, colour)


def _name(axes: Axes, one: DataSet, offset: Offset, colour: str, weight: str = "normal") -> Annotation:
    side = "right" if offset[0] < 0 else "left" if offset[0] > 0 else "center"
    return axes.annotate(
        one.name, (one.images, (one.masks or 0) / one.images), offset, textcoords="offset points", ha=side,
        color=colour, fontsize=9.5, fontweight=weight, zorder=6,
    )  # fmt: skip


def _name_own(axes: Axes, sets: Sequence[DataSet]) -> None:
    """Name one's own sets where no other name or marker is."""
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    taken: list[Bbox] = []
    for text in list(axes.texts):
        extent = text.get_window_extent()
        if text.get_gid() == "total" and any(extent.overlaps(other) for other in taken):
            # Lines are close where the axis reaches far to the left; every other one is named then.
            text.remove()
        else:
            taken.append(extent)
    marked = [line for line in axes.lines if line.get_marker() != "None"]
    markers = [point for line in marked for point in axes.transData.transform(np.asarray(line.get_xydata()))]
    own = np.array([(one.images, (one.masks or 0) / one.images) for one in sets]).reshape(-1, 2)
    steps = np.linspace(0, 1, 60)
    markers += [a + step * (b - a) for a, b in pairwise(axes.transData.transform(own)) for step in steps]
    for one in (one for one in sets if one.name):
        for offset in _PLACES:
            text = _name(axes, one, offset, _LOOKS[OWN][1], "bold")
            extent = text.get_window_extent()
            inside = axes.bbox.x0 <= extent.x0 and extent.x1 <= axes.bbox.x1
            on_name = any(extent.overlaps(other) for other in taken)
            on_marker = any(extent.padded(5).contains(x, y) for x, y in markers)
            if (inside and not on_name and not on_marker) or offset == _PLACES[-1]:
                taken.append(extent)
                break
            text.remove()


def _images_alone(axes: Axes, sets: Sequence[DataSet]) -> None:
    """Mark sets of which the thesis gives images alone on the lower edge."""
    bottom = axes.get_ylim()[0]
    for one in sets:
        axes.plot([one.images], [bottom], "^", color=INK, markersize=8, fillstyle="none", clip_on=False, zorder=4)
        axes.annotate(
            one.name, (one.images, bottom), (0, 9), textcoords="offset points", rotation=60, ha="left", va="bottom",
            rotation_mode="anchor", fontsize=9, color=INK,
        )  # fmt: skip
    if sets:
        axes.plot([], [], "^", color=INK, markersize=8, fillstyle="none", label="images alone are given")


def _total_lines(axes: Axes) -> None:
    """Draw where the total number of masks is the same, each line named on the upper or the left edge."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in _TOTALS:
        axes.plot([left, right], [total / left, total / right], color=PALE, linewidth=1.0, zorder=1)
        x = max(total / top, left)
        y = total / x
        if bottom < y and x < right:
            at_top = total / top >= left
            offset, turn = ((3, 4), "center") if at_top else ((4, 2), "left")
            axes.annotate(
                f"{_round_count(total)} masks", (x, y), offset, textcoords="offset points", ha=turn,
                va="bottom", color=GREY, fontsize=8, annotation_clip=False, gid="total",
            )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _decorate(axes: Axes) -> None:
    axes.set_xlabel("images")
    axes.set_ylabel("masks an image")
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _round_count(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator())
        axis.set_minor_formatter(NullFormatter())


def _round_count(value: float) -> str:
    """Return a power of ten as a person writes it: 100, 1k, 10M, 1B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _write_table(path: Path, sets: Sequence[DataSet]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("name", "images", "masks", "masks_an_image", "source"))
        for one in sets:
            density = "" if one.masks is None else f"{one.masks / one.images:.4g}"
            table.writerow((one.name, one.images, "" if one.masks is None else one.masks, density, one.source))


def of_run(collected: Sequence[Path]) -> list[DataSet]:
    """Return what a run has collected up to each iteration, as points of the figure.

    Parameters
    ----------
    collected
        `collected.json` of the iterations from 1 on.
    """
    images: set[int] = set()
    masks, points = 0, []
    for number, path in enumerate(collected, start=1):
        with JsonFile(path) as file:
            for member in file.members():
                if member.key == "images":
                    images.add(member.value["id"])
                masks += member.key == "annotations"
        points.append((number, len(images), masks))
    last = len(points)
    return [
        DataSet(f"iteration {number}" if number in (1, last) else "", count, total, OWN)
        for number, count, total in points
    ]
