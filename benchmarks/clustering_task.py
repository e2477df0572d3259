"""What partitioning costs the task: the thesis's questions over exact and two-level trees of simulated worlds."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import NO, YES
from segloop.annotation.driver import ask_until_done, policy_seed
from segloop.annotation.policies import make_policy
from segloop.annotation.policies.thesis import start_nodes
from segloop.annotation.verdicts import ACCEPTED
from segloop.annotation.world import World
from segloop.clustering.building import build_tree
from segloop.config import AnnotationConfig, ClusteringConfig
from segloop.store.tree import Tree
from simulated_world import SimulatedWorld, simulate

CATEGORIES = 30
STARTS = ("top:60", "cut:400")
"""Sixty nodes of any size, and nodes of one size in any number. Larger nodes at the start give more masks a question
and less precision whatever the tree, so that trees are compared fairly only where these are alike."""
EXACT = "exact"
BY_CATEGORY = "by category"
"""Exact, too, as far as the default scope goes."""
METRICS = {"masks_per_question": "good masks a question", "precision": "precision", "recall": "recall"}
JUDGED = ("masks_per_question", "precision")

Floats = npt.NDArray[np.float64]


def policy(start: str) -> AnnotationConfig:
    """Return the settings of the questions."""
    return AnnotationConfig(policy="thesis", n=8, t_agr=1.0, start=start)


def trees(n: int) -> dict[str, ClusteringConfig]:
    """Return the ways to build a tree over n predictions; the first is what the others are held against."""
    exact = {"n_exact": n, "m_max": n}
    sizes = [m for m in (2000, 500) if m < n] or [max(2, n // 4)]
    two_level = {
        f"two-level, m_max = {m}": ClusteringConfig.model_validate({"scope": "global", "n_exact": m, "m_max": m})
        for m in sizes
    }
    return {
        EXACT: ClusteringConfig.model_validate({"scope": "global", **exact}),
        **two_level,
        BY_CATEGORY: ClusteringConfig.model_validate({"scope": "category", **exact}),
        f"{BY_CATEGORY}, m_max = {sizes[-1]}": ClusteringConfig(n_exact=sizes[-1], m_max=sizes[-1]),
    }


def measure(n: int, levels: str, seeds: int, draws: int) -> dict[str, Any]:
    """Ask over every tree of every world, several times.

    Parameters
    ----------
    n
        Predictions of a world.
    levels
        Letters of `simulated_world.LEVELS`.
    seeds
        Worlds of a level; k-means and questions take the same seed.
    draws
        How often the questions of one tree are drawn afresh.

    Returns
    -------
    These numbers, and runs: one row a draw, with level, seed, tree, start, draw, seconds (of building), partitions,
    node (size of the start node of a random prediction), questions and `METRICS`.
    """
    runs = []
    for level in levels:
        for seed in range(seeds):
            world = simulate(level, n=n, categories=CATEGORIES, seed=seed)
            for name, config in trees(n).items():
                own = {"level": level, "seed": seed, "tree": name}
                runs += [own | run for run in _asked(world, config, seed, draws)]
            print(f"task: level {level}, seed {seed}", flush=True)
    return {"n": n, "levels": levels, "seeds": seeds, "draws": draws, "runs": runs}


def _asked(world: SimulatedWorld, config: ClusteringConfig, seed: int, draws: int) -> Iterator[dict[str, Any]]:
    begin = time.perf_counter()
    tree = build_tree(world.embedding, world.category.astype(np.int32), None, config, seed)
    built = {"seconds": time.perf_counter() - begin, "partitions": len(tree.part_root)}
    for start in STARTS:
        sizes = tree.size[start_nodes(tree, start)].astype(np.float64)
        node = float(np.square(sizes).sum() / sizes.sum())
        for draw in range(draws):
            found = ask(world, tree, start, policy_seed(seed, 1 + draw))
            yield {**built, "start": start, "draw": draw, "node": node, **found}


def ask(world: SimulatedWorld, tree: Tree, start: str, key: int) -> dict[str, float]:
    """Ask the policy's questions, answered from the truth, and return their number and `METRICS`."""
    seen = _seen(world, tree)
    good = world.good[seen.prediction.astype(np.int64) - 1]
    truth = np.where(good, YES, NO).astype(np.int8)
    thesis = make_policy(policy(start))
    asked = ask_until_done(thesis, seen, key, lambda rows: truth[rows], thesis.units(seen))
    accepted = thesis.step(seen, asked.answers(seen), key).verdict == ACCEPTED
    right = int(np.count_nonzero(accepted & good))
    return {
        "questions": len(asked.row),
        "masks_per_question": right / max(len(asked.row), 1),
        "precision": right / max(int(accepted.sum()), 1),
        "recall": right / max(int(good.sum()), 1),
    }


