"""The policy of the thesis's successor: ask about the clusters that look best, down the tree, and re-use answers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies.base import DECIDE, OUTSIDE, Decision, Known, known_answers, override_by_answers
from segloop.annotation.policies.thesis import OTHER_LIMIT, start_nodes
from segloop.annotation.verdicts import ACCEPTED, CLUSTER, REJECTED
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.randomness import generator
from segloop.store.tree import Tree

Rows = npt.NDArray[np.int64]

_AT_ONCE: Final = 20
"""Clusters that are asked about together where there is a limit: 300 questions with 15 each."""


@dataclass(frozen=True)
class Iccv21:
    """The search of D. Papadopoulos, E. Weber and A. Torralba, Scaling up Instance Annotation, ICCV 2021.

    The prior of a cluster is the mean of its masks' predicted IoU times score, or of the score alone. Clusters whose
    prior is too low are split unasked. Of the others `n` members are asked, those that were asked of a larger cluster
    among them, and the cluster is accepted, rejected or split by the share of yes. Clusters with the highest prior come
    first, which matters only under a limit. Nothing is said about how many of the accepted masks are good.

    Parameters
    ----------
    n
        Masks asked of a cluster.
    accept, reject
        A cluster is accepted at this share of yes or above, rejected below that one, else split.
    min_prior
        A cluster of more than `min_size` masks with a lower prior is split unasked.
    min_size
        Clusters of fewer masks stay undecided.
    ask_small
        Their masks, and the predictions outside the tree, are asked one by one instead.
    start
        Where the search starts, as in `Thesis`.
    clusters
        At most so many clusters below each start node are asked about; None: no limit.
    questions
        At most so many questions; the search ends before the first cluster that would exceed it. None: no limit.
    """

    n: int = 15
    accept: float = 0.85
    reject: float = 0.15
    min_prior: float = 0.7
    min_size: int = 15
    ask_small: bool = False
    start: str = "category"
    clusters: int | None = None
    questions: int | None = None

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        return cls(**config.iccv21.model_dump(), start=config.start, questions=config.questions)

    def units(self, world: World) -> Rows:
        """Return the start nodes in depth-first order, and `OUTSIDE` if predictions outside the tree are asked.

        None where `questions` is limited: which cluster comes next then depends on all others.

        Raises
        ------
        SegloopError
            If the world has no tree, or its tree has no category nodes to start from.
        """
        return np.zeros(0, np.int64) if self.questions is not None else self._starts(world, _tree_of(world))

    def step(self, world: World, answers: Answers, seed: int, units: Rows | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far (see `Policy.step`)."""
        tree, known = _tree_of(world), known_answers(world, answers)
        search = _Search(world, tree, known, _ground(world, seed), self)
        starts = self._starts(world, tree) if units is None else np.asarray(units, np.int64)
        nodes = starts[starts != OUTSIDE]
        if self.questions is not None:
            search.best_first(nodes, None)
        elif self.clusters is not None:
            for node in nodes.tolist():
                search.best_first(np.array([node], np.int64), node)
        else:
            search.everything(nodes)
        if OUTSIDE in starts and not (search.waiting and self.questions is not None):
            search.ask_outside()
        override_by_answers(known, search.verdict, search.reason, search.node)
        return search.decision()

    def _starts(self, world: World, tree: Tree) -> Rows:
        outside = [OUTSIDE] if self.ask_small and len(world) > world.leaves else []
        return np.concatenate([start_nodes(tree, self.start), np.array(outside, np.int64)])


def _tree_of(world: World) -> Tree:
    if world.tree is None:
        raise SegloopError(
            "annotation.policy: iccv21 needs a tree, and there is none. Cluster the predictions, or use "
            "annotation.policy: per_mask."
        )
    return world.tree


