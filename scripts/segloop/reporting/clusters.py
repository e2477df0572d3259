"""Clusters people can look at: the most and the least pure ones, and how one was split."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import COUNTED_PURPOSES, read_answers
from segloop.annotation.verdicts import CLUSTER, WORDS, Verdicts, read_verdicts
from segloop.randomness import generator
from segloop.reporting.canvas import Canvas
from segloop.reporting.drawing import Pixels
from segloop.reporting.sheets import Sheet, Tile, draw_sheet
from segloop.reporting.shown import category_names, draw_shown, look_up
from segloop.reporting.style import BLUE, GREY, INK, ORANGE, PALE
from segloop.store.tree import Tree, read_tree

SIDE: Final = 112
SAMPLE: Final = 8
"""Masks of a cluster that are shown."""
LEAST_ANSWERS: Final = 3
LEVELS, MOST_SHOWN = 4, 3
"""Levels of a split history, and answered masks shown with each of its clusters."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Said:
    """An answer on a mask: its prediction and whether it was yes."""

    prediction: int
    yes: bool


@dataclass(frozen=True)
class Asked:
    """A cluster and the answers that count in it."""

    node: int
    size: int
    answers: tuple[Said, ...]

    @property
    def yes(self) -> int:
        """Number of answers that are yes."""
        return sum(one.yes for one in self.answers)

    @property
    def share(self) -> float:
        """Share of answers that are yes."""
        return self.yes / len(self.answers)

    @property
    def agreement(self) -> float:
        """How far the answers agree with each other: 1/2 to 1."""
        return max(self.share, 1 - self.share)


def plot_clusters(
    *,
    tree: Path,
    answers: Path,
    verdicts: Path,
    predictions: list[Path],
    shards: list[Path],
    seed_set: Path,
    purity: Path,
    history_svg: Path,
    history_png: Path,
    iteration: int,
    clusters: int,
    seed: int,
) -> None:
    """Draw the clusters whose answers agree most and least, and the splits of one of them.

    Clusters are those that the policy asked about; where it asked about none, the largest nodes of at most 1/50 of all
    masks, with whatever answers fell into them.

    Parameters
    ----------
    tree, answers, verdicts
        Of the iteration.
    predictions, shards
        The iteration's prediction stores and the pool's Parquet files, each in shard order.
    seed_set
        The canonical seed set, for the names of categories.
    purity
        PNG: a cluster a row.
    history_svg, history_png
        The split history.
    clusters
        Rows of each kind.

    Raises
    ------
    SegloopError
        If an input is missing or damaged.
    """
    dendrogram, judged = read_tree(tree), read_verdicts(verdicts)
    said = read_said(answers, dendrogram)
    asked = clusters_asked(dendrogram, said)
    names = category_names(seed_set)
    pictures = _Pictures(predictions, shards, names)
    draw_sheet(_purity_sheet(dendrogram, asked, judged, pictures, clusters, (seed, iteration)), purity, side=SIDE)
    _history(dendrogram, {one.node: one for one in asked}, judged, pictures).save(history_svg, history_png)


@dataclass(frozen=True)
class SaidAt:
    """Answers about masks, and the clusters whose decision counted each."""

    by_prediction: dict[int, bool]
    by_node: dict[int, dict[int, bool]]


def read_said(path: Path, tree: Tree) -> SaidAt:
    """Read what was answered about the masks of a tree, yes or no; the last answer to a mask counts."""
    table = read_answers(path)
    known = set(tree.row_id.tolist())
    by_prediction: dict[int, bool] = {}
    by_node: dict[int, dict[int, bool]] = defaultdict(dict)
    columns = (table.column(name).to_pylist() for name in ("prediction", "purpose", "reply", "counted_at"))
    for prediction, purpose, reply, nodes in zip(*columns, strict=True):
        if purpose not in COUNTED_PURPOSES or reply == "other" or prediction not in known:
            continue
        by_prediction[prediction] = reply == "yes"
        for node in nodes or ():
            by_node[node][prediction] = reply == "yes"
    return SaidAt(by_prediction, dict(by_node))


def clusters_asked(tree: Tree, said: SaidAt) -> list[Asked]:
    """Return the clusters with at least three answers, largest first."""
    if said.by_node:
        found = [
            Asked(node, int(tree.size[node]), tuple(Said(*each) for each in answers.items()))
            for node, answers in said.by_node.items()
        ]
    else:
        found = _cut(tree, said)
    return sorted((one for one in found if len(one.answers) >= LEAST_ANSWERS), key=lambda one: (-one.size, one.node))


