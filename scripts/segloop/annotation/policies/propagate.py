"""Answers spread over a graph of nearest neighbours, and accept masks that enough of them reach."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import faiss
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import cg

from segloop.annotation.answers import NO, YES, Answers
from segloop.annotation.policies.base import Decision, Judgement, known_answers
from segloop.annotation.verdicts import ACCEPTED, PREFIX
from segloop.annotation.world import World
from segloop.clustering.embeddings import unit_or_zero
from segloop.clustering.numerics import numerical_threads
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.randomness import generator, seed_of

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

_QUESTIONS: Final = 1000
"""Where no limit is configured."""
_EXACT: Final = 50_000
"""Categories of more masks are searched through an inverted file, which misses few neighbours."""
_PROBES: Final = 32
_TOLERANCE: Final = 1e-6
"""Relative residual at which the solver stops (Iscen et al.)."""


@dataclass(frozen=True)
class Propagate:
    """Label propagation: A. Iscen, G. Tolias, Y. Avrithis and O. Chum, CVPR 2019, with questions in rounds.

    A mask is joined to its `neighbours` nearest in its category, by the cosine to the power `gamma`, zero where it is
    negative; the symmetric graph becomes W = D^-1/2 A D^-1/2. For the masks answered yes, and for those answered
    no, (I - alpha W) z = y says how much of them reaches each mask; the score of a mask is z_yes / (z_yes + z_no).
    The paper's weights by entropy and class serve its training and are left out.

    The first round asks random masks of each category in proportion to its size, later ones masks whose score is near
    1/2 and random ones. After `questions` the masks with a score of at least `threshold` are accepted; nothing is said
    about how many of them are good, and nothing is rejected but what was answered no.

    Parameters
    ----------
    questions
        Masks that are asked, fewer where there are not so many.
    neighbours, gamma, alpha
        Of the graph, as above.
    batch
        Questions of a round.
    random
        Share of the later rounds that is drawn at random.
    threshold
        Score from which on masks are accepted.
    """

    questions: int = _QUESTIONS
    neighbours: int = 30
    gamma: float = 3.0
    alpha: float = 0.99
    batch: int = 300
    random: float = 0.5
    threshold: float = 0.9

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        return cls(questions=config.questions or _QUESTIONS, **config.propagate.model_dump())

    def units(self, world: World) -> Rows:
        """Return none: every question depends on all answers."""
        return np.zeros(0, np.int64)

    def step(self, world: World, answers: Answers, seed: int, units: Rows | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far (see `Policy.step`).

        Rounds are gone through again from the first. A round follows from the answers to those before it and from
        nothing else, so that it does not matter in which parts answers arrive.

        Raises
        ------
        SegloopError
            If the world has no embeddings.

        Notes
        -----
        Memory: some 24 bytes a neighbour and mask. Graph and scores of the last rounds are kept between calls.
        """
        _embedding(world)
        known, judgement = known_answers(world, answers), Judgement.none(len(world))
        if not len(world):
            return judgement.decision(known)
        queue = _queue(world, seed)
        asked = np.zeros(0, np.int64)
        while len(asked) < min(self.questions, len(world)):
            following = self._round(world, seed, asked, known.reply[asked], queue)
            open_rows = following[~known.answered[following]]
            if len(open_rows):
                return judgement.decision(known, question_row=open_rows)
            asked = np.concatenate([asked, following])
        rows = np.flatnonzero(known.answered)
        score, reached = self._scores(world, seed, rows, known.reply[rows])
        accepted = reached & (score >= self.threshold)
        judgement.verdict[accepted] = ACCEPTED
        judgement.reason[accepted] = PREFIX
        return judgement.decision(known)

    def _round(self, world: World, seed: int, asked: Rows, replies: npt.NDArray[np.int8], queue: Rows) -> Rows:
        """Return what is asked after `asked`: the most uncertain masks, and those that come next in a random order."""
        count = min(self.batch, self.questions - len(asked), len(world) - len(asked))
        if not len(asked):
            return _proportional(world.category, queue, count)
        fresh = np.ones(len(world), np.bool_)
        fresh[asked] = False
        left = queue[fresh[queue]]
        score, _ = self._scores(world, seed, asked, replies)
        # Among equally uncertain ones, such as those that nothing reaches, the random order decides.
        ranked = left[np.argsort(np.abs(score[left] - 0.5), kind="stable")]
        uncertain = ranked[: count - round(self.random * count)]
        fresh[uncertain] = False
        return np.concatenate([uncertain, left[fresh[left]][: count - len(uncertain)]])

    def _scores(
        self, world: World, seed: int, rows: Rows, replies: npt.NDArray[np.int8]
    ) -> tuple[Scores, npt.NDArray[np.bool_]]:
        graph = _graph(world, self.neighbours, self.gamma, seed)
        yes, no = (tuple(rows[replies == reply].tolist()) for reply in (YES, NO))
        return _spread(graph, self.alpha, yes, no)