@dataclass(frozen=True)
class _Ground:
    """What a search needs of every mask, in the order of the tree."""

    total: npt.NDArray[np.float64]
    """Sum of the priors of the masks before each place, [N + 1]."""
    rank: npt.NDArray[np.uint32]
    """A random order of the masks, [N]. The members of a cluster that come first in it are its sample, so that what was
    asked of a cluster is the beginning of what is asked of its children."""

    def prior(self, tree: Tree, nodes: Rows) -> npt.NDArray[np.float64]:
        """Return the mean prior of the members of each node."""
        start, size = tree.start[nodes].astype(np.int64), tree.size[nodes].astype(np.int64)
        return np.asarray((self.total[start + size] - self.total[start]) / size, np.float64)

    def sample(self, tree: Tree, node: int, count: int) -> Rows:
        """Return the members of a node that come first, at most `count`, in their random order."""
        start, size = int(tree.start[node]), int(tree.size[node])
        rank = self.rank[start : start + size]
        first = np.arange(size) if size <= count else np.argpartition(rank, count)[:count]
        return np.asarray(tree.order[start + first[np.argsort(rank[first])]], np.int64)


@lru_cache(maxsize=2)
def _ground(world: World, seed: int) -> _Ground:
    tree = _tree_of(world)
    prior = world.score if world.predicted_iou is None else world.score * world.predicted_iou
    total = np.concatenate([[0], np.cumsum(prior[np.asarray(tree.order, np.int64)], dtype=np.float64)])
    rank = generator("iccv21", seed).permutation(np.arange(tree.n, dtype=np.uint32))
    return _Ground(total, rank)


