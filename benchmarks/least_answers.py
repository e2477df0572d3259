"""How many answers `certified` should have before it may end learning: a share of the pool, tried on simulated worlds.

The share matters to small pools alone. Each is judged by what the policy itself goes by, masks^2.3 / questions, as the
geometric mean over worlds of several levels, sizes and precisions wanted, none of which it is used on.

With --nuclei it prints what shares do to real predictions, which none may be chosen by.

Usage: python benchmarks/least_answers.py [--shares 0.004 0.008 ...] [--seeds 5] [--processes 1] [--nuclei FILE]
"""

import argparse
import itertools
import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import heading, publish
from questions_runs import MOST, configuration
from segloop.annotation.policies import certified
from segloop.simulation.replay import simulate
from segloop.simulation.worlds import world_of_arrays, world_of_file
from simulated_world import simulate as simulated_world

SHARES = (0.003, 0.0045, 0.006, 0.008, 0.0105, 0.014, 0.02)
LEVELS = "CDE"
SIZES = (4000, 8000, 16_000)
PRECISIONS = (0.8, 0.9)
BASE_RATES = (0.25, 0.5)
POWER = 2.3
NUCLEI_GOALS = ((0.8, 0.8), (0.8, 0.9), (0.7, 0.9))
"""IoU above which a mask is good, and precision to be certified."""

World = tuple[str, int, float, int]


def measure(world: World, shares: tuple[float, ...]) -> list[dict[str, Any]]:
    """Run every share and precision on one world."""
    level, n, base_rate, seed = world
    arrays = vars(simulated_world(level, n=n, categories=20, base_rate=base_rate, per_subcluster=60, seed=seed))
    known = world_of_arrays(arrays, arrays["good"], level, seed=seed)
    rows = []
    for share, precision in itertools.product(shares, PRECISIONS):
        certified._LEAST_SHARE = share
        result = simulate(known, configuration("certified", {"audit.precision": precision}), seed)
        rows.append(
            {
                "level": level,
                "n": n,
                "base_rate": base_rate,
                "seed": seed,
                "share": share,
                "precision": precision,
                "masks": result.correct,
                "questions": result.questions,
                "recall": result.correct / result.good,
                "certified": result.certified is not None,
            }
        )
    return rows


def worth(row: dict[str, Any]) -> float:
    """Return the logarithm of what a run is worth."""
    return POWER * math.log(max(row["masks"], 1)) - math.log(row["questions"])


def table(rows: list[dict[str, Any]], shares: tuple[float, ...]) -> list[str]:
    """Return a line a share: worth beside the best one, and what it is made of."""
    places = ("level", "n", "base_rate", "seed", "precision")
    means = {tuple(row[key] for key in places): [] for row in rows}
    for row in rows:
        means[tuple(row[key] for key in places)].append(worth(row))
    centred = {
        share: [
            worth(row) - statistics.mean(means[tuple(row[key] for key in places)])
            for row in rows
            if row["share"] == share
        ]
        for share in shares
    }
    lines = ["| share | worth | standard error | masks a question | recall | certified |", "|---|---|---|---|---|---|"]
    for share in shares:
        own, runs = centred[share], [row for row in rows if row["share"] == share]
        cells = [
            f"{share:g}",
            f"{math.exp(statistics.mean(own)):.3f}",
            f"{statistics.stdev(own) / math.sqrt(len(own)):.3f}",
            f"{statistics.mean(row['masks'] / row['questions'] for row in runs):.2f}",
            f"{statistics.mean(row['recall'] for row in runs):.3f}",
            f"{sum(row['certified'] for row in runs)} of {len(runs)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def on_nuclei(path: Path, place: tuple[float, float, float, int]) -> tuple[float, float, bool]:
    """Return masks per question and recall of one run, and whether it was certified."""
    share, t_iou, precision, seed = place
    certified._LEAST_SHARE = share
    settings = {"audit.precision": precision, "questions": MOST}
    result = simulate(world_of_file(path, t_iou=t_iou), configuration("certified", settings), seed)
    return result.correct / result.questions, result.correct / result.good, result.certified is not None


def nuclei(path: Path, shares: tuple[float, ...], first: int, processes: int) -> list[str]:
    """Return a line a share and goal, as decision 012 has them."""
    lines = []
    with ProcessPoolExecutor(processes) as pool:
        for share, (t_iou, precision) in itertools.product(shares, NUCLEI_GOALS):
            places = [(share, t_iou, precision, seed) for seed in range(first, first + 20)]
            found = list(pool.map(on_nuclei, itertools.repeat(path), places))
            rate, recall = (statistics.mean(one[column] for one in found) for column in (0, 1))
            sure = sum(one[2] for one in found)
            lines.append(f"{share:g}: IoU > {t_iou}, certified {precision}: {rate:.2f} at {recall:.3f}, {sure} of 20")
    return lines


def main() -> None:
    """Measure, print, and write docs/benchmarks/least_answers.{md,json}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--nuclei", type=Path, metavar="FILE", help="print what shares do to these, and no page")
    parser.add_argument("--first", type=int, default=0, help="with --nuclei: the first of 20 seeds")
    options = parser.parse_args()
    shares = tuple(options.shares)
    if options.nuclei is not None:
        print("\n".join(nuclei(options.nuclei, shares, options.first, options.processes)))
        return
    worlds = list(itertools.product(LEVELS, SIZES, BASE_RATES, range(20_000, 20_000 + options.seeds)))
    with ProcessPoolExecutor(options.processes) as pool:
        rows = [row for some in pool.map(measure, worlds, itertools.repeat(shares)) for row in some]
    lines = heading("Least answers", "make bench-least-answers", "numpy", "scipy", "fastcluster")
    lines += [
        "Before so many answers, as a share of the pool, `certified` does not end learning (`_LEAST_SHARE`). Worlds of",
        f"{', '.join(f'{size:,}' for size in SIZES)} masks in 20 categories, levels {', '.join(LEVELS)}, base rates",
        f"{' and '.join(map(str, BASE_RATES))}, {options.seeds} seeds; precision .8 and .9 to be certified. Worth:",
        "masks^2.3 / questions, geometric mean, 1: the mean of all shares on the same world.",
        "",
        *table(rows, shares),
        "",
    ]
    for size in SIZES:
        lines += [f"## {size:,} masks", "", *table([row for row in rows if row["n"] == size], shares), ""]
    publish("least_answers", lines, {"rows": rows})


if __name__ == "__main__":
    main()