class _Graph:
    """A normalised graph, told apart by identity so that what is spread over it can be remembered."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights


@lru_cache(maxsize=16)
def _spread(
    graph: _Graph, alpha: float, yes: tuple[int, ...], no: tuple[int, ...]
) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Return z_yes / (z_yes + z_no) of each mask, 1/2 where nothing arrives, and where something does."""
    count = graph.weights.shape[0]
    system = sparse.eye_array(count, format="csr") - alpha * graph.weights
    arrived = []
    # One thread: sums depend on their order.
    with numerical_threads(1):
        for rows in (yes, no):
            given = np.zeros(count)
            given[list(rows)] = 1
            # Zero where a rounding error is below zero: all entries of the inverse are positive.
            arrived.append(np.maximum(cg(system, given, rtol=_TOLERANCE)[0], 0))
    total = arrived[0] + arrived[1]
    reached = total > 0
    score = np.full(count, 0.5)
    score[reached] = arrived[0][reached] / total[reached]
    return score, reached


def _embedding(world: World) -> npt.NDArray[np.float16]:
    if world.embedding is None:
        raise SegloopError(
            "annotation.policy: propagate compares embeddings, and there are none. Give the principal components of "
            "the predictions (annotation.components), or use annotation.policy: per_mask."
        )
    return world.embedding


@lru_cache(maxsize=1)
def _graph(world: World, neighbours: int, gamma: float, seed: int) -> _Graph:
    unit = unit_or_zero(_embedding(world).astype(np.float32))
    usable = world.by_prediction[unit[world.by_prediction].any(axis=1)]
    ends: list[tuple[Rows, Rows, Floats]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    with numerical_threads(1):
        for category in np.unique(world.category[usable]).tolist():
            rows = usable[world.category[usable] == category]
            near, cosine = _nearest(unit[rows], neighbours, seed_of("propagate", seed, category))
            kept = (near >= 0) & (cosine > 0)
            ends.append((np.repeat(rows, kept.sum(axis=1)), rows[near[kept]], cosine[kept]))
    one, other, cosine = (np.concatenate([part[place] for part in ends]) for place in range(3))
    shape = (len(world), len(world))
    directed = sparse.csr_array((cosine.astype(np.float64) ** gamma, (one, other)), shape=shape)
    weights = (directed + directed.T).tocsr()
    degree = np.asarray(weights.sum(axis=1)).ravel()
    scale = np.zeros(len(world))
    scale[degree > 0] = 1 / np.sqrt(degree[degree > 0])
    return _Graph((sparse.diags_array(scale) @ weights @ sparse.diags_array(scale)).tocsr())


def _nearest(unit: Floats, k: int, seed: int) -> tuple[Rows, Floats]:
    """Return the k rows with the largest cosine with each row but itself, -1 where there are fewer, each [n, k]."""
    n, width = unit.shape
    index: Any = faiss.IndexFlatIP(width)
    if n > _EXACT:
        lists = int(4 * math.sqrt(n))
        index = faiss.index_factory(width, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed & 0x7FFFFFFF
        index.train(unit)
        index.nprobe = _PROBES
    index.add(unit)
    cosine, near = index.search(unit, min(k + 1, n))
    # Itself comes first, unless copies of it do: then the last one is left out.
    itself = near == np.arange(n)[:, None]
    itself[~itself.any(axis=1), -1] = True
    near[itself] = -1
    return near.astype(np.int64), cosine


@lru_cache(maxsize=2)
def _queue(world: World, seed: int) -> Rows:
    """Return all rows in a random order that does not depend on the order of the rows."""
    return world.by_prediction[generator("propagate", seed).permutation(len(world))]


def _proportional(category: npt.NDArray[np.int32], queue: Rows, count: int) -> Rows:
    """Return the first rows of each category in the order of the queue, as many as its share of all rows.

    Shares are rounded down; what is missing goes to the largest remainders, of equal ones to the first category.
    """
    _, number, sizes = np.unique(category, return_inverse=True, return_counts=True)
    share = count * sizes / len(queue)
    wanted = np.floor(share).astype(np.int64)
    wanted[np.argsort(wanted - share, kind="stable")[: count - int(wanted.sum())]] += 1
    order = np.argsort(number[queue], kind="stable")
    place = np.empty(len(queue), np.int64)
    place[order] = np.arange(len(queue)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return queue[place < wanted[number[queue]]]
