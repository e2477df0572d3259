"""The picture of what clustering can be expected to do, and one line of it for a terminal."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.reporting.curves import short_count
from segloop.reporting.numbers import write_csv
from segloop.reporting.shown import category_names
from segloop.reporting.style import BLUE, GREY, INK, ORANGE, PALE, new_figure, save, say_missing, style

Measured = dict[str, Any]

_CATEGORIES = 10
_NAME = 22
"""Letters of a category's name."""


def plot_separability(*, separability: Path, seed_set: Path, svg: Path, png: Path, table: Path) -> None:
    """Draw categories, partitions, depth of the tree, and how far good masks have good neighbours.

    Parameters
    ----------
    separability
        `separability.json` of an iteration.
    seed_set
        The canonical seed set, for the names of the categories.
    svg, png, table
        The figure, and CSV of its numbers: panel, name, count, good_share, auc.

    Raises
    ------
    SegloopError
        If an input is missing or is of another layout.
    """
    measured, names = read_separability(separability), category_names(seed_set)
    with style():
        figure = new_figure(10.0, 7.6)
        (top_left, top_right), (left, right) = figure.subplots(2, 2)
        _neighbours_panel(top_left, measured)
        _categories_panel(top_right, measured, names)
        _depth_panel(left, measured)
        _partitions_panel(right, measured)
        figure.supxlabel(_left_out(measured), fontsize=9, color=GREY)
        save(figure, svg, png)
    write_csv(table, ("panel", "name", "count", "good_share", "auc"), _rows(measured, names))


def _rows(measured: Measured, names: dict[int, str]) -> Iterator[tuple[object, ...]]:
    """Yield what the panels show; a range of numbers is named by its ends."""
    for bar in measured["by_share"] or []:
        name = f"{100 * bar['mean_share']:.4g} % good among the neighbours"
        yield "neighbours", name, bar["masks"], bar["good"] / bar["masks"], None
    for row in measured["categories"]["of_the_largest"]:
        yield "category", _whole_name(row["category"], names), row["predictions"], row["good_share"], row["auc"]
    depth = measured["tree"]["depth"]
    if depth["max"] is not None:
        width = depth["histogram"]["width"]
        for place, leaves in enumerate(depth["histogram"]["leaves"]):
            yield "merges above a mask", f"{place * width} to {(place + 1) * width - 1}", leaves, None, None
    for place, count in enumerate(measured["partitions"]["histogram"]["count"]):
        yield "predictions in a partition", f"{1 << place} to {(2 << place) - 1}", count, None, None


def read_separability(path: Path) -> Measured:
    """Read `separability.json`.

    Raises
    ------
    SegloopError
        If the file is missing or of another layout.
    """
    content = read_json(path)
    parts = {"predictions", "known", "auc", "by_share", "categories", "partitions", "tree", "how"}
    if not isinstance(content, dict) or not parts <= content.keys() or content.get("schema_version") != 1:
        raise SegloopError(f"{path} is no measurement of separability of this version. Delete it and run again.")
    return content


def separability_line(path: Path) -> str:
    """Return what `separability.json` says, for a person who waits at a terminal.

    Raises
    ------
    SegloopError
        If the file is missing or of another layout.
    """
    measured = read_separability(path)
    counts, depth, sizes = measured["predictions"], measured["tree"]["depth"], measured["partitions"]
    parts = [
        f"{_number(counts['clustered'], 'prediction')} in {_number(measured['categories']['count'], 'category')} and "
        f"{_number(sizes['count'], 'partition')} (largest {sizes['largest']:,})",
        f"{_number(counts['copies'], 'exact copy')} and {counts['without_embedding']:,} without an embedding left out",
        _number(counts["near_duplicates"], "near-duplicate"),
        f"tree {depth['mean']:,.0f} deep on average, {depth['max']:,} at most"
        if depth["max"] is not None
        else "no tree",
        _separation_words(measured),
    ]
    return f"iteration {measured['iteration']}: " + "; ".join(parts)


