"""The loop on real nuclei: one iteration with `per_mask`, and the thesis's policy on the same predictions.

Runs config/nuclei.yaml as it stands (`per_mask`), then asks the questions of `thesis` over the same tree, index and
truth for several seeds and settings; nothing is retrained for that. Writes docs/benchmarks/nuclei.{md,json}.

Usage: python benchmarks/nuclei.py --data DIR [--run runs/nuclei] [--seeds 20]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from common import REPOSITORY, heading, publish, run
from segloop.annotation.driver import annotate_oracle
from segloop.annotation.oracle import good, read_truth_match
from segloop.annotation.verdicts import read_verdicts
from segloop.config import AnnotationConfig
from segloop.files import read_json

THESIS = [(5, 0.8), (8, 1.0), (10, 0.9)]


def main() -> None:
    """Run, ask, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with splitA.json, splitB.json, val.json, images/"
    )
    parser.add_argument("--run", type=Path, default=REPOSITORY / "runs" / "nuclei")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    seconds = run_loop(options.data, options.run)
    rows = read_json(options.run / "results" / "summary.json")["iterations"]
    policies = [per_mask(rows[1]), *(thesis(options.run, n, t_agr, options.seeds) for n, t_agr in THESIS)]
    record = {"seconds": seconds, "iterations": rows, "steps": steps(options.run), "policies": policies}
    publish("nuclei", page(record, options.seeds), record)


def run_loop(data: Path, directory: Path) -> float:
    """Run the loop and return its seconds (about none where it is finished)."""
    values = yaml.safe_load((REPOSITORY / "config" / "nuclei.yaml").read_text())
    values["data_root"] = str(data.absolute())
    begin = time.monotonic()
    run(values, directory, report=True)
    return time.monotonic() - begin


def steps(directory: Path) -> dict[str, dict[str, float]]:
    """Return seconds and peak memory (MB) of each rule, the jobs of a rule added up (memory: the largest)."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted((directory / "benchmarks").rglob("*.tsv")):
        rule = path.relative_to(directory / "benchmarks").parts[0].removesuffix(".tsv")
        head, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
        row = dict(zip(head, values, strict=True))
        one = found.setdefault(rule, {"seconds": 0.0, "peak_mb": 0.0})
        one["seconds"] += float(row["s"])
        one["peak_mb"] = max(one["peak_mb"], float(row["max_rss"]) if row["max_rss"] not in ("-", "NA") else 0.0)
    return found


def per_mask(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the policy that the run itself used."""
    keys = ("questions", "masks_per_question", "precision", "recall")
    return {"policy": "per_mask, every mask", "runs": [{key: row[key] for key in keys}]}


def thesis(directory: Path, n: int, t_agr: float, seeds: int) -> dict[str, Any]:
    """Ask the thesis's questions for several seeds."""
    config = AnnotationConfig(annotator="oracle", policy="thesis", n=n, t_agr=t_agr)
    folder = directory / "results" / "iter_1"
    truth = good(read_truth_match(folder / "truth_match.parquet"), config.t_iou, config.matching)
    runs = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as temporary:
            answers, verdicts = Path(temporary) / "answers.parquet", Path(temporary) / "verdicts.parquet"
            annotate_oracle(
                tree=folder / "tree.zarr",
                index=folder / "index.zarr",
                reduced=folder / "reduced.zarr",
                truth_match=folder / "truth_match.parquet",
                answers=answers,
                verdicts=verdicts,
                certificates=verdicts.with_name("certificates.json"),
                annotators=verdicts.with_name("annotators.json"),
                config=config,
                iteration=1,
                seed=seed,
            )
            questions = pq.read_metadata(answers).num_rows
            accepted = read_verdicts(verdicts).verdict == 1
        right = int(np.sum(accepted & truth))
        runs.append(
            {
                "questions": questions,
                "masks_per_question": int(accepted.sum()) / questions,
                "precision": right / max(int(accepted.sum()), 1),
                "recall": right / max(int(truth.sum()), 1),
            }
        )
    return {"policy": f"thesis, category nodes, n={n}, t_agr={t_agr}", "runs": runs}


def page(record: dict[str, Any], seeds: int) -> list[str]:
    """Return docs/benchmarks/nuclei.md."""
    first, second = record["iterations"]
    whole = sum(one["seconds"] for one in record["steps"].values())
    lines = heading("Real nuclei", "make bench-nuclei DATA=DIR", "torch", "torchvision", "snakemake", "fastcluster")
    lines += [
        "`config/nuclei.yaml` on 266 seed, 266 pool and 132 validation images (Data Science Bowl 2018, CC0). One seed",
        "of the training; AP is COCO's mask AP with up to 400 detections an image.",
        "",
        f"AP of iteration 0: {100 * first['ap']:.1f}. AP of iteration 1: {100 * second['ap']:.1f}. "
        f"{second['predictions']} predictions, {second['questions']} questions, {second['collected']} masks collected.",
        "",
        f"## Policies on the same predictions ({seeds} seeds of the questions: mean, and range from least to most)",
        "",
        "| policy | questions | accepted masks a question | precision | recall |",
        "|---|---|---|---|---|",
    ]
    lines += [policy_line(policy) for policy in record["policies"]]
    lines += [
        "",
        f"## Where the time goes ({whole / 60:.1f} minutes of job time)",
        "",
        "| rule | seconds | peak MB |",
        "|---|---|---|",
    ]
    ordered = sorted(record["steps"].items(), key=lambda item: -item[1]["seconds"])
    return lines + [
        f"| {rule} | {one['seconds']:.0f} | {one['peak_mb']:.0f} |" for rule, one in ordered if one["seconds"] >= 2
    ]


def policy_line(policy: dict[str, Any]) -> str:
    """Return one row of the table of policies."""
    cells = []
    for key, form in (("questions", ",.0f"), ("masks_per_question", ".2f"), ("precision", ".3f"), ("recall", ".3f")):
        values = [one[key] for one in policy["runs"]]
        spread = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
        cells.append(f"{sum(values) / len(values):{form}}{spread}")
    return f"| {policy['policy']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