class _Search:
    """One pass down the tree, to the clusters that wait for answers or are decided."""

    def __init__(self, world: World, tree: Tree, known: Known, ground: _Ground, policy: Iccv21) -> None:
        self.verdict = np.zeros(len(world), np.int8)
        self.reason = np.zeros(len(world), np.int8)
        self.node = np.full(len(world), -1, np.int64)
        self.waiting: list[int] = []
        self._world, self._tree, self._known, self._ground, self._policy = world, tree, known, ground, policy
        self._asked = np.zeros(len(world), np.bool_)
        self._spent = 0
        self._questions: list[tuple[int, Rows, Rows]] = []
        self._counted: list[tuple[int, Rows]] = []

    def everything(self, nodes: Rows) -> None:
        """Work on all nodes and what is below them; each cluster waits for itself alone."""
        while len(nodes):
            below: list[int] = []
            for node in self._candidates(nodes).tolist():
                rows = self._sample(node)
                if self._ask(node, rows):
                    below += self._decide(node, rows)
                else:
                    self.waiting.append(node)
            nodes = np.array(below, np.int64)

    def best_first(self, starts: Rows, unit: int | None) -> None:
        """Work on the nodes with the highest prior, some at a time, until a limit is reached.

        Parameters
        ----------
        starts
            Where to start, in depth-first order.
        unit
            The unit that waits for the answers; None: the clusters themselves.
        """
        left = np.full(len(starts), np.iinfo(np.int64).max if self._policy.clusters is None else self._policy.clusters)
        frontier, ended = self._candidates(starts), False
        while len(frontier) and not ended:
            frontier = frontier[left[self._group(starts, frontier)] > 0]
            frontier = frontier[np.lexsort((frontier, -self._ground.prior(self._tree, frontier)))]
            chosen, ended = self._affordable(frontier, self._group(starts, frontier), left)
            open_nodes = [node for node, rows in chosen if not self._ask(node, rows)]
            if open_nodes:
                self.waiting += open_nodes if unit is None else [unit]
                return
            below = [child for node, rows in chosen for child in self._decide(node, rows)]
            rest = frontier[~np.isin(frontier, [node for node, _ in chosen])]
            frontier = np.concatenate([rest, self._candidates(np.array(below, np.int64))])

    def ask_outside(self) -> None:
        """Ask the predictions outside the tree one by one, as far as the limit allows."""
        rows = np.arange(self._world.leaves, len(self._world), dtype=np.int64)
        if self._policy.questions is not None:
            rows = rows[: max(0, self._policy.questions - self._spent)]
        if not self._ask(OUTSIDE, rows):
            self.waiting.append(OUTSIDE)

    def _candidates(self, nodes: Rows) -> Rows:
        """Return the highest nodes at or below these that are worth a question, in depth-first order."""
        found = [np.zeros(0, np.int64)]
        tree, least = self._tree, self._policy.min_size
        while len(nodes):
            size = tree.size[nodes].astype(np.int64)
            low = (size > least) & (self._ground.prior(tree, nodes) < self._policy.min_prior)
            found.append(nodes[~low] if self._policy.ask_small else nodes[~low & (size >= least)])
            inner = nodes[low] - tree.n
            nodes = np.concatenate([tree.left[inner], tree.right[inner]]).astype(np.int64)
        highest = np.concatenate(found)
        return highest[np.argsort(tree.start[highest], kind="stable")]

    def _sample(self, node: int) -> Rows:
        """Return the masks to ask of a cluster: some of a large one, all of a small one."""
        size = int(self._tree.size[node])
        return self._ground.sample(self._tree, node, size if size < self._policy.min_size else self._policy.n)

    def _group(self, starts: Rows, nodes: Rows) -> Rows:
        """Return the position in `starts` of the node that each node is below."""
        first = self._tree.start[starts].astype(np.int64)
        return np.searchsorted(first, self._tree.start[nodes].astype(np.int64), side="right") - 1

    def _affordable(self, frontier: Rows, group: Rows, left: Rows) -> tuple[list[tuple[int, Rows]], bool]:
        """Choose the first nodes that are within the limits, with their samples; `left` is reduced by them.

        Returns
        -------
        (nodes and samples, whether the limit on questions ends the search)
        """
        chosen: list[tuple[int, Rows]] = []
        for node, start in zip(frontier.tolist(), group.tolist(), strict=True):
            if len(chosen) == _AT_ONCE:
                break
            if left[start] == 0:
                continue
            rows = self._sample(node)
            fresh = int(np.count_nonzero(~self._asked[rows]))
            if self._policy.questions is not None and self._spent + fresh > self._policy.questions:
                return chosen, True
            self._asked[rows] = True
            self._spent += fresh
            left[start] -= 1
            chosen.append((node, rows))
        return chosen, False

    def _ask(self, node: int, rows: Rows) -> bool:
        """Ask what is not known of these rows; return whether everything is."""
        draws = np.flatnonzero(~self._known.answered[rows])
        if len(draws):
            self._questions.append((node, rows[draws], draws))
        return not len(draws)

    def _decide(self, node: int, rows: Rows) -> list[int]:
        """Accept or reject a cluster by the answers on its sample, or return its children, if any are unanswered."""
        size = int(self._tree.size[node])
        self._counted.append((node, rows))
        replies = self._known.reply[rows]
        yes, no = int(np.count_nonzero(replies == YES)), int(np.count_nonzero(replies == NO))
        others = int(np.count_nonzero(replies == OTHER))
        decided = verdict_of(yes, no, self._policy.accept, self._policy.reject)
        if decided and others <= OTHER_LIMIT * len(rows):
            members = np.asarray(self._tree.members(node), np.int64)
            self.verdict[members], self.reason[members], self.node[members] = decided, CLUSTER, node
            return []
        return [] if size <= len(rows) else list(self._tree.children(node))

    def decision(self) -> Decision:
        """Return the decision so far."""
        nothing = np.zeros(0, np.int64)
        asked = [len(rows) for _, rows, _ in self._questions]
        seen = [len(rows) for _, rows in self._counted]
        return Decision(
            question_row=np.concatenate([nothing, *(rows for _, rows, _ in self._questions)]),
            question_node=np.repeat(np.array([node for node, _, _ in self._questions], np.int64), asked),
            question_draw=np.concatenate([nothing, *(draws for _, _, draws in self._questions)]),
            question_purpose=np.full(sum(asked), DECIDE, np.int8),
            waiting=np.array(self.waiting, np.int64),
            verdict=self.verdict,
            reason=self.reason,
            node=self.node,
            counted_node=np.repeat(np.array([node for node, _ in self._counted], np.int64), seen),
            counted_row=np.concatenate([nothing, *(rows for _, rows in self._counted)]),
            certificates=(),
            certificate=np.full(len(self.verdict), -1, np.int16),
        )


def verdict_of(yes: int, no: int, accept: float, reject: float) -> int:
    """Return `ACCEPTED`, `REJECTED`, or 0 for a cluster that is to be split (also without answers)."""
    # With some slack, because shares such as 17/20 are not exact in floating point.
    if yes + no and yes >= accept * (yes + no) - 1e-9:
        return ACCEPTED
    if yes + no and yes < reject * (yes + no) - 1e-9:
        return REJECTED
    return 0