def _separation_words(measured: Measured) -> str:
    area = measured["auc"]
    if area["neighbours"] is None:
        return f"separability unknown ({area['reason']})"
    words = f"good and bad masks lie apart with kNN-AUC {area['neighbours']:.2f}"
    known = measured["known"]
    scores = f"{_others(area)}{_embeddings(measured)}"
    return f"{words} ({scores}{known['good_share']:.0%} of {known['masks']:,} known masks are good)"


def _others(area: dict[str, Any]) -> str:
    named = {"score": "score alone", "predicted_iou": "predicted IoU alone"}
    return "".join(f"{words} {area[name]:.2f}, " for name, words in named.items() if area.get(name) is not None)


def _embeddings(measured: Measured) -> str:
    found = {name: area for name, area in measured.get("embeddings", {}).items() if area is not None}
    return "".join(f"by {name} {area:.2f}, " for name, area in found.items())


def _number(count: int, what: str) -> str:
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{count:,} {what if count == 1 else plural}"


def _left_out(measured: Measured) -> str:
    counts = measured["predictions"]
    return (
        f"{_number(counts['clustered'], 'prediction')} clustered; left out: "
        f"{counts['repeat_earlier_iterations']:,} that repeat earlier iterations, "
        f"{_number(counts['copies'], 'exact copy')}, {counts['without_embedding']:,} without an embedding.\n"
        f"Kept: {_number(counts['near_duplicates'], 'near-duplicate')} (mask IoU ≥ {counts['near_duplicate_iou']:g})."
        f"{_of_stored(measured)}"
    )


def _of_stored(measured: Measured) -> str:
    words = _embeddings(measured).removesuffix(", ")
    return f"\nkNN-AUC of what is stored: {words}." if words else ""


# --- panels ---


def _neighbours_panel(axes: Axes, measured: Measured) -> None:
    area, bars = measured["auc"], measured["by_share"]
    if area["neighbours"] is None:
        axes.set_title("Do good masks have good neighbours?")
        say_missing(axes, _broken(f"Unknown: {area['reason']}."))
        return
    title = f"kNN-AUC {area['neighbours']:.2f} ± {2 * area['standard_error']:.2f}"
    axes.set_title(f"{title}, score alone {area['score']:.2f}")
    if area.get("predicted_iou") is not None:
        _note(axes, 1, 0, f"predicted IoU alone {area['predicted_iou']:.2f}", ha="right")
    axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1.0)
    x = [100 * bar["mean_share"] for bar in bars]
    y = [100 * bar["good"] / bar["masks"] for bar in bars]
    most = max(bar["masks"] for bar in bars)
    axes.plot(x, y, color=BLUE, linewidth=1.5)
    axes.scatter(x, y, [20 + 200 * bar["masks"] / most for bar in bars], color=BLUE, zorder=3)
    base = 100 * measured["known"]["good_share"]
    axes.axhline(base, color=ORANGE, linestyle=":", linewidth=2.0)
    axes.annotate(f"all known masks: {base:.0f} %", (0, base), (-4, 4), textcoords="offset points", fontsize=9)
    axes.set(xlim=(-4, 104), ylim=(-4, 104))
    axes.set_xlabel(f"good among the {measured['known']['neighbours']} nearest neighbours (%)")
    axes.set_ylabel("good masks (%)")


