"""Whether sequential audits keep to delta at their worst, and how long a decision takes.

Usage: python benchmarks/certificates.py [--only designs deciding] [--sizes 411530 2000000]

designs: audits of many sets, with the number of bad masks that is worst for each: the exact probability of a false
claim as a share of delta. deciding: seconds of the decisions of `certified` on large pools.
"""

import argparse
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from common import OUTPUT, heading, machine, publish
from segloop.annotation.answers import NO, YES
from segloop.annotation.driver import Asked, ask_the_rest
from segloop.annotation.policies import Decision, make_policy
from segloop.annotation.sequential import design, false_acceptance
from segloop.clustering.numerics import numerical_threads
from segloop.config import AnnotationConfig, ClusteringConfig
from segloop.files import read_json
from segloop.runs import versions
from segloop.simulation.worlds import KnownWorld, world_of_arrays
from simulated_world import simulate as simulated_world

PARTS = ("designs", "deciding")
LEVELS = "DE"
"""Separability of the pools that decisions are timed on."""


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
    """Time every decision on large pools, in CPU seconds of one thread: what a free core takes.

    The second one prepares the pool: clusters and components, made once.
    """
    with numerical_threads(1):
        return [_deciding_at(n, level) for level in LEVELS for n in options.sizes]


def _deciding_at(n: int, level: str) -> dict[str, Any]:
    known = _world(level, n, 100, 64, 0.2556, max(80, n // 1000), 0)
    seconds = _decisions(known, AnnotationConfig.model_validate({"policy": "certified"}))
    # The only one of its kind in a run, so that a busy moment of the machine would count whole.
    few = AnnotationConfig.model_validate({"policy": "certified", "questions": 45})
    first = min(seconds[1], *(_decisions(known, few)[1] for _ in range(2)))
    found = {"n": n, "level": level, "first": first, "slowest": max(seconds[2:]), "decisions": len(seconds)}
    print(found, flush=True)
    return found


def _decisions(known: KnownWorld, config: AnnotationConfig) -> list[float]:
    seconds: list[float] = []
    clock = time.process_time()

    def watch(decision: Decision) -> None:
        seconds.append(time.process_time() - clock)

    def answer(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        nonlocal clock
        replies = np.where(known.good[rows], YES, NO).astype(np.int8)
        clock = time.process_time()
        return replies

    ask_the_rest(make_policy(config), known.world, 0, answer, Asked.join([]), watch)
    return seconds


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
        "`certified` with its usual budget of 20 √N questions, in CPU seconds of one thread: from a batch of answers",
        "to the next questions. Before the first batch is chosen by what is known, the tree is cut into clusters and",
        "components are standardised, once.",
        "",
        "| level | masks | the one that prepares the pool (least of 3), s | slowest of all others, s | decisions |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['level']} | {one['n']:,} | {one['first']:.1f} | {one['slowest']:.1f} | {one['decisions']:,} |"
        for one in found
    ]
    if len({one["n"] for one in found}) > 1:
        first, slowest = (max(_at_46_million(found, level, name) for level in LEVELS) for name in ("first", "slowest"))
        lines += [
            "",
            "In proportion to the largest, or with the power seen between the last two sizes if that is more, "
            "46 million",
            f"masks would take {first:.0f} s once and {slowest:.0f} s for each other decision at most, and less where",
            "a part does not grow with the masks, such as the table of an audit. They were not run.",
        ]
    return [*lines, ""]


def _at_46_million(found: list[dict[str, Any]], level: str, name: str) -> float:
    before, last = [one for one in found if one["level"] == level][-2:]
    power = np.log(last[name] / before[name]) / np.log(last["n"] / before["n"])
    return float(last[name] * (46e6 / last["n"]) ** max(1.0, power))


if __name__ == "__main__":
    main()
