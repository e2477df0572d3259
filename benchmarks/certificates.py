"""Whether sequential audits keep to delta at their worst, and how long a decision takes.

Usage: python benchmarks/certificates.py [--only designs deciding] [--sizes 411530 2000000]

designs: audits of many sets, with the number of bad masks that is worst for each: the exact probability of a false
claim as a share of delta. deciding: seconds of the slowest decision of `certified` on large pools.
"""

import argparse
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from common import OUTPUT, heading, machine, publish
from segloop.annotation.sequential import design, false_acceptance
from segloop.config import AnnotationConfig, ClusteringConfig
from segloop.files import read_json
from segloop.runs import versions
from segloop.simulation.replay import simulate
from segloop.simulation.worlds import KnownWorld, world_of_arrays
from simulated_world import simulate as simulated_world

PARTS = ("designs", "deciding")


def main() -> None:
    """Measure the parts that are wanted; each is published when it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[82_306, 411_530, 2_000_000])
    options = parser.parse_args()
    record = _kept()
    for name in options.only:
        record[name] = {"designs": designs, "deciding": deciding}[name](options)
        publish("certificates", page(record), record)


def _kept() -> dict[str, Any]:
    path = OUTPUT / "certificates.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    if {key: found.get(key) for key in ("machine", "versions")} != {"machine": machine(), "versions": versions()}:
        return {}
    return {name: found[name] for name in PARTS if name in found}


# --- designs ----------------------------------------------------------------------------------------------------------


def designs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compute the exact error of audits over a grid of sets, targets and levels."""
    random = np.random.default_rng(0)
    found = []
    for _ in tqdm(range(200), desc="designs", disable=None):
        unknown = int(np.exp(random.uniform(np.log(60), np.log(60_000))))
        known_good = int(random.integers(0, 200))
        target, delta = float(random.choice([0.8, 0.9, 0.95])), float(random.choice([0.05, 0.035, 0.01]))
        # What is believed does not matter for the error: from far too good to just short of the target.
        mean = (1 - target) * unknown * random.uniform(0.1, 1.2)
        belief = np.unique(np.clip(np.round(mean * np.linspace(0.6, 1.4, 12)), 0, unknown).astype(np.int64))
        made = design(
            unknown,
            known_good,
            target,
            delta,
            belief=belief,
            weight=np.ones(len(belief)),
            price=2.0,
            n_max=1700,
            salvage=0.4 * unknown,
        )
        if made is not None:
            case = {"unknown": unknown, "known_good": known_good, "target": target, "delta": delta}
            found.append({**case, "questions": made.most_questions, "error": false_acceptance(made)})
    return found


# --- deciding ---------------------------------------------------------------------------------------------------------


def deciding(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time the slowest decision on large pools; building the world does not count, levels and features do."""
    found = []
    for n in options.sizes:
        known = _world("D", n, 100, 64, 0.2556, max(80, n // 1000), 0)
        begin = time.perf_counter()
        config = AnnotationConfig.model_validate({"policy": "certified", "questions": 1500})
        result = simulate(known, config, 0)
        seconds = time.perf_counter() - begin
        found.append({"n": n, "slowest": result.slowest, "seconds": seconds, "questions": result.questions})
        print(found[-1], flush=True)
    return found


def _world(
    level: str, n: int, categories: int, dim: int, base_rate: float, per_subcluster: int, seed: int
) -> KnownWorld:
    made = simulated_world(level, n, categories, dim, base_rate, per_subcluster, seed)
    arrays = {"embedding": made.embedding, "category": made.category, "score": made.score}
    tree = ClusteringConfig(linkage="ward", n_exact=4000, m_max=4000)
    return world_of_arrays(arrays, made.good, f"{level}, {n:,}", tree=tree)


# --- the page ---------------------------------------------------------------------------------------------------------


def page(record: dict[str, Any]) -> list[str]:
    """Return the lines of docs/benchmarks/certificates.md."""
    lines = heading("Certificates", "make bench-certificates", "numpy", "scipy")
    if "designs" in record:
        lines += _designs_page(record["designs"])
    if "deciding" in record:
        lines += _deciding_page(record["deciding"])
    return lines


def _designs_page(found: list[dict[str, Any]]) -> list[str]:
    share = [one["error"] / one["delta"] for one in found]
    return [
        "## Sequential audits at their worst",
        "",
        f"{len(found)} audits of sets of 60 to 60,000 masks, targets .8, .9 and .95, delta .05, .035 and .01. For each "
        "the exact probability of a false claim was computed for every number of bad masks that makes the claim false, "
        "sets just below the target among them, and the largest taken.",
        "",
        f"Largest probability as a share of delta: maximum {max(share):.4f}, median {np.median(share):.3f}.",
        "",
    ]


def _deciding_page(found: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## How long a decision takes",
        "",
        "Level D, `certified`; the slowest of all decisions of a run, one process. The first one also cuts the tree "
        "into clusters and standardises the components.",
        "",
        "| masks | slowest decision, s | all decisions, s | questions |",
        "|---|---|---|---|",
    ]
    lines += [f"| {one['n']:,} | {one['slowest']:.1f} | {one['seconds']:.0f} | {one['questions']:,} |" for one in found]
    if len(found) > 1:
        first, last = found[-2], found[-1]
        power = np.log(last["slowest"] / first["slowest"]) / np.log(last["n"] / first["n"])
        guess = last["slowest"] * (46e6 / last["n"]) ** max(1.0, float(power))
        lines += [
            "",
            f"Extrapolated from the largest, in proportion or faster if that was seen, to 46 million: {guess:.0f} s.",
        ]
    return [*lines, ""]


if __name__ == "__main__":
    main()
