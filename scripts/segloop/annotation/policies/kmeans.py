"""The baseline without a tree: flat clusters, a few representatives of each, no splitting."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies.base import OUTSIDE, Decision, Judgement, known_answers
from segloop.annotation.policies.thesis import OTHER_LIMIT
from segloop.annotation.verdicts import ACCEPTED, CLUSTER, REJECTED
from segloop.annotation.world import World
from segloop.clustering.embeddings import unit_or_zero
from segloop.clustering.numerics import numerical_threads
from segloop.clustering.partition import spherical_kmeans
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.randomness import generator, seed_of

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_PAIRS: Final = 1 << 24
"""Cosines of rows and centroids that are in memory at a time: 64 MB."""


@dataclass(frozen=True)
class KMeans:
    """Cut each category into flat clusters, ask some masks of each, and decide those clusters whose answers agree.

    Spherical k-means: I. Dhillon and D. Modha, Machine Learning 42, 2001. Clusters are asked by falling mean score,
    which matters only under a limit. Predictions without an embedding are neither asked nor decided.

    Parameters
    ----------
    size
        Masks of a cluster, on average.
    n
        Masks asked of a cluster, its representatives.
    t_agr
        Agreement from which on a cluster is decided whole, 0.5 to 1; below, only its answered masks are.
    representatives
        `random` members, or those nearest to the `medoid`: the centroid's neighbours, of which more are good than of
        the others.
    questions
        At most so many questions, as far as they do for whole clusters; None: every cluster is asked about.
    """

    size: int = 50
    n: int = 5
    t_agr: float = 0.8
    representatives: Literal["random", "medoid"] = "random"
    questions: int | None = None

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        return cls(**config.kmeans.model_dump(), n=config.n, t_agr=config.t_agr, questions=config.questions)

    def units(self, world: World) -> Rows:
        """Return the one unit: all clusters, which are no nodes of a tree."""
        return np.full(1, OUTSIDE, np.int64)

    def step(self, world: World, answers: Answers, seed: int, units: Rows | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far (see `Policy.step`).

        Raises
        ------
        SegloopError
            If the world has no embeddings.
        """
        known, judgement = known_answers(world, answers), Judgement.none(len(world))
        if units is not None and OUTSIDE not in units:
            return judgement.decision(known)
        flat = _clusters(world, self.size, seed)
        rows = flat.representatives(self.n, self.representatives)[: self._affordable(flat)]
        asked = flat.cluster[rows]
        replies = np.where(known.answered[rows], known.reply[rows], OTHER)
        yes, no, other, missing = (
            np.bincount(asked[chosen], minlength=flat.count)
            for chosen in (replies == YES, replies == NO, replies == OTHER, ~known.answered[rows])
        )
        most, total = np.maximum(yes, no), yes + no
        # With some slack, because shares such as 7/10 are not exact in floating point.
        agree = (total > 0) & (most >= self.t_agr * total - 1e-9)
        agree &= (missing == 0) & (other <= OTHER_LIMIT * (total + other))
        members = np.flatnonzero(flat.cluster >= 0)
        members = members[agree[flat.cluster[members]]]
        judgement.verdict[members] = np.where((yes >= no)[flat.cluster[members]], ACCEPTED, REJECTED)
        judgement.reason[members] = CLUSTER
        return judgement.decision(known, question_row=rows[~known.answered[rows]])

    def _affordable(self, flat: "_Flat") -> int | None:
        """Return how many representatives may be asked: those of as many whole clusters as the limit does for."""
        if self.questions is None:
            return None
        cost = np.cumsum(np.minimum(flat.sizes, self.n))
        return int(np.concatenate([[0], cost])[np.searchsorted(cost, self.questions, side="right")])


@dataclass(frozen=True)
class _Flat:
    """Clusters of a world."""

    cluster: npt.NDArray[np.int64]
    """The cluster of each row, numbered by falling mean score; -1 for rows without an embedding, [N]."""
    sizes: Rows
    """Members of each cluster, [K]."""
    cosine: Floats
    """Cosine of each row and the centroid of its cluster, [N]."""
    order: Rows
    """Place of each row in a random order, [N]."""

    @property
    def count(self) -> int:
        """Number of clusters, K."""
        return len(self.sizes)

    def representatives(self, n: int, which: str) -> Rows:
        """Return at most n rows of each cluster, cluster by cluster."""
        rows = np.flatnonzero(self.cluster >= 0)
        keys = (self.order,) if which == "random" else (self.order, -self.cosine)
        rows = rows[np.lexsort([key[rows] for key in (*keys, self.cluster)])]
        place = np.arange(len(rows)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        return rows[place < n]


@lru_cache(maxsize=2)
def _clusters(world: World, size: int, seed: int) -> _Flat:
    if world.embedding is None:
        raise SegloopError(
            "annotation.policy: kmeans clusters embeddings, and there are none. Give the principal components of the "
            "predictions (annotation.components), or use annotation.policy: per_mask."
        )
    unit = unit_or_zero(world.embedding.astype(np.float32))
    cluster, cosine, count = np.full(len(world), -1, np.int64), np.zeros(len(world), np.float32), 0
    # In the order of prediction ids, so that clusters do not depend on the order of the rows.
    usable = world.by_prediction[unit[world.by_prediction].any(axis=1)]
    for category in np.unique(world.category[usable]).tolist():
        rows = usable[world.category[usable] == category]
        centroids = spherical_kmeans(unit[rows], math.ceil(len(rows) / size), seed_of("flat k-means", seed, category))
        nearest, cosine[rows] = _assign(unit[rows], centroids)
        # Centroids that are nearest to nothing are no clusters.
        used, numbers = np.unique(nearest, return_inverse=True)
        cluster[rows] = count + numbers
        count += len(used)
    order = np.empty(len(world), np.int64)
    order[world.by_prediction] = generator("kmeans", seed).permutation(len(world))
    sizes = np.bincount(cluster[usable], minlength=count)
    score = np.bincount(cluster[usable], world.score[usable], minlength=count) / np.maximum(sizes, 1)
    best = np.argsort(-score, kind="stable")
    renumbered = np.append(np.argsort(best, kind="stable"), -1)
    return _Flat(renumbered[cluster], sizes[best], cosine, order)


def _assign(unit: Floats, centroids: Floats) -> tuple[Rows, Floats]:
    """Return the nearest centroid of each row and the cosine with it."""
    nearest, cosine = np.empty(len(unit), np.int64), np.empty(len(unit), np.float32)
    step = max(1, _PAIRS // len(centroids))
    # One thread: another number could change last bits, and with them which of two centroids is nearest.
    with numerical_threads(1):
        for start in range(0, len(unit), step):
            products = unit[start : start + step] @ centroids.T
            nearest[start : start + step] = products.argmax(axis=1)
            cosine[start : start + step] = products.max(axis=1)
    return nearest, cosine
