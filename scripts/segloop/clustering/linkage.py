"""The exact tree of one partition: fastcluster's core, called in place, and its merges as contiguous ranges.

fastcluster: D. Müllner, Fast Hierarchical, Agglomerative Clustering Routines for R and Python, Journal of Statistical
Software 53(9), 2013.
"""

from dataclasses import dataclass
from typing import Any

import fastcluster
import numpy as np
import numpy.typing as npt

from segloop.clustering import distances


@dataclass(frozen=True)
class PartitionTree:
    """The tree of n rows; leaves 0..n-1 are the rows, inner node n+i was formed by merge i, the root is 2n-2."""

    left: npt.NDArray[np.uint32]
    """First child, [n-1]."""
    right: npt.NDArray[np.uint32]
    """Second child, [n-1]."""
    height: npt.NDArray[np.float32]
    """Distance of the children, ascending, [n-1]."""
    start: npt.NDArray[np.uint32]
    """First place of a node's members in `order`, [2n-1]."""
    size: npt.NDArray[np.uint32]
    """Members of a node, [2n-1]."""
    order: npt.NDArray[np.uint32]
    """Rows in depth-first order, [n]."""
    mean: npt.NDArray[np.float32]
    """Mean of the unit vectors, [D]."""

    @property
    def h_root(self) -> np.float32:
        """Height of the root; 0 for a single row."""
        return self.height[-1] if len(self.height) else np.float32(0)


def partition_tree(unit: npt.NDArray[np.float32], linkage: str) -> PartitionTree:
    """Return the exact tree of one partition.

    Parameters
    ----------
    unit
        n >= 1 rows of length 1, float32 [n, D].
    linkage
        `average`, `complete` (both on 1 - cos) or `ward` (on Euclidean distance).

    Notes
    -----
    Memory: 4 n² bytes for the distances, beside the rows. Time: about 2.6e-8 n² seconds at D = 1024.
    """
    n = len(unit)
    mean = unit.mean(axis=0, dtype=np.float64).astype(np.float32)
    merges = link(distances.condensed(unit, linkage), n, linkage)
    left, right = merges[:, 0].astype(np.uint32), merges[:, 1].astype(np.uint32)
    size = np.concatenate([np.ones(n, np.uint32), merges[:, 3].astype(np.uint32)])
    # Rounding in the linkage may leave a parent a last bit below its child.
    height = np.maximum.accumulate(merges[:, 2]).astype(np.float32)
    start = depth_first_starts(left, right, size)
    order = np.empty(n, np.uint32)
    order[start[:n]] = np.arange(n, dtype=np.uint32)
    return PartitionTree(left, right, height, start, size, order, mean)


def link(condensed: npt.NDArray[np.float64], n: int, linkage: str) -> npt.NDArray[np.float64]:
    """Return the linkage matrix, float64 [n-1, 4], as scipy defines it; `condensed` is destroyed.

    `fastcluster.linkage` copies its input even when it may destroy it; the function that it wraps does not, which
    halves the memory. Should a later fastcluster hide that function, the public one gives the same result.
    """
    core: Any = getattr(fastcluster, "linkage_wrap", None)
    methods: Any = getattr(fastcluster, "mthidx", None)
    if core is None or methods is None:
        return link_by_public_function(condensed, n, linkage)
    merges = np.empty((n - 1, 4), np.float64)
    if n > 1:
        core(n, condensed, merges, methods[linkage])
    return merges


def link_by_public_function(condensed: npt.NDArray[np.float64], n: int, linkage: str) -> npt.NDArray[np.float64]:
    """Do what `link` does with twice the memory."""
    if n < 2:
        return np.empty((0, 4), np.float64)
    return np.asarray(fastcluster.linkage(condensed, linkage, preserve_input=False), np.float64)


def depth_first_starts(
    left: npt.NDArray[np.integer], right: npt.NDArray[np.integer], size: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """Return the first place of each node in depth-first order, uint32, as long as `size`.

    Parameters
    ----------
    left, right
        Children of the inner nodes, which come after the leaves; children before parents.
    size
        Members of every node, leaves first.
    """
    # Parents before children is one sweep downwards: no recursion, however deep a chain of merges is.
    first = len(size) - len(left)
    sizes, starts = size.tolist(), [0] * len(size)
    lefts, rights = left.tolist(), right.tolist()
    for inner in range(len(lefts) - 1, -1, -1):
        begin = starts[first + inner]
        starts[lefts[inner]] = begin
        starts[rights[inner]] = begin + sizes[lefts[inner]]
    return np.array(starts, np.uint32)
