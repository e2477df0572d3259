"""The thesis's policy: ask a few masks of a cluster, accept or reject it whole if they agree, else split it."""

import heapq
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies.base import DECIDE, OUTSIDE, Decision, Known, known_answers, override_by_answers
from segloop.annotation.verdicts import ACCEPTED, CLUSTER, REJECTED
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.randomness import generator
from segloop.store.tree import Tree

OTHER_LIMIT = 0.2
"""A node with more than this share of "not part of this cluster" among its draws is split."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Thesis:
    """The policy of J. Hu, *Clustering for Large-scale Segmentation Dataset Collection*, MIT, 2019, chapter 3.

    From the start nodes downwards: n members are drawn uniformly and asked. If the share of equal answers is at least
    `t_agr`, the whole node is accepted or rejected, else its two children follow. Nodes of at most `s_min` masks are
    asked mask by mask. A mask whose answer is known is never asked again, and its answer stands above the verdict of
    its cluster. Precision is not controlled: n equal answers say little about a large cluster.

    Parameters
    ----------
    n
        Masks asked of a node.
    t_agr
        Agreement from which on a node is decided whole, 0.5 to 1.
    start
        `root`, `category` (category nodes), `cut:S` (the maximal nodes of at most S masks) or `top:K` (the largest
        node is split until there are K).
    s_min
        Nodes of at most this many masks are asked mask by mask; None: `n`.
    reuse
        All answers known in a node count, topped up to `n`, instead of `n` fresh draws. Stricter rather than cheaper.
    """

    n: int = 5
    t_agr: float = 0.8
    start: str = "category"
    s_min: int | None = None
    reuse: bool = False

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        return cls(n=config.n, t_agr=config.t_agr, start=config.start, s_min=config.s_min, reuse=config.reuse)

    def units(self, world: World) -> Rows:
        """Return the start nodes in depth-first order, and `OUTSIDE` if predictions lie outside the tree.

        Raises
        ------
        SegloopError
            If the world has no tree, or its tree has no category nodes to start from.
        """
        if world.tree is None:
            raise SegloopError("annotation.policy: thesis needs a tree, and there is none. Use per_mask, or cluster.")
        nodes = start_nodes(world.tree, self.start)
        outside = [OUTSIDE] if len(world) > world.leaves else []
        return np.concatenate([nodes, np.array(outside, np.int64)])

    def step(self, world: World, answers: Answers, seed: int, units: Rows | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far (see `Policy.step`)."""
        if units is None:
            units = self.units(world)
        if world.tree is None:
            raise SegloopError("annotation.policy: thesis needs a tree, and there is none. Use per_mask, or cluster.")
        known = known_answers(world, answers)
        walk = _Walk(world, world.tree, known, seed, self)
        walk.run(units)
        override_by_answers(known, walk.verdict, walk.reason, walk.node)
        return walk.decision()


