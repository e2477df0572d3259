"""The demo for several seeds, beside a control: what do the collected masks add?

Runs config/demo.yaml with `loop.control` for each seed (data, weights and questions follow
the seed), and writes docs/benchmarks/demo.{md,json}. Intervals are bootstrapped over the validation images.

Usage: python benchmarks/demo.py [--seeds 0 1 2] [--runs runs/bench-demo]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common import PROFILE, REPOSITORY, heading, publish
from segloop.detection.evaluation import bootstrap_ap
from segloop.files import read_json
from segloop.running import run_workflow

RESAMPLES = 1000


def main() -> None:
    """Run, measure, and write table and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "bench-demo")
    options = parser.parse_args()
    runs = [run(seed, options.runs / f"seed_{seed}") for seed in options.seeds]
    mean = mean_of(runs)
    for one in runs:
        one["ap"] = {name: values[0] for name, values in one["ap"].items()}
    record = {"runs": runs, "mean": mean}
    publish("demo", page(record), record)


def run(seed: int, directory: Path) -> dict[str, Any]:
    """Run the loop for one seed and return its rows with bootstrapped average precision."""
    values = yaml.safe_load((REPOSITORY / "config" / "demo.yaml").read_text())
    values["seed"] = seed
    values["loop"]["control"] = True
    directory.mkdir(parents=True, exist_ok=True)
    configfile = directory / "config.yaml"
    configfile.write_text(yaml.safe_dump(values))
    status = run_workflow(profile=PROFILE, configfile=configfile, directory=directory, arguments=[], report=False)
    if status:
        raise SystemExit(f"the run of seed {seed} failed with status {status}")
    summary = read_json(directory / "results" / "summary.json")
    return {"seed": seed, "iterations": summary["iterations"]} | {
        "ap": resampled(directory, len(summary["iterations"]) - 1, values["detector"]["detections_per_image"])
    }


def resampled(directory: Path, last: int, max_detections: int) -> dict[str, list[float]]:
    """Return AP (first) and its resamples for each model, all on the same draws of validation images."""
    folders = {"seed model": "iter_0", **{f"iteration {i}": f"iter_{i}" for i in range(1, last + 1)}}
    folders |= {f"control {i}": f"control/iter_{i}" for i in range(1, last + 1)}
    results = {
        name: read_json(directory / "results" / folder / "validation_results.json") for name, folder in folders.items()
    }
    truth = read_json(directory / "resources" / "seed" / "val.json")
    draws = bootstrap_ap(truth, results, max_detections, resamples=RESAMPLES, seed=0)
    whole = {
        name: read_json(directory / "results" / folder / "evaluation.json")["ap"] for name, folder in folders.items()
    }
    return {name: [whole[name], *np.asarray(draws[name]).tolist()] for name in folders}


def mean_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean AP over seeds with a 95 % interval over validation images, and the gain over two references."""
    names = list(runs[0]["ap"])
    mean = {name: np.mean([one["ap"][name] for one in runs], axis=0) for name in names}
    last = max(name for name in names if name.startswith("iteration"))
    control = max(name for name in names if name.startswith("control"))
    mean[f"{last} minus seed model"] = mean[last] - mean["seed model"]
    mean[f"{last} minus {control}"] = mean[last] - mean[control]
    return [
        {
            "model": name,
            "ap": float(values[0]),
            "interval": [float(value) for value in np.percentile(values[1:], [2.5, 97.5])],
        }
        for name, values in mean.items()
    ]


def page(record: dict[str, Any]) -> list[str]:
    """Return docs/benchmarks/demo.md."""
    lines = heading("The demo: what the collected masks add", "make bench-demo", "torch", "torchvision", "snakemake")
    lines += [
        "AP is COCO's mask AP on the validation scenes, in percent. Each seed generates other scenes, starts from",
        "other weights and draws other questions. Mean over the seeds; the interval is the 2.5th to 97.5th percentile",
        f"of {RESAMPLES} bootstrap resamples of the validation images of each seed, so it holds for these trainings.",
        "",
        "| model | mean AP | interval |" + "".join(f" seed {one['seed']} |" for one in record["runs"]),
        "|---|---|---|" + "---|" * len(record["runs"]),
    ]
    for row in record["mean"]:
        each = [one["ap"].get(row["model"]) for one in record["runs"]]
        cells = "".join(" |" if value is None else f" {100 * value:.1f} |" for value in each)
        low, high = row["interval"]
        sign = "+" if "minus" in row["model"] else ""
        lines.append(
            f"| {row['model']} | {100 * row['ap']:{sign}.1f} | {100 * low:{sign}.1f} to {100 * high:{sign}.1f} |{cells}"
        )
    lines += [
        "",
        "| seed | iteration | predictions | questions | collected | precision | recall |",
        "|" + "---|" * 7,
    ]
    for one in record["runs"]:
        for row in one["iterations"][1:]:
            counts = " | ".join(str(row[key]) for key in ("iteration", "predictions", "questions", "collected"))
            shares = f"{row['precision']:.3f} | {row['recall']:.3f}"
            lines.append(f"| {one['seed']} | {counts} | {shares} |")
    return lines


if __name__ == "__main__":
    main()
