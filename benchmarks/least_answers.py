"""How many answers `certified` should have before it may end learning: a share of the pool.

The share matters to small pools alone. Shares are judged by what they bring on real predictions that serve for nothing
else: the halves of the nuclei are exchanged (the detector learns from what is otherwise the pool), so that another
detector predicts other images. Beside it: the same shares on simulated worlds, judged by masks^2.3 / questions too;
with --nuclei, on the predictions that the policy is judged by.

Usage: python benchmarks/least_answers.py [--only real simulated] [--data DIR] [--run runs/exchanged]
       [--shares 0.004 0.008 ...] [--seeds 3] [--real-seeds 40] [--processes 1] [--nuclei FILE] [--first 0]
"""

import argparse
import itertools
import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from common import OUTPUT, REPOSITORY, heading, publish, run
from questions_runs import MOST, configuration
from segloop.annotation.policies import certified
from segloop.files import read_json
from segloop.simulation.replay import simulate
from segloop.simulation.worlds import KnownWorld, world_of_arrays, world_of_file, world_of_run
from simulated_world import simulate as simulated_world

SHARES = (0.0, 0.0045, 0.006, 0.0081, 0.0105, 0.014)
LEVELS = "CDE"
SIZES = (4000, 8000, 16_000)
PRECISIONS = (0.8, 0.9)
BASE_RATES = (0.25, 0.5)
POWER = 2.3
STEPS = 900
"""Of the exchanged training."""
REACHED = ("truth_match.parquet", "tree.zarr", "reduced.zarr")
GOALS = ((0.8, 0.8), (0.8, 0.9), (0.7, 0.9))
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
    means: dict[tuple[Any, ...], list[float]] = {tuple(row[key] for key in places): [] for row in rows}
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


# --- real predictions -------------------------------------------------------------------------------------------------


def exchanged_run(data: Path, directory: Path) -> None:
    """Train on the second half of the nuclei, predict the first, and match with its truth; once."""
    values = yaml.safe_load((REPOSITORY / "config" / "nuclei.yaml").read_text())
    values["seed"], values["data_root"] = 1, str(data.absolute())
    values["seed_set"]["annotations"] = "splitB.json"
    values["pool"]["list"] = values["pool"]["truth"]["annotations"] = "splitA.json"
    values["training"]["steps"] = STEPS
    values["training"]["threads"] = values["prediction"]["threads"] = 1
    run(values, directory, [f"results/iter_1/{name}" for name in REACHED])


@lru_cache(maxsize=1)
def real_world(source: Path, t_iou: float) -> KnownWorld:
    """Read a file of predictions or a run."""
    if source.is_file():
        return world_of_file(source, t_iou=t_iou)
    return world_of_run(source, 1, t_iou=t_iou, matching="any")


def on_real(source: Path, place: tuple[float, float, float, int]) -> dict[str, Any]:
    """Return what one run brings."""
    share, t_iou, precision, seed = place
    certified._LEAST_SHARE = share
    settings = {"audit.precision": precision, "questions": MOST}
    result = simulate(real_world(source, t_iou), configuration("certified", settings), seed)
    return {
        "share": share,
        "t_iou": t_iou,
        "precision": precision,
        "seed": seed,
        "n": result.n,
        "masks_per_question": result.correct / result.questions,
        "recall": result.correct / result.good,
        "certified": result.certified is not None,
    }


def measure_real(source: Path, shares: tuple[float, ...], seeds: range, processes: int) -> list[dict[str, Any]]:
    """Run every share, goal and seed."""
    places = [(share, *goal, seed) for goal in GOALS for share in shares for seed in seeds]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(on_real, itertools.repeat(source), places))


def mean_and_error(values: list[float], digits: int) -> str:
    """Return the mean and its standard error in words."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def real_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line a share: masks per question at recall for each goal, and their geometric mean."""
    heads = [f"IoU > {t_iou}, certified {precision}" for t_iou, precision in GOALS]
    lines = [f"| share | {' | '.join(heads)} | mean | certified |", f"|{'---|' * (len(heads) + 3)}"]
    for share in sorted({row["share"] for row in rows}):
        own = [row for row in rows if row["share"] == share]
        cells, rates = [], []
        for goal in GOALS:
            runs = [row for row in own if (row["t_iou"], row["precision"]) == goal]
            rate, recall = ([row[key] for row in runs] for key in ("masks_per_question", "recall"))
            rates.append(statistics.mean(rate))
            cells.append(f"{mean_and_error(rate, 2)} at {mean_and_error(recall, 3)}")
        mean = statistics.geometric_mean(rates)
        sure = f"{sum(row['certified'] for row in own)} of {len(own)}"
        lines.append(f"| {share:g} | {' | '.join(cells)} | {mean:.2f} | {sure} |")
    return lines


