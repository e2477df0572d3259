"""The page and the figure of the clustering benchmark, made from its record alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

import clustering_task
from clustering_data import NOISE, SUBCLUSTERS
from clustering_methods import MEANING, METHODS
from clustering_profile import PRODUCTS, READING
from common import heading
from segloop.reporting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    new_figure,
    save,
    style,
)

COMMAND = "make bench-clustering"
PARTS = ("comparison", "large", "profile", "task")
OWN, TWO_LEVEL = "segloop", "segloop, two-level"
_COLOURS = dict(zip(METHODS, (VERMILLION, BLUE, SKY, GREEN, ORANGE, PURPLE, YELLOW, GREY), strict=True))
_MARKERS = dict(zip(METHODS, "osD^v<>P", strict=True))


# --- the figures that are wanted --------------------------------------------------------------------------------------


def targets(record: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield what is wanted, what was measured, and whether that meets it, as far as it was measured."""
    yield from _speed_targets(record)
    yield from _large_targets(record)
    yield from _task_targets(record)


def _speed_targets(record: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    own = {n: middle(record, OWN, n) for n in (8000, 20_000)}
    if own[8000] is not None:
        seconds = own[8000]["seconds"]
        yield "exact tree, N = 8,000: at most 2.5 s", f"{seconds:.2f} s", seconds <= 2.5
        for method in ("fastcluster, vectors", "scikit-learn, full"):
            other = middle(record, method, 8000)
            if other is not None:
                ratio = other["seconds"] / seconds
                yield f"at least 8 times faster than {method}", f"{ratio:.1f} times", ratio >= 8
    if own[20_000] is not None:
        seconds, squares = own[20_000]["seconds"], own[20_000]["peak_mb"] * 1e6 / 20_000**2
        yield "exact tree, N = 20,000: at most 15 s", f"{seconds:.1f} s", seconds <= 15
        yield "peak above the interpreter: at most 5 N² bytes", f"{squares:.2f} N² bytes", squares <= 5


def _large_targets(record: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    rows = {n: [run for run in _of(record, "large") if run["n"] == n] for n in (100_000, 1_000_000)}
    if rows[1_000_000]:
        slowest = max(run["seconds"] for run in rows[1_000_000])
        peak = max(run["total_mb"] for run in rows[1_000_000])
        tree = max(run["tree_mb"] for run in rows[1_000_000])
        yield "two-level tree, N = 1,000,000: at most 20 minutes", f"{slowest / 60:.1f} minutes", slowest <= 1200
        yield "peak summed over processes, interpreters included: at most 4 GB", f"{peak / 1000:.2f} GB", peak <= 4000
        yield "tree on disk: at most 50 MB", f"{tree:.1f} MB", tree <= 50
    for n, runs in rows.items():
        if len(runs) > 1:
            same = len({run["tree_sha256"] for run in runs}) == 1
            yield f"reruns byte-identical, N = {n:,}", "identical" if same else "they differ", same
    if rows[100_000] and rows[1_000_000]:
        small, large = (min(run["seconds"] for run in rows[n]) for n in (100_000, 1_000_000))
        yield "time from 100,000 to 1,000,000: at most 12 times", f"{large / small:.1f} times", large / small <= 12


def _task_targets(record: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    if "task" not in record:
        return
    for row in clustering_task.compare(record["task"]):
        if row["tree"] not in (clustering_task.EXACT, clustering_task.BY_CATEGORY):
            place = f"level {row['level']}, {row['start']}, {row['tree']}"
            apart = f"good masks a question {_difference(row, 'masks_per_question', '.2f')}, "
            apart += f"precision {_difference(row, 'precision', '.3f')}"
            wanted = f"task loss within the spread of the exact tree's seeds: {place}"
            yield wanted, f"{row['verdict']} ({apart})", row["verdict"] != "below"


# --- reading the record -----------------------------------------------------------------------------------------------


def _of(record: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return [run for run in record["runs"] if run["part"] == part]


def middle(record: dict[str, Any], method: str, n: int) -> dict[str, Any] | None:
    """Return best and median seconds and the median peaks of a method at one size, or None if it has no run."""
    runs = [run for run in _of(record, "comparison") if (run["method"], run["n"]) == (method, n)]
    if not runs:
        return None
    return {
        "best": min(run["seconds"] for run in runs),
        "seconds": float(np.median([run["seconds"] for run in runs])),
        "peak_mb": float(np.median([run["peak_mb"] for run in runs])),
        "runs": len(runs),
    }


def _sizes(record: dict[str, Any]) -> list[int]:
    return sorted({run["n"] for run in _of(record, "comparison")})


# --- the page ---------------------------------------------------------------------------------------------------------


def page(record: dict[str, Any]) -> list[str]:
    """Return docs/benchmarks/clustering.md."""
    lines = heading("Clustering", COMMAND, "numpy", "scipy", "fastcluster", "faiss-cpu", "zarr")
    others = ", ".join(f"{name} {version}" for name, version in record["compared_with"].items())
    lines += [f"Compared with {others}.", "", *_arguments(record)]
    found = list(targets(record))
    if found:
        lines += ["| wanted | measured | met |", "|---|---|---|"]
        lines += [f"| {wanted} | {measured} | {'yes' if met else '**no**'} |" for wanted, measured, met in found]
        lines += ["", "Seconds are medians of the runs; of the large ones the slowest counts.", ""]
    if _of(record, "comparison"):
        lines += _comparison(record)
    if _of(record, "large"):
        lines += _large(record)
    if "profile" in record:
        lines += _profile(record["profile"])
    if "task" in record:
        lines += _task(record["task"])
    return lines


def _arguments(record: dict[str, Any]) -> list[str]:
    """Say which parts were measured with other settings than the defaults."""
    given = {part: record[part]["arguments"] for part in PARTS if record.get(part, {}).get("arguments")}
    return [*(f"Part `{part}` was measured with `{words}`." for part, words in given.items()), *([""] if given else [])]


def _comparison(record: dict[str, Any]) -> list[str]:
    options, sizes = record["comparison"], _sizes(record)
    head = "| method | " + " | ".join(f"{n:,}" for n in sizes) + " |"
    rule = "|---|" + "---|" * len(sizes)
    lines = [
        "## Side by side",
        "",
        "![Time and peak memory against the number of embeddings](clustering.png)",
        "",
        f"The same rows for all: {options['dim']} dimensions, not negative, around {SUBCLUSTERS} centres (scatter "
        f"{NOISE}), float16 in Zarr.",
        f"Every run is a fresh process with {options['threads']} threads that reads the embeddings from Zarr; its",
        "seconds begin after the imports. This project also writes the tree. The methods take",
        f"turns; a run under {options['repeat_below']:.0f} s is repeated up to {options['repeats']} times. A method "
        f"that takes over {options['limit']:.0f} s is",
        "stopped and left out at larger sizes (blank).",
        "",
        "Seconds, median (best):",
        "",
        head,
        rule,
    ]
    lines += [f"| {method} | {' | '.join(_seconds(record, method, n) for n in sizes)} |" for method in METHODS]
    lines += ["", "Peak memory above the interpreter with its imports, MB:", "", head, rule]
    lines += [f"| {method} | {' | '.join(_megabytes(record, method, n) for n in sizes)} |" for method in METHODS]
    lines += ["", "Times as long as this project (medians):", "", head, rule]
    lines += [f"| {m} | {' | '.join(_ratio(record, m, n) for n in sizes)} |" for m in METHODS if m != OWN]
    lines += ["", *(f"- {method}: {meaning}." for method, meaning in MEANING.items()), "", *_agreement(record)]
    stopped = [f"{one['method']} at {one['n']:,}: {one['reason']}" for one in record["stopped"]]
    return [*lines, *([f"Stopped: {'; '.join(stopped)}.", ""] if stopped else [])]


def _seconds(record: dict[str, Any], method: str, n: int) -> str:
    found = middle(record, method, n)
    if found is None:
        return ""
    digits = 2 if found["seconds"] < 10 else 1
    best = f" ({found['best']:.{digits}f})" if found["runs"] > 1 else ""
    return f"{found['seconds']:.{digits}f}{best}"


def _megabytes(record: dict[str, Any], method: str, n: int) -> str:
    found = middle(record, method, n)
    return "" if found is None else f"{found['peak_mb']:.0f}"


def _ratio(record: dict[str, Any], method: str, n: int) -> str:
    found, own = middle(record, method, n), middle(record, OWN, n)
    return "" if found is None or own is None else f"{found['seconds'] / own['seconds']:.1f}"


def _agreement(record: dict[str, Any]) -> list[str]:
    apart: dict[str, float] = {}
    for run in _of(record, "comparison"):
        if run.get("height_difference") is not None:
            apart[run["method"]] = max(apart.get(run["method"], 0.0), run["height_difference"])
    if not apart:
        return []
    each = ", ".join(f"{difference:.1e} ({method})" for method, difference in apart.items())
    return [f"The sorted heights of the merges differ from this project's by at most {each}.", ""]


def _large(record: dict[str, Any]) -> list[str]:
    options = record["large"]
    lines = [
        "## Two-level trees",
        "",
        f"This project alone, one category, so that k-means has to cut: n_exact = m_max = {options['m_max']:,}, "
        f"{options['workers']} link processes,",
        f"{options['threads']} thread each. Peak memory is summed over all processes, interpreters included; pages "
        "that they share are counted once.",
        "",
        "| N | run | minutes | peak MB | embeddings MB | tree MB | partitions | largest | tree's SHA-256 |",
        "|" + "---|" * 9,
    ]
    counts: dict[int, int] = {}
    for run in _of(record, "large"):
        counts[run["n"]] = counts.get(run["n"], 0) + 1
        lines.append(
            f"| {run['n']:,} | {counts[run['n']]} | {run['seconds'] / 60:.2f} | {run['total_mb']:.0f} | "
            f"{run['embeddings_mb']:.0f} | {run['tree_mb']:.2f} | {run['partitions']} | {run['largest']:,} | "
            f"`{run['tree_sha256'][:16]}` |"
        )
    return [*lines, "", "The hash covers the names and bytes of all files of the tree.", ""]


def _profile(part: dict[str, Any]) -> list[str]:
    cases = part["cases"]
    lines = [
        "## Where the time goes",
        "",
        f"One process, {part['threads']} thread; seconds (share). A stage is charged without the other stages that it "
        "calls. The floor is",
        "the bare float32 product of each partition's rows with themselves (upper triangle, one buffer), and reading",
        "the bytes of the shards once, from the page cache.",
        "",
        "| stage | " + " | ".join(f"N = {case['n']:,} ({case['partitions']} parts)" for case in cases) + " |",
        "|---|" + "---|" * len(cases),
    ]
    totals = [sum(case["stages"].values()) for case in cases]
    for stage in cases[0]["stages"]:
        shares = [case["stages"][stage] / total for case, total in zip(cases, totals, strict=True)]
        if max(shares) >= 0.005:
            cells = [f"{case['stages'][stage]:.2f} ({share:.0%})" for case, share in zip(cases, shares, strict=True)]
            lines.append(f"| {stage} | {' | '.join(cells)} |")
    lines.append("| **all stages** | " + " | ".join(f"**{total:.2f}**" for total in totals) + " |")
    for name, key in (("floor: bare products", "product_seconds"), ("floor: reading once", "read_seconds")):
        lines.append(f"| {name} | " + " | ".join(f"{case['floor'][key]:.2f}" for case in cases) + " |")
    above = [total / sum(_floor(case)) for case, total in zip(cases, totals, strict=True)]
    lines.append("| all stages / floor | " + " | ".join(f"{factor:.1f} times" for factor in above) + " |")
    products = [case["stages"][PRODUCTS] / case["floor"]["product_seconds"] for case in cases]
    lines.append("| distances / bare products | " + " | ".join(f"{factor:.1f} times" for factor in products) + " |")
    reading = [case["stages"][READING] / case["floor"]["read_seconds"] for case in cases]
    lines.append("| reading the shards / reading once | " + " | ".join(f"{f:.1f} times" for f in reading) + " |")
    return [*lines, "", "Stages below half a percent everywhere are left out.", ""]


def _floor(case: dict[str, Any]) -> tuple[float, float]:
    return case["floor"]["product_seconds"], case["floor"]["read_seconds"]


def _task(part: dict[str, Any]) -> list[str]:
    policy = clustering_task.policy(clustering_task.STARTS[0])
    lines = [
        "## What partitioning costs the task",
        "",
        f"Simulated worlds of {part['n']:,} predictions in {clustering_task.CATEGORIES} categories "
        f"(`benchmarks/simulated_world.py`), {part['seeds']} seeds of world, k-means and questions; the questions of",
        f"each tree are drawn {part['draws']} times. Policy `{policy.policy}`, n = {policy.n}, t_agr = {policy.t_agr}, "
        "answers from the truth. Mean, and in brackets the spread of single draws over",
        "the seeds (averaged over the draws). The difference is against the exact tree of the same world, with its",
        "standard error over the seeds. Verdict: where the means of masks a question and of precision lie beside the",
        "exact tree's spread; `below` in either is a loss. Node: size of the start node of a random prediction. It",
        "trades masks a question against precision whatever the tree, so compare where nodes are alike.",
        "",
        "| level | start | tree | parts | s | node | good masks a question | difference | precision | difference "
        "| recall | verdict |",
        "|" + "---|" * 12,
    ]
    for row in clustering_task.compare(part):
        few, many = row["partitions"]
        cells = [row["level"], f"`{row['start']}`", row["tree"], f"{few}" if few == many else f"{few} to {many}"]
        cells += [f"{row['seconds']:.1f}", f"{row['node']:.0f}"]
        for metric, form in (("masks_per_question", ".2f"), ("precision", ".3f")):
            cells += [_spread(row[metric], form), _difference(row, metric, form)]
        cells += [_spread(row["recall"], ".3f"), "" if row["tree"] == clustering_task.EXACT else row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _spread(values: dict[str, float], form: str) -> str:
    return f"{values['mean']:{form}} ({values['least']:{form}} to {values['most']:{form}})"


def _difference(row: dict[str, Any], metric: str, form: str) -> str:
    values = row[metric]
    if row["tree"] == clustering_task.EXACT:
        return ""
    error = "" if values["error"] is None else f" ± {values['error']:{form}}"
    return f"{values['difference']:+{form}}{error}"


# --- the figure -------------------------------------------------------------------------------------------------------


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw time and peak memory against N; the names stand beside the lines, ordered as the lines end.

    Nothing is drawn where there are no runs.
    """
    if not record["runs"]:
        return
    with style():
        figure = new_figure(9.5, 8.6)
        upper, lower = figure.subplots(2, 1)
        _panel(upper, record, "seconds", "Time", "seconds")
        _panel(lower, record, "peak_mb", "Peak memory above the interpreter", "MB")
        save(figure, path)


def _panel(axes: Axes, record: dict[str, Any], key: str, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylabel(unit)
    axes.set_xlabel(f"embeddings of {record['runs'][0]['dim']} dimensions")
    axes.grid(True, axis="both")
    lines = [line for method in reversed(METHODS) if (line := _method(axes, record, method, key)) is not None]
    large = _points(_of(record, "large"), key)
    if large:
        drawn = axes.plot(*zip(*large, strict=True), color=VERMILLION, marker="o", mfc="white", lw=3.0, ls="--", ms=7)
        lines += [(large[-1], drawn[0], TWO_LEVEL)]
    _size_axis(axes, sorted({run["n"] for run in record["runs"]}))
    # From top to bottom, as the lines end.
    lines.sort(key=lambda line: -line[0][1])
    axes.legend([handle for _, handle, _ in lines], [name for *_, name in lines], loc="center left", **_BESIDE)


_BESIDE: Any = {"bbox_to_anchor": (1.01, 0.5), "fontsize": 9.5, "handlelength": 2.6, "labelspacing": 0.7}

Point = tuple[int, float]


def _method(axes: Axes, record: dict[str, Any], method: str, key: str) -> tuple[Point, Any, str] | None:
    points = _points([run for run in _of(record, "comparison") if run["method"] == method], key)
    if not points:
        return None
    own = method == OWN
    line = axes.plot(
        *zip(*points, strict=True),
        color=_COLOURS[method],
        marker=_MARKERS[method],
        lw=3.0 if own else 1.6,
        ms=7 if own else 5.5,
        zorder=3 if own else 2,
    )
    return points[-1], line[0], "segloop, exact" if own else method


def _points(runs: list[dict[str, Any]], key: str) -> list[Point]:
    """Return the median at each size."""
    sizes = sorted({run["n"] for run in runs})
    return [(n, float(np.median([run[key] for run in runs if run["n"] == n]))) for n in sizes]


def _size_axis(axes: Axes, sizes: list[int]) -> None:
    # Each next tick at least half as large again, so that the numbers do not touch.
    ticks = [n for place, n in enumerate(sizes) if place == 0 or n >= 1.5 * sizes[place - 1]]
    axes.set_xticks(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _thousands(value: float, _: int) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1000 else f"{value:g}"