def _cut(tree: Tree, said: SaidAt) -> list[Asked]:
    """Return the largest nodes of at most 1/50 of all masks, with the answers inside them."""
    most = max(20, tree.n // 50)
    leaf = {int(row): place for place, row in enumerate(tree.row_id[tree.order].tolist())}
    places = np.array(sorted(leaf[prediction] for prediction in said.by_prediction), np.int64)
    ordered = tree.row_id[tree.order]
    stack, found = ([tree.root] if tree.n else []), []
    while stack:
        node = stack.pop()
        if tree.size[node] > most and not tree.is_leaf(node):
            stack += tree.children(node)
            continue
        start = int(tree.start[node])
        inside = places[np.searchsorted(places, start) : np.searchsorted(places, start + int(tree.size[node]))]
        ids = ordered[inside].tolist()
        found.append(Asked(node, int(tree.size[node]), tuple(Said(one, said.by_prediction[one]) for one in ids)))
    return found


class _Pictures:
    """Looks masks up and draws them."""

    def __init__(self, predictions: list[Path], shards: list[Path], names: dict[int, str]) -> None:
        self._predictions, self._shards, self._names = predictions, shards, names

    def of(self, ids: Sequence[int], side: int) -> list[tuple[Pixels | None, str]]:
        """Return picture and category of each prediction."""
        shown = look_up(np.array(ids, np.uint64), self._predictions, self._shards)
        return [(draw_shown(mask, side), self._names.get(mask.category, f"category {mask.category}")) for mask in shown]


# --- purity -----------------------------------------------------------------------------------------------------------


def _purity_sheet(
    tree: Tree, asked: list[Asked], judged: Verdicts, pictures: _Pictures, clusters: int, key: tuple[int, int]
) -> Sheet:
    title = f"Iteration {key[1]}: the most and the least pure clusters"
    if not asked or not clusters:
        return Sheet(title, message="No cluster of this iteration has three answers.")
    # Among clusters that agree, the one with more answers says more; among the mixed ones, the larger one matters more.
    most = sorted(asked, key=lambda one: (-one.agreement, -len(one.answers), -one.size, one.node))[:clusters]
    least = [one for one in sorted(asked, key=lambda one: (one.agreement, -one.size, one.node)) if one not in most]
    rows = [_row(tree, one, judged, pictures, key) for one in (*most, *least[:clusters])]
    notes = (
        f"Of {len(asked):,} clusters with at least {LEAST_ANSWERS} answers, the {len(most)} that agree most, then the "
        f"{len(rows) - len(most)} that agree least. Each row: masks of one cluster, those that were answered first.",
    )
    return Sheet(title, notes, rows)


def _row(tree: Tree, one: Asked, judged: Verdicts, pictures: _Pictures, key: tuple[int, int]) -> list[Tile]:
    known = {each.prediction: each.yes for each in one.answers}
    members = tree.row_id[tree.members(one.node)]
    others = np.setdiff1d(members, np.array(list(known), np.uint64))
    room = max(SAMPLE - min(len(known), SAMPLE // 2), 0)
    drawn = generator("clusters", *key, one.node).choice(others, min(room, len(others)), replace=False).tolist()
    shown = [*list(known)[: SAMPLE - len(drawn)], *drawn]
    head = (f"{one.size:,} masks", f"{one.yes} of {len(one.answers)} yes")
    tiles = []
    for place, (prediction, (picture, category)) in enumerate(zip(shown, pictures.of(shown, SIDE), strict=True)):
        first = head if place == 0 else (category,)
        second = {True: "✓ yes", False: "✗ no", None: _word(judged, prediction)}[known.get(prediction)]
        tiles.append(Tile(picture, (*first, second)))
    return tiles


def _word(judged: Verdicts, prediction: int) -> str:
    row = int(np.searchsorted(judged.prediction, np.uint64(prediction)))
    return WORDS[int(judged.verdict[row])]


# --- split history ----------------------------------------------------------------------------------------------------

_CARD_WIDTH, _CARD_HEIGHT, _PICTURE = 210, 128, 56
_GAP_X, _GAP_Y, _MARGIN = 16, 44, 24


def _history(tree: Tree, asked: dict[int, Asked], judged: Verdicts, pictures: _Pictures) -> Canvas:
    root = _most_split(tree, asked)
    if root is None:
        canvas = Canvas(760, 120)
        canvas.text((_MARGIN, 46), "No cluster of this iteration was split: the policy decides otherwise.", size=11)
        return canvas
    levels = _levels(tree, asked, root)
    width = max(len(level) for level in levels)
    canvas = Canvas(
        2 * _MARGIN + width * (_CARD_WIDTH + _GAP_X) - _GAP_X,
        2 * _MARGIN + len(levels) * (_CARD_HEIGHT + _GAP_Y) - _GAP_Y,
    )
    centres: dict[int, tuple[float, float]] = {}
    for depth, level in enumerate(levels):
        step = (width * (_CARD_WIDTH + _GAP_X)) / len(level)
        for number, node in enumerate(level):
            centre = _MARGIN - _GAP_X / 2 + (number + 0.5) * step
            centres[node] = (centre, _MARGIN + depth * (_CARD_HEIGHT + _GAP_Y))
    for depth, level in enumerate(levels[1:]):
        above = {child: node for node in levels[depth] if not tree.is_leaf(node) for child in tree.children(node)}
        for node in level:
            (x0, y0), (x1, y1) = centres[above[node]], centres[node]
            canvas.line([(x0, y0 + _CARD_HEIGHT), (x1, y1)], colour=GREY, width=1.4)
    decided = _decided(judged)
    for node, (x, y) in centres.items():
        _card(canvas, (x - _CARD_WIDTH / 2, y), tree, asked.get(node), node, decided, pictures)
    return canvas


def _most_split(tree: Tree, asked: dict[int, Asked]) -> int | None:
    """Return the asked cluster under which most clusters were asked, among those that no asked cluster holds."""
    by_start = sorted(asked.values(), key=lambda one: (int(tree.start[one.node]), -one.size))
    best, most, top, below = None, 0, None, 0
    for one in [*by_start, None]:
        inside = (
            one is not None
            and top is not None
            and int(tree.start[one.node]) + one.size <= int(tree.start[top.node]) + top.size
        )
        if inside:
            below += 1
        else:
            if top is not None and below > most:
                best, most = top.node, below
            top, below = one, 0
    return best


def _levels(tree: Tree, asked: dict[int, Asked], root: int) -> list[list[int]]:
    levels = [[root]]
    while len(levels) < LEVELS:
        below = [
            child
            for node in levels[-1]
            if not tree.is_leaf(node)
            for child in tree.children(node)
            if _touched(tree, asked, child)
        ]
        if not below:
            break
        levels.append(below)
    return levels


def _touched(tree: Tree, asked: dict[int, Asked], node: int) -> bool:
    """Return whether a cluster or one below it was asked about."""
    start, end = int(tree.start[node]), int(tree.start[node]) + int(tree.size[node])
    return any(start <= int(tree.start[one]) and int(tree.start[one]) + int(tree.size[one]) <= end for one in asked)


def _decided(judged: Verdicts) -> dict[int, int]:
    """Return the verdict of each cluster that gave one to all its members."""
    rows = np.flatnonzero(judged.reason == CLUSTER)
    nodes, first = np.unique(judged.node[rows], return_index=True)
    return dict(zip(nodes.tolist(), judged.verdict[rows[first]].tolist(), strict=True))


def _card(
    canvas: Canvas, corner: tuple[float, float], tree: Tree, one: Asked | None, node: int, decided: dict[int, int],
    pictures: _Pictures,
) -> None:  # fmt: skip
    left, top = corner
    verdict = decided.get(node)
    edge = {1: BLUE, -1: ORANGE}.get(verdict or 0, GREY)
    canvas.card((left, top, _CARD_WIDTH, _CARD_HEIGHT), edge=edge, width=2.4 if verdict else 1.2, face="#FFFFFF")
    word = {1: "✓ accepted", -1: "✗ rejected"}.get(verdict or 0, "⋔ split" if one else "")
    canvas.text((left + 12, top + 10), f"{int(tree.size[node]):,} masks", size=9.5, weight="bold")
    canvas.text((left + _CARD_WIDTH - 12, top + 10), word, size=9, align="right", color=INK)
    if one is None:
        canvas.text((left + 12, top + 34), "not asked by itself", size=8.5, color=GREY)
        return
    canvas.text((left + 12, top + 30), f"{one.yes} of {len(one.answers)} answers are yes", size=8.5)
    shown = list(one.answers)[:MOST_SHOWN]
    for number, (answer, (picture, _)) in enumerate(
        zip(shown, pictures.of([each.prediction for each in shown], 2 * _PICTURE), strict=True)
    ):
        x = left + 12 + number * (_PICTURE + 8)
        colour = BLUE if answer.yes else ORANGE
        if picture is None:
            canvas.rectangle((x, top + 50, _PICTURE, _PICTURE), face=PALE, edge=colour, width=2)
        else:
            canvas.picture(picture, (x, top + 50), _PICTURE, edge=colour, width=2)
        canvas.text(
            (x + _PICTURE / 2, top + 50 + _PICTURE + 3),
            "✓" if answer.yes else "✗",
            size=8,
            align="center",
            color=colour,
        )