def _note(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    axes.annotate(text, (x, y), (-4, 5), xycoords="axes fraction", textcoords="offset points", fontsize=9, **how)


def _broken(text: str, width: int = 44) -> str:
    lines = [""]
    for word in text.split():
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < width else [*lines, word]
    return "\n".join(lines)


def _categories_panel(axes: Axes, measured: Measured, names: dict[int, str]) -> None:
    every, rows = measured["categories"]["count"], measured["categories"]["of_the_largest"][:_CATEGORIES]
    axes.set_title("Largest categories" if every > len(rows) else "Categories")
    if not rows:
        say_missing(axes, "No prediction in this iteration.")
        return
    sizes = [row["predictions"] for row in rows]
    goods = [row["predictions"] * (row["good_share"] or 0) for row in rows]
    axes.barh(range(len(rows)), sizes, 0.7, color=PALE)
    bars = axes.barh(range(len(rows)), goods, 0.7, color=BLUE, hatch="///")
    for bar in bars:
        bar.set(edgecolor="white", linewidth=0)
    for place, row in enumerate(rows):
        axes.annotate(
            _category_words(row),
            (row["predictions"], place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(range(len(rows)), [_name(row["category"], names) for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, 1.75 * max(sizes))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_axis_number))
    known = any(row["good_share"] is not None for row in rows)
    axes.set_xlabel(f"predictions of {_number(every, 'category')}" + (" (hatched: good)" if known else ""))


def _category_words(row: dict[str, Any]) -> str:
    words = short_count(row["predictions"])
    if row["good_share"] is not None:
        words += f", {100 * row['good_share']:.0f} % good"
    return words if row["auc"] is None else f"{words}, AUC {row['auc']:.2f}"


def _whole_name(category: int, names: dict[int, str]) -> str:
    return names.get(category, f"category {category}")


def _name(category: int, names: dict[int, str]) -> str:
    name = _whole_name(category, names)
    # Names of one family begin alike and end alike: the middle is left out.
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-(_NAME // 2 - 1) :]}"


def _depth_panel(axes: Axes, measured: Measured) -> None:
    tree, depth = measured["tree"], measured["tree"]["depth"]
    if depth["max"] is None:
        axes.set_title("Depth of the tree")
        say_missing(axes, "No prediction was clustered.")
        return
    axes.set_title(f"Depth: {depth['mean']:,.0f} on average, at most {depth['max']:,}")
    width, leaves = depth["histogram"]["width"], depth["histogram"]["leaves"]
    axes.bar([place * width - 0.5 for place in range(len(leaves))], leaves, width, align="edge", color=BLUE)
    balanced = math.log2(max(tree["leaves"], 1))
    axes.axvline(depth["mean"], ymax=0.8, color=INK, linestyle="--", linewidth=1.2, label="mean")
    axes.axvline(balanced, ymax=0.8, color=ORANGE, linestyle=":", linewidth=2.0, label="balanced tree")
    # Room for the legend above bars and lines.
    axes.set_ylim(0, 1.25 * max(leaves))
    axes.legend(loc="upper right", ncols=2, fontsize=9)
    axes.set_xlim(min(-0.5, balanced - 3), max(depth["max"], balanced) + 1.5)
    axes.set_xlabel(f"merges above a mask ({measured['how']['linkage']} linkage)")
    axes.set_ylabel("masks")
    axes.yaxis.set_major_formatter(FuncFormatter(_axis_number))


def _axis_number(value: float, _: object = None) -> str:
    unit, size = ("M", 1e6) if value >= 1e6 else ("k", 1e3) if value >= 1e4 else ("", 1.0)
    return f"{value / size:,g}{unit}"


def _partitions_panel(axes: Axes, measured: Measured) -> None:
    sizes = measured["partitions"]
    words = "of" if sizes["count"] == 1 else "the largest of"
    axes.set_title(f"{_number(sizes['count'], 'partition')}, {words} {sizes['largest']:,}")
    counts = sizes["histogram"]["count"]
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        say_missing(axes, "No prediction was clustered.")
        return
    shown = range(filled[0], filled[-1] + 1)
    bars = axes.bar(shown, [counts[place] for place in shown], 0.94, align="edge", color=GREY)
    labels = [short_count(counts[place]) if counts[place] else "" for place in shown]
    axes.bar_label(bars, labels, padding=2, fontsize=8.5)
    # A tick stands where a bar begins; every second one, where they are many.
    ticks = range(filled[0], filled[-1] + 2, 1 if len(shown) < 7 else 2)
    axes.set_xticks(ticks, [short_count(1 << place) for place in ticks])
    axes.set_xlim(shown[0] - 0.3, max(shown[-1] + 1, shown[0] + 4) + 0.3)
    axes.set_ylim(0, 1.15 * max(counts))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_axis_number))
    axes.set_xlabel("predictions in a partition (sizes double)")
    axes.set_ylabel("partitions")
