"""Simulated predictions for measuring question policies: embeddings, categories, scores and hidden truth.

Usage: python benchmarks/simulated_world.py LEVEL OUT.npz [--n 82306] [--categories 100] [--dim 64]
       [--base-rate 0.2556] [--per-subcluster 80] [--seed 0]

Levels A..E go from hardly separable to well separable (leave-one-out 30-nearest-neighbour AUC of good against bad
of about .66, .78, .88, .94, .99). The defaults repeat the size and the base rate of the thesis's simulation on
ADE20K: 82,306 predictions, 25.56 % of them with IoU above 0.8, over 100 categories of very different sizes.

Each category holds subclusters; a subcluster has its own probability that a mask is good, so a pure subcluster can be
accepted or rejected as a whole and a mixed one must be split. A weak global direction of the embedding and a
miscalibrated detector score carry further signal.

Arrays written: embedding float32 (n, dim), L2-normalised; category uint16 (n,); score float32 (n,), in (0, 1);
good bool (n,), the hidden truth; subcluster int32 (n,) and p_good float32 (n,), for analysis only: no policy may read
the last three except through answers to counted questions.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Level:
    """How well good and bad masks can be told apart."""

    purity: float
    """A small value makes subclusters nearly all good or all bad."""
    shift: float
    """How far the embedding of a good mask lies from that of a bad one."""
    separation: float
    """Distance of the scores of good and bad masks, in standard deviations."""
    noise: float
    """Scatter of embeddings around their subcluster."""
    spread: float
    """A small value makes the base rates of categories differ much."""


LEVELS = {
    "A": Level(40.0, 0.15, 0.7, 0.80, 15.0),
    "B": Level(12.0, 0.30, 0.8, 0.70, 8.0),
    "C": Level(4.0, 0.40, 0.9, 0.65, 5.0),
    "D": Level(1.5, 0.50, 1.1, 0.55, 4.0),
    "E": Level(0.4, 0.70, 1.3, 0.45, 3.0),
}


@dataclass(frozen=True)
class SimulatedWorld:
    """Predictions in a random order, n rows."""

    embedding: npt.NDArray[np.float32]
    """Rows of length 1, [n, dim]."""
    category: npt.NDArray[np.uint16]
    """Category 0..categories-1, [n]."""
    score: npt.NDArray[np.float32]
    """Detector score in (0, 1), [n]."""
    good: npt.NDArray[np.bool_]
    """The hidden truth, [n]."""
    subcluster: npt.NDArray[np.int32]
    """Where the row comes from, [n]; for analysis only."""
    p_good: npt.NDArray[np.float32]
    """The probability that it had of being good, [n]; for analysis only."""


def simulate(
    level: str,
    n: int = 82306,
    categories: int = 100,
    dim: int = 64,
    base_rate: float = 0.2556,
    per_subcluster: int = 80,
    seed: int = 0,
) -> SimulatedWorld:
    """Return a simulated world; equal arguments give equal arrays.

    Parameters
    ----------
    level
        A key of `LEVELS`.
    n
        Predictions.
    categories
        Categories; their sizes fall like 1 / (rank + 5).
    dim
        Width of the embeddings.
    base_rate
        Mean probability that a prediction is good.
    per_subcluster
        Predictions in a subcluster on average.
    seed
        Seed of everything random.
    """
    how = LEVELS[level]
    rng = np.random.default_rng(seed)
    category = _categories(n, categories, rng)
    category_centre = _unit(rng.standard_normal((categories, dim)))
    quality = _unit(rng.standard_normal(dim))
    rate = rng.beta(base_rate * how.spread, (1 - base_rate) * how.spread, size=categories)
    category_rate = np.clip(rate, 0.01, 0.99)
    embedding, p_good, subcluster = _subclusters(
        category, category_centre, category_rate, how.purity, per_subcluster, rng
    )
    p_good = _with_mean(p_good, base_rate)
    good = rng.random(n) < p_good
    category_quality = _unit(rng.standard_normal((categories, dim)))
    direction = 0.6 * quality + 0.4 * category_quality[category]
    embedding += how.shift * 0.6 * np.where(good, 0.5, -0.5)[:, None] * direction
    embedding += how.noise * 1.6 / np.sqrt(dim) * rng.standard_normal((n, dim))
    score = how.separation * (good - 0.5) + rng.standard_normal(n) + 0.5 * rng.standard_normal(categories)[category]
    order = rng.permutation(n)
    return SimulatedWorld(
        embedding=_unit(embedding)[order].astype(np.float32),
        category=category[order].astype(np.uint16),
        score=expit(score)[order].astype(np.float32),
        good=good[order],
        subcluster=subcluster[order],
        p_good=p_good[order].astype(np.float32),
    )


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def _categories(n: int, categories: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    weights = 1.0 / (np.arange(categories) + 5.0)
    weights /= weights.sum()
    rng.shuffle(weights)
    return np.sort(rng.choice(categories, size=n, p=weights))


def _subclusters(
    category: npt.NDArray[np.int64],
    centre: Floats,
    category_rate: Floats,
    purity: float,
    per_subcluster: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return, for rows sorted by category: centres of their subclusters, probabilities of being good, subclusters."""
    n, dim = len(category), centre.shape[1]
    embedding, p_good = np.empty((n, dim), np.float32), np.empty(n)
    subcluster, used = np.empty(n, np.int32), 0
    for number in range(len(centre)):
        rows = np.flatnonzero(category == number)
        if not len(rows):
            continue
        count = max(2, len(rows) // per_subcluster)
        member = rng.choice(count, size=len(rows), p=rng.dirichlet(np.full(count, 0.6)))
        good, bad = category_rate[number] * purity + 1e-3, (1 - category_rate[number]) * purity + 1e-3
        p_good[rows] = rng.beta(good, bad, size=count)[member]
        subcluster[rows] = used + member
        used += count
        embedding[rows] = centre[number] + 0.7 * _unit(rng.standard_normal((count, dim)))[member]
    return embedding, p_good, subcluster


def _with_mean(probability: npt.NDArray[np.float64], mean: float) -> npt.NDArray[np.float64]:
    """Move the log odds together until their probabilities have this mean."""
    log_odds = logit(np.clip(probability, 1e-4, 1 - 1e-4))
    low, high, middle = -8.0, 8.0, 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if expit(log_odds + middle).mean() > mean else (middle, high)
    return np.asarray(expit(log_odds + middle), np.float64)


def main() -> None:
    """Write the arrays of one world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("level", choices=sorted(LEVELS))
    parser.add_argument("out")
    parser.add_argument("--n", type=int, default=82306)
    parser.add_argument("--categories", type=int, default=100)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--base-rate", type=float, default=0.2556)
    parser.add_argument("--per-subcluster", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    out = options.pop("out")
    np.savez_compressed(out, **vars(simulate(**options)))


if __name__ == "__main__":
    main()