def _seen(world: SimulatedWorld, tree: Tree) -> World:
    """Return what a policy may see; predictions are numbered from 1 in the order of the simulated world."""
    prediction: npt.NDArray[np.uint64] = np.concatenate([tree.row_id, tree.null_id])
    row = prediction.astype(np.int64) - 1
    return World(
        tree=tree,
        prediction=prediction,
        category=world.category[row].astype(np.int32),
        score=world.score[row],
        image_id=row,
    )


def compare(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each level, start and tree: each metric with its spread, and the verdict.

    The spread of a metric (`least`, `most`) is that of single draws over the seeds, averaged over the draws, so that it
    does not hang on one lucky draw. A two-level tree is `within` where its means of `JUDGED` lie in the spread of the
    exact tree, `below` where one lies below it, and else `above`. `difference` is the mean over the seeds of a tree's
    distance from the exact one of the same world, and `error` its standard error.
    """
    names = list(dict.fromkeys(run["tree"] for run in part["runs"]))
    starts = list(dict.fromkeys(run["start"] for run in part["runs"]))
    return [
        _row(part, level, start, name, {metric: _values(part, level, start, EXACT, metric) for metric in METRICS})
        for level in part["levels"]
        for start in starts
        for name in names
    ]


def _row(part: dict[str, Any], level: str, start: str, name: str, exact: dict[str, Floats]) -> dict[str, Any]:
    row: dict[str, Any] = {"level": level, "start": start, "tree": name}
    for metric in METRICS:
        own = _values(part, level, start, name, metric)
        apart = (own - exact[metric]).mean(axis=1)
        row[metric] = {
            "mean": float(own.mean()),
            "least": float(own.min(axis=0).mean()),
            "most": float(own.max(axis=0).mean()),
            "difference": float(apart.mean()),
            "error": float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else None,
        }
    row["verdict"] = _verdict(row, {metric: exact[metric] for metric in JUDGED})
    partitions = _values(part, level, start, name, "partitions")
    row["partitions"] = [int(partitions.min()), int(partitions.max())]
    row["seconds"] = float(np.median(_values(part, level, start, name, "seconds")))
    row["node"] = float(_values(part, level, start, name, "node").mean())
    return row


def _values(part: dict[str, Any], level: str, start: str, tree: str, key: str) -> Floats:
    """Return one number a seed and draw, [seeds, draws]."""
    wanted = (level, start, tree)
    found = {
        (run["seed"], run["draw"]): run[key]
        for run in part["runs"]
        if (run["level"], run["start"], run["tree"]) == wanted
    }
    return np.array([found[place] for place in sorted(found)], np.float64).reshape(part["seeds"], part["draws"])


def _verdict(row: dict[str, Any], exact: dict[str, Floats]) -> str:
    if any(row[metric]["mean"] < values.min(axis=0).mean() for metric, values in exact.items()):
        return "below"
    if any(row[metric]["mean"] > values.max(axis=0).mean() for metric, values in exact.items()):
        return "above"
    return "within"
