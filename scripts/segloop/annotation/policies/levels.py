"""Clusters of several sizes, cut from the tree: what effects of a model can be shared by."""

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
    counts = [max(1, round(share * finest)) for share in _COARSER]
    return np.stack([_padded(cut(tree, count), rows) for count in counts], axis=1)


def _padded(labels: npt.NDArray[np.int32], rows: int) -> npt.NDArray[np.int32]:
    if rows == len(labels):
        return labels
    outside = np.full(rows - len(labels), labels.max(initial=-1) + 1, np.int32)
    return np.concatenate([labels, outside])


def cut(tree: Tree, clusters: int) -> npt.NDArray[np.int32]:
    """Return the cluster of each leaf, int32 [N], numbered in depth-first order, about `clusters` in all."""
    if tree.n == 0:
        return np.zeros(0, np.int32)
    tops = np.asarray(tree.category_node, np.int64) if len(tree.category_node) else np.array([tree.root])
    begin = np.zeros(tree.n, bool)
    for top in tops.tolist():
        size = int(tree.size[top])
        begin[_starts(tree, top, max(1, round(clusters * size / tree.n)))] = True
    number = np.cumsum(begin) - 1
    labels = np.empty(tree.n, np.int32)
    labels[np.asarray(tree.order, np.int64)] = number
    return labels


def _starts(tree: Tree, top: int, clusters: int) -> npt.NDArray[np.int64]:
    """Return where in the depth-first order the clusters below a node begin."""
    start, size = int(tree.start[top]), int(tree.size[top])
    if size == 1 or clusters == 1:
        return np.array([start], np.int64)
    inner = _inner_below(tree, top)
    # Monotone heights never fall towards the root and parents have larger numbers, so that the last `clusters - 1` in
    # this order are a connected top of the subtree.
    highest = inner[np.lexsort((inner, tree.height_mono[inner - tree.n]))][::-1][: clusters - 1]
    right = np.asarray(tree.right, np.int64)[highest - tree.n]
    return np.concatenate([[start], np.asarray(tree.start, np.int64)[right]])


def _inner_below(tree: Tree, top: int) -> npt.NDArray[np.int64]:
    first, last = int(tree.start[top]), int(tree.start[top]) + int(tree.size[top])
    start = tree.start[tree.n :]
    size = tree.size[tree.n :]
    within = (start >= first) & (start < last) & (size <= last - first)
    return np.flatnonzero(within).astype(np.int64) + tree.n