@dataclass
class _Walk:
    """One descent from the units to the nodes that wait for answers, or are decided."""

    world: World
    tree: Tree
    known: Known
    seed: int
    policy: Thesis
    questions: list[tuple[int, Rows, Rows]] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    counted: list[tuple[int, Rows]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.verdict = np.zeros(len(self.world), np.int8)
        self.reason = np.zeros(len(self.world), np.int8)
        self.node = np.full(len(self.world), -1, np.int64)
        self.range = _Ranges(self.world, self.tree, self.known) if self.policy.reuse else None

    def run(self, units: Rows) -> None:
        # An explicit stack: average linkage makes trees deeper than Python's recursion may go.
        stack = [int(unit) for unit in reversed(units)]
        s_min = self.policy.n if self.policy.s_min is None else self.policy.s_min
        while stack:
            unit = stack.pop()
            if unit == OUTSIDE:
                rows = np.arange(self.world.leaves, len(self.world), dtype=np.int64)
                self._ask(unit, rows, np.arange(len(rows), dtype=np.int64))
            elif int(self.tree.size[unit]) <= s_min:
                rows = np.asarray(self.tree.members(unit), np.int64)
                self._ask(unit, rows, np.arange(len(rows), dtype=np.int64))
            else:
                stack += self._decide(unit)

    def _ask(self, unit: int, rows: Rows, draws: Rows) -> bool:
        """Ask what is not known of these rows; return whether everything is."""
        missing = ~self.known.answered[rows]
        if not missing.any():
            return True
        self.questions.append((unit, rows[missing], draws[missing]))
        self.waiting.append(unit)
        return False

    def _decide(self, node: int) -> list[int]:
        """Decide a node, ask about it, or return its children, the one to visit first last."""
        rows, draws = self._sample(node)
        if not self._ask(node, rows, draws):
            return []
        self.counted.append((node, rows))
        replies = self.known.reply[rows]
        yes, no = int(np.count_nonzero(replies == YES)), int(np.count_nonzero(replies == NO))
        others = int(np.count_nonzero(replies == OTHER))
        if agree(yes, no, self.policy.t_agr) and others <= OTHER_LIMIT * len(rows):
            members = np.asarray(self.tree.members(node), np.int64)
            self.verdict[members] = ACCEPTED if yes >= no else REJECTED
            self.reason[members] = CLUSTER
            self.node[members] = node
            return []
        left, right = self.tree.children(node)
        return [int(right), int(left)]

    def _sample(self, node: int) -> tuple[Rows, Rows]:
        """Return the rows whose answers decide a node and the numbers of their draws (-1: known, not drawn)."""
        size, first = int(self.tree.size[node]), int(self.tree.start[node])
        if self.range is None:
            picked = draw(self.seed, node, size, min(self.policy.n, size))
            return np.asarray(self.tree.order[first + picked], np.int64), np.arange(len(picked), dtype=np.int64)
        inherited = self.range.inherited(node)
        fresh = max(0, min(self.policy.n, size) - len(inherited))
        # Skipping the known ones in a uniform order leaves a uniform order of the rest.
        picked = draw(self.seed, node, size, min(size, fresh + len(inherited)) if fresh else 0)
        rows = np.asarray(self.tree.order[first + picked], np.int64)
        new = np.flatnonzero(~np.isin(rows, inherited))[:fresh]
        return (
            np.concatenate([inherited, rows[new]]),
            np.concatenate([np.full(len(inherited), -1, np.int64), new.astype(np.int64)]),
        )

    def decision(self) -> Decision:
        nothing = np.zeros(0, np.int64)
        asked = [len(rows) for _, rows, _ in self.questions]
        seen = [len(rows) for _, rows in self.counted]
        return Decision(
            question_row=np.concatenate([nothing, *(rows for _, rows, _ in self.questions)]),
            question_node=np.repeat(np.array([unit for unit, _, _ in self.questions], np.int64), asked),
            question_draw=np.concatenate([nothing, *(draws for _, _, draws in self.questions)]),
            question_purpose=np.full(sum(asked), DECIDE, np.int8),
            waiting=np.array(self.waiting, np.int64),
            verdict=self.verdict,
            reason=self.reason,
            node=self.node,
            counted_node=np.repeat(np.array([node for node, _ in self.counted], np.int64), seen),
            counted_row=np.concatenate([nothing, *(rows for _, rows in self.counted)]),
            certificates=(),
            certificate=np.full(len(self.world), -1, np.int16),
        )


class _Ranges:
    """Finds the answers that a node inherits when answers are re-used."""

    def __init__(self, world: World, tree: Tree, known: Known) -> None:
        rows = np.flatnonzero(known.answered[: world.leaves])
        order = np.argsort(world.position[rows], kind="stable")
        self.rows = rows[order].astype(np.int64)
        self.position = world.position[self.rows]
        self.asked_at = known.node[self.rows]
        self.start, self.size = tree.start, tree.size
        begin = np.zeros(len(self.rows), np.int64)
        end = np.full(len(self.rows), world.leaves, np.int64)
        inside = self.asked_at >= 0
        begin[inside] = np.asarray(tree.start, np.int64)[self.asked_at[inside]]
        end[inside] = begin[inside] + np.asarray(tree.size, np.int64)[self.asked_at[inside]]
        self.begin, self.end = begin, end

    def inherited(self, node: int) -> Rows:
        """Return the members of a node that were answered before it was asked about, in depth-first order.

        Those are the answers that its ancestors asked for, and those from outside the tree. Answers that its
        descendants asked for came later: counting them would change a decision that they followed from.
        """
        first, size = int(self.start[node]), int(self.size[node])
        low, high = np.searchsorted(self.position, [first, first + size])
        part = slice(int(low), int(high))
        earlier = (self.begin[part] <= first) & (self.end[part] >= first + size) & (self.asked_at[part] != node)
        found: Rows = self.rows[part][earlier]
        return found


def agree(yes: int, no: int, t_agr: float) -> bool:
    """Return whether answers agree: max(p, 1 - p) >= t_agr with p the share of yes; False without answers."""
    # Whole numbers, because 1 - 3/10 is below 0.7 in floating point.
    return yes + no > 0 and max(yes, no) >= t_agr * (yes + no) - 1e-9


@lru_cache(maxsize=1 << 16)
def _draw(seed: int, node: int, size: int, count: int) -> tuple[int, ...]:
    uniform = generator("thesis", seed, node).random(count)
    moved: dict[int, int] = {}
    picked = []
    for number in range(count):
        other = number + int(uniform[number] * (size - number))
        picked.append(moved.get(other, other))
        moved[other] = moved.get(number, number)
    return tuple(picked)


def draw(seed: int, node: int, size: int, count: int) -> Rows:
    """Draw members of a node uniformly without replacement.

    Draw number d is a function of (seed, node, d) and the draws before it: it takes the d-th number of a counter-based
    generator keyed by (seed, node), and is the d-th step of a Fisher-Yates shuffle. More draws extend fewer ones.

    Parameters
    ----------
    size
        Members of the node.
    count
        How many to draw, at most `size`.

    Returns
    -------
    int64 [count], places 0..size-1 within the node.
    """
    return np.array(_draw(seed, node, size, count), np.int64)


def start_nodes(tree: Tree, start: str) -> Rows:
    """Return the nodes where the policy starts, in depth-first order; together they hold each leaf once.

    Parameters
    ----------
    start
        `root`, `category`, `cut:S` or `top:K`.

    Raises
    ------
    SegloopError
        If `start` is none of them, or the tree has no category nodes.
    """
    kind, _, number = start.partition(":")
    if tree.n == 0:
        return np.zeros(0, np.int64)
    if kind == "root":
        nodes = np.array([tree.root], np.int64)
    elif kind == "category":
        nodes = _category_nodes(tree)
    elif kind == "cut" and number.isdigit() and int(number) >= 1:
        nodes = _cut(tree, int(number))
    elif kind == "top" and number.isdigit() and int(number) >= 1:
        nodes = _top(tree, int(number))
    else:
        raise SegloopError(f"annotation.start is {start!r}; use root, category, cut:S or top:K with whole S, K above 0")
    return nodes[np.argsort(np.asarray(tree.start, np.int64)[nodes], kind="stable")]


def _category_nodes(tree: Tree) -> Rows:
    nodes = np.asarray(tree.category_node, np.int64)
    if not len(nodes):
        raise SegloopError(
            "annotation.start is category, but the tree has no category nodes (clustering.scope: global). "
            "Use annotation.start: cut:S or top:K, or clustering.scope: category."
        )
    return nodes


def _cut(tree: Tree, largest: int) -> Rows:
    size = np.asarray(tree.size, np.int64)
    above = np.full(len(size), np.iinfo(np.int64).max)
    above[np.asarray(tree.left, np.int64)] = size[tree.n :]
    above[np.asarray(tree.right, np.int64)] = size[tree.n :]
    return np.flatnonzero((size <= largest) & (above > largest)).astype(np.int64)


def _top(tree: Tree, count: int) -> Rows:
    # Largest first; among equals the node with the lowest id.
    heap = [(-tree.n, int(tree.root))]
    while len(heap) < count and heap[0][0] < -1:
        _, node = heapq.heappop(heap)
        for child in tree.children(node):
            heapq.heappush(heap, (-int(tree.size[child]), int(child)))
    return np.array(sorted(node for _, node in heap), np.int64)
