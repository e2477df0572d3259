"""The shape of a tree: how large its parts are and how deep it is."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segloop.store.arrays import Store, public
from segloop.store.tree import KIND

Counts = npt.NDArray[np.int64]

NEAR_COPY: Final = 0.001
"""Cosine distance up to which the embedding hardly tells two predictions apart."""
QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)

_BINS = 60
_ROUNDING = 1e-6
_MADE = [
    *("linkage", "scope", "embedding", "embedding_dim", "base_dim", "pca", "extra_columns", "extra_weight"),
    *("n_exact", "m_max", "seed"),
]


@dataclass(frozen=True)
class Merges:
    """What the shape of a tree over n leaves depends on."""

    n: int
    left: npt.NDArray[np.uint32]
    """First child of inner node n+i, [max(n-1, 0)]."""
    right: npt.NDArray[np.uint32]
    """Second child, [max(n-1, 0)]."""
    height: npt.NDArray[np.floating[Any]]
    """Distance of the children, [max(n-1, 0)]."""


def tree_shape(path: Path) -> dict[str, Any]:
    """Return the depth of a tree, its inversions and near copies, and how it was clustered.

    Parameters
    ----------
    path
        `tree.zarr`; only its merges are read, 16 bytes a leaf.

    Returns
    -------
    {"tree": {"leaves", "depth": {"mean", "median", "max", "histogram": {"width", "leaves"}}, "inversions",
    "near_copies": {"height", "merges"}}, "how": what the tree records about how it was made}. A bar of the histogram
    counts the leaves of `width` depths, from depth 0. An inversion is a node higher than its parent, which happens
    only where partitions were joined. `how` has the same keys for every tree; what one does not record is null.

    Raises
    ------
    SegloopError
        If the tree is missing or damaged.
    """
    store = Store(path, KIND)
    made = public(store.attributes)
    merges = Merges(store.shape("order")[0], *(store.read(name) for name in ("left", "right", "height")))
    # Ward's height of two single predictions is their Euclidean distance, of which 1 - cos is half the square.
    limit = math.sqrt(2 * NEAR_COPY) if made.get("linkage") == "ward" else NEAR_COPY
    return {
        "tree": {
            "leaves": merges.n,
            "depth": summary_of_depths(leaves_by_depth(merges)),
            "inversions": inversions(merges),
            "near_copies": {"height": round(limit, 6), "merges": int(np.count_nonzero(merges.height <= limit))},
        },
        "how": {name: made.get(name) for name in _MADE},
    }


def leaves_by_depth(tree: Merges) -> Counts:
    """Return how many leaves lie at each depth (merges above them), int64 [max depth + 1].

    Level by level from the root: memory is that of the widest level, and time that of the nodes.
    """
    level, found = np.array([2 * tree.n - 2] if tree.n else [], np.int64), []
    while len(level):
        inner = level[level >= tree.n] - tree.n
        found.append(len(level) - len(inner))
        level = np.concatenate([tree.left[inner], tree.right[inner]]).astype(np.int64)
    return np.array(found, np.int64)


def summary_of_depths(leaves: Counts) -> dict[str, Any]:
    """Return mean, median, maximum and histogram of the depth of the leaves; null where there are none."""
    total, width = int(leaves.sum()), max(math.ceil(len(leaves) / _BINS), 1)
    bars = np.add.reduceat(leaves, np.arange(0, len(leaves), width)) if total else leaves
    return {
        "mean": round(float(leaves @ np.arange(len(leaves))) / total, 2) if total else None,
        "median": int(np.searchsorted(np.cumsum(leaves), total / 2)) if total else None,
        "max": len(leaves) - 1 if total else None,
        "histogram": {"width": width, "leaves": bars.tolist()},
    }


def inversions(tree: Merges) -> int:
    """Return the number of inner nodes whose height exceeds their parent's by more than rounding."""
    return sum(
        int(np.count_nonzero(tree.height[child[inner] - tree.n] > tree.height[inner] + _ROUNDING))
        for child, inner in ((child, np.flatnonzero(child >= tree.n)) for child in (tree.left, tree.right))
    )


def summary_of_sizes(sizes: npt.NDArray[np.integer]) -> dict[str, Any]:
    """Return number, largest, quantiles and histogram of sizes, all at least 1.

    Returns
    -------
    {"count", "largest", "quantiles": {"0.5": ...}, "histogram": {"from": [1, 2, 4, ...], "count": [...]}}: each bar
    begins where its number says and ends before the next; quantiles are sizes that occur, null where there are none.
    """
    power = np.frexp(sizes.astype(np.float64))[1] - 1
    bars = np.bincount(power, minlength=1) if len(sizes) else np.zeros(0, np.int64)
    values = np.quantile(sizes, QUANTILES, method="inverted_cdf").tolist() if len(sizes) else [None] * len(QUANTILES)
    return {
        "count": len(sizes),
        "largest": int(sizes.max(initial=0)),
        "quantiles": dict(zip(map(str, QUANTILES), values, strict=True)),
        "histogram": {"from": [1 << bar for bar in range(len(bars))], "count": bars.tolist()},
    }