def main() -> None:
    """Measure, print, and write docs/benchmarks/least_answers.{md,json}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=("real", "simulated"), default=["real", "simulated"])
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with splitA.json, splitB.json, val.json, images/"
    )
    parser.add_argument("--run", type=Path, default=REPOSITORY / "runs" / "exchanged", help="where their run is made")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--seeds", type=int, default=3, help="simulated worlds of a kind")
    parser.add_argument("--real-seeds", type=int, default=40)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--nuclei", type=Path, metavar="FILE", help="print what shares do to these, and no page")
    parser.add_argument("--first", type=int, default=0, help="with --nuclei: the first of 20 seeds")
    options = parser.parse_args()
    shares = tuple(options.shares)
    if options.nuclei is not None:
        seeds = range(options.first, options.first + 20)
        print("\n".join(real_table(measure_real(options.nuclei, shares, seeds, options.processes))))
        return
    path = OUTPUT / "least_answers.json"
    before = read_json(path) if path.exists() else {}
    record = {key: before[key] for key in ("real", "rows") if key in before}
    if "real" in options.only:
        if not all((options.run / "results" / "iter_1" / name).exists() for name in REACHED):
            if options.data is None:
                raise SystemExit(f"{options.run} holds no run yet: give --data (see benchmarks/least_answers.py)")
            exchanged_run(options.data, options.run)
        record["real"] = measure_real(options.run.absolute(), shares, range(options.real_seeds), options.processes)
    if "simulated" in options.only:
        worlds = list(itertools.product(LEVELS, SIZES, BASE_RATES, range(20_000, 20_000 + options.seeds)))
        with ProcessPoolExecutor(options.processes) as pool:
            record["rows"] = [row for some in pool.map(measure, worlds, itertools.repeat(shares)) for row in some]
    publish("least_answers", page(record), record)


def page(record: dict[str, Any]) -> list[str]:
    """Return docs/benchmarks/least_answers.md from what was measured."""
    lines = heading("Least answers", "make bench-least-answers DATA=DIR", "numpy", "scipy", "torch", "fastcluster")
    lines += ["Before so many answers, as a share of the pool, `certified` does not end learning (`_LEAST_SHARE`).", ""]
    if real := record.get("real"):
        seeds = len({row["seed"] for row in real})
        lines += [
            "## Real predictions that serve for nothing else",
            "",
            f"{real[0]['n']:,} predictions on splitA of the nuclei, by a detector that was trained on splitB "
            f"(`config/nuclei.yaml` with the halves exchanged, seed 1, {STEPS} steps).",
            f"Masks per question at recall over {seeds} seeds (mean ± its standard error), at most {MOST} questions.",
            "The last mean is the geometric one of the three. The policy's own share and why: decision 012.",
            "",
            *real_table(real),
            "",
        ]
    if rows := record.get("rows"):
        lines += simulated_part(rows)
    return lines


def simulated_part(rows: list[dict[str, Any]]) -> list[str]:
    """Return the tables of the simulated worlds."""
    shares = tuple(sorted({row["share"] for row in rows}))
    seeds = len({row["seed"] for row in rows})
    lines = [
        "## Simulated worlds",
        "",
        f"Worlds of {', '.join(f'{size:,}' for size in SIZES)} masks in 20 categories, levels {', '.join(LEVELS)},",
        f"base rates {' and '.join(map(str, BASE_RATES))}, {seeds} seeds; precision .8 and .9 to be certified. Worth:",
        "masks^2.3 / questions, geometric mean, 1: the mean of all shares on the same world. Measured with",
        f"`--only simulated --shares {' '.join(f'{share:g}' for share in shares)} --seeds {seeds}`.",
        "",
        *table(rows, shares),
        "",
    ]
    for size in SIZES:
        lines += [f"### {size:,} masks", "", *table([row for row in rows if row["n"] == size], shares), ""]
    return lines


if __name__ == "__main__":
    main()
