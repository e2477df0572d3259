"""Clusters of several sizes, cut from the tree: what effects of a model can be shared by."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from segloop.store.tree import Tree

FINEST: Final = 4000
"""Clusters of the finest level, at most."""
_MASKS: Final = 40
"""Masks of a cluster of the finest level, at least, on average."""
_COARSER: Final = (0.075, 0.3, 1.0)
"""Clusters of each level as a share of the finest."""


def cluster_levels(tree: Tree, rows: int) -> npt.NDArray[np.int32]:
    """Cut the tree into clusters three times, coarse levels first.

    Each category gets clusters in proportion to its masks, at least one; within it the highest merges are undone. A
    tree that mixes categories is cut as one.

    Parameters
    ----------
    rows
        Rows of the world, at least as many as the tree has leaves; those outside the tree share one more cluster.

    Returns
    -------
    int32 [rows, 3], clusters numbered from 0 at each level.
    """
    finest = min(FINEST, tree.n // _MASKS)
    labels = cuts(tree, [max(1, round(share * finest)) for share in _COARSER])
    if rows == len(labels):
        return labels
    outside = np.broadcast_to(labels.max(axis=0, initial=-1) + 1, (rows - len(labels), labels.shape[1]))
    return np.concatenate([labels, outside])


def cuts(tree: Tree, counts: Sequence[int]) -> npt.NDArray[np.int32]:
    """Return the cluster of each leaf at each level, int32 [N, L], numbered in depth-first order.

    Parameters
    ----------
    counts
        About how many clusters each level has in all, [L].
    """
    if tree.n == 0:
        return np.zeros((0, len(counts)), np.int32)
    tops = np.asarray(tree.category_node, np.int64) if len(tree.category_node) else np.array([tree.root])
    begin = np.zeros((tree.n, len(counts)), np.bool_)
    for top, inner in zip(tops.tolist(), _inner_below(tree, tops), strict=True):
        share = [max(1, round(count * int(tree.size[top]) / tree.n)) for count in counts]
        highest = _highest(tree, inner, max(share) - 1)
        begin[tree.start[top]] = True
        for level, clusters in enumerate(share):
            right = tree.right[highest[: clusters - 1]]
            begin[tree.start[right], level] = True
    labels = np.empty(begin.shape, np.int32)
    labels[tree.order] = np.cumsum(begin, axis=0, dtype=np.int32) - 1
    return labels


def _inner_below(tree: Tree, tops: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the inner nodes at and below each of some nodes that share no leaf, ascending, counted from N.

    One pass over the tree for all of them: a node belongs to the last top that begins no later, unless it is larger.
    """
    order = np.argsort(tree.start[tops], kind="stable")
    first, size = tree.start[tops][order], tree.size[tops][order]
    place = np.searchsorted(first, tree.start[tree.n :], side="right") - 1
    below = tree.size[tree.n :] <= np.where(place >= 0, size[place], 0)
    inner = np.flatnonzero(below)
    # Sixteen bits are sorted by counting.
    key = place[inner].astype(np.uint16 if len(tops) <= 2**16 else np.int64)
    inner = inner[np.argsort(key, kind="stable")]
    ends = np.cumsum(np.bincount(key, minlength=len(tops)))[:-1]
    found: list[npt.NDArray[np.int64]] = [inner] * len(tops)
    for top, part in zip(order.tolist(), np.split(inner, ends), strict=True):
        found[top] = part
    return found


def _highest(tree: Tree, inner: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return the `count` highest of some inner nodes, the highest first.

    Monotone heights never fall towards the root and parents have larger numbers, so that the first of them in this
    order are a connected top of the subtree, however many are taken.
    """
    height = tree.height_mono[inner]
    if 0 < count < len(inner):
        inner = inner[height >= np.partition(height, len(inner) - count)[len(inner) - count]]
        height = tree.height_mono[inner]
    return inner[np.lexsort((inner, height))][::-1][:count]
