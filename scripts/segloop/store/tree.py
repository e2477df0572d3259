"""The tree: a dendrogram over all predictions of an iteration in which every node is one contiguous range.

Leaves are numbered 0..N-1 in the order of the clustered rows (partition, prediction id); inner nodes follow, children
before parents, so that the root is 2N-2. `members(v) = order[start[v] : start[v] + size[v]]`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.errors import SegloopError
from segloop.store.arrays import Store, StoreWriter, public

KIND = "tree"

_DTYPES: dict[str, npt.DTypeLike] = {
    "left": np.uint32,
    "right": np.uint32,
    "height": np.float64,
    "height_mono": np.float64,
    "start": np.uint32,
    "size": np.uint32,
    "order": np.uint32,
    "row_id": np.uint64,
    "null_id": np.uint64,
    "category_id": np.int32,
    "category_node": np.uint32,
    "part_offset": np.uint64,
    "part_root": np.uint32,
    "part_dfs_start": np.uint32,
    "part_category": np.int32,
    "part_mean": np.float32,
    "part_h_root": np.float64,
}


@dataclass(frozen=True)
class Tree:
    """Arrays of a tree over N leaves in P partitions."""

    left: npt.NDArray[np.uint32]
    """First child of inner node N+i, [max(N-1, 0)]."""
    right: npt.NDArray[np.uint32]
    """Second child of inner node N+i, [max(N-1, 0)]."""
    height: npt.NDArray[np.float64]
    """Distance at which the children of node N+i merged, [max(N-1, 0)]; may fall where partitions were joined."""
    height_mono: npt.NDArray[np.float64]
    """The highest `height` at or below node N+i, [max(N-1, 0)]; never falls towards the root."""
    start: npt.NDArray[np.uint32]
    """First place in `order` of a node's members, [max(2N-1, 0)]."""
    size: npt.NDArray[np.uint32]
    """Number of a node's members, [max(2N-1, 0)]."""
    order: npt.NDArray[np.uint32]
    """Leaves in depth-first order, [N]."""
    row_id: npt.NDArray[np.uint64]
    """Prediction id of a leaf, [N]."""
    null_id: npt.NDArray[np.uint64]
    """Predictions whose embedding is zero or not finite, ascending; they are outside the tree."""
    category_id: npt.NDArray[np.int32]
    """Categories that have a node, ascending, [C]; none when the tree mixes categories."""
    category_node: npt.NDArray[np.uint32]
    """The node that holds exactly the leaves of a category, [C]."""
    part_offset: npt.NDArray[np.uint64]
    """Partition p holds leaves part_offset[p]..part_offset[p+1]-1, [P+1]."""
    part_root: npt.NDArray[np.uint32]
    """The node that holds exactly partition p, [P]."""
    part_dfs_start: npt.NDArray[np.uint32]
    """First place in `order` of partition p, [P]."""
    part_category: npt.NDArray[np.int32]
    """Category of partition p, [P]; 0 when the tree mixes categories."""
    part_mean: npt.NDArray[np.float32]
    """Mean of the unit vectors of partition p, [P, D]."""
    part_h_root: npt.NDArray[np.float64]
    """Height of the root of partition p, [P]; 0 for a single leaf."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """How the tree was made."""

    @property
    def n(self) -> int:
        """Number of leaves."""
        return len(self.order)

    @property
    def root(self) -> int:
        """The node that holds all leaves.

        Raises
        ------
        ValueError
            If the tree is empty.
        """
        if self.n == 0:
            raise ValueError("an empty tree has no root")
        return 2 * self.n - 2

    def members(self, node: int) -> npt.NDArray[np.uint32]:
        """Return the leaves below a node: a view of `order`."""
        start = int(self.start[node])
        return self.order[start : start + int(self.size[node])]

    def is_leaf(self, node: int) -> bool:
        """Return whether a node is a single prediction."""
        return node < self.n

    def children(self, node: int) -> tuple[int, int]:
        """Return the two children of an inner node.

        Raises
        ------
        ValueError
            If the node is a leaf.
        """
        if node < self.n:
            raise ValueError(f"node {node} is a leaf of a tree with {self.n} leaves")
        return int(self.left[node - self.n]), int(self.right[node - self.n])


def write_tree(path: str | Path, tree: Tree) -> None:
    """Write a tree whole or not at all."""
    with StoreWriter(path, KIND, {**tree.attributes, "leaves": tree.n}) as store:
        for name, dtype in _DTYPES.items():
            store.write(name, getattr(tree, name).astype(dtype, copy=False))


def read_tree(path: str | Path) -> Tree:
    """Read a tree.

    Raises
    ------
    SegloopError
        If it is missing, truncated or of another schema version.
    """
    store = Store(path, KIND)
    attributes = {key: value for key, value in public(store.attributes).items() if key != "leaves"}
    return Tree(**{name: store.read(name) for name in _DTYPES}, attributes=attributes)


def to_scipy(tree: Tree, part: int) -> npt.NDArray[np.float64]:
    """Return the linkage matrix of one partition as scipy defines it, float64 [n-1, 4]; the tree stores none."""
    first = int(tree.part_offset[part])
    count = int(tree.part_offset[part + 1]) - first
    begin = first - part
    inner = slice(begin, begin + count - 1)
    children = np.stack([tree.left[inner], tree.right[inner]], axis=1).astype(np.float64)
    is_leaf = children < tree.n
    children -= np.where(is_leaf, first, tree.n + begin - count)
    sizes = tree.size[tree.n + begin : tree.n + begin + count - 1]
    return np.column_stack([children, tree.height[inner], sizes])


def validate(tree: Tree) -> None:
    """Check everything that users of a tree rely on; time and memory are linear in N.

    Raises
    ------
    SegloopError
        Naming the first property that does not hold.
    """
    checks: list[tuple[str, Callable[[Tree], bool]]] = [
        ("arrays have the lengths of a binary tree", _lengths_fit),
        ("children come before their parent", _children_first),
        ("every node but the root is the child of exactly one node", _one_parent),
        ("the size of a node is the sum of its children's", _sizes_add_up),
        ("children share the range of their parent", _ranges_nest),
        ("each leaf stands once in the order, at its own start", _order_fits),
        ("heights are finite and monotone heights are the running maximum", _heights_fit),
        ("partitions are ranges of leaves with a node of their own", _partitions_fit),
        ("a category node holds the leaves of its category and no others", _categories_fit),
        ("each prediction stands once", _ids_unique),
    ]
    for promise, holds in checks:
        if not holds(tree):
            raise SegloopError(f"The tree is damaged: it is not true that {promise}. Build the tree again.")


def _lengths_fit(tree: Tree) -> bool:
    inner, nodes, parts = max(tree.n - 1, 0), max(2 * tree.n - 1, 0), len(tree.part_root)
    wanted = {"left": inner, "right": inner, "height": inner, "height_mono": inner, "start": nodes, "size": nodes}
    wanted |= {"row_id": tree.n, "part_offset": parts + 1, "category_node": len(tree.category_id)}
    wanted |= dict.fromkeys(("part_dfs_start", "part_category", "part_mean", "part_h_root"), parts)
    return all(len(getattr(tree, name)) == length for name, length in wanted.items())


def _children_first(tree: Tree) -> bool:
    own = tree.n + np.arange(len(tree.left), dtype=np.int64)
    return bool((tree.left < own).all() and (tree.right < own).all())


def _one_parent(tree: Tree) -> bool:
    seen = np.bincount(tree.left, minlength=len(tree.size)) + np.bincount(tree.right, minlength=len(tree.size))
    return bool((seen[:-1] == 1).all()) and (tree.n == 0 or int(seen[-1]) == 0)


def _sizes_add_up(tree: Tree) -> bool:
    size = tree.size.astype(np.int64)
    return bool((size[: tree.n] == 1).all() and (size[tree.n :] == size[tree.left] + size[tree.right]).all())


def _ranges_nest(tree: Tree) -> bool:
    start, size = tree.start.astype(np.int64), tree.size.astype(np.int64)
    own = start[tree.n :]
    nested = (start[tree.left] == own).all() and (start[tree.right] == own + size[tree.left]).all()
    return bool(nested) and (tree.n == 0 or int(start[tree.root]) == 0)


def _order_fits(tree: Tree) -> bool:
    start = tree.start[: tree.n]
    return bool((start < tree.n).all() and (tree.order[start] == np.arange(tree.n)).all())


def _heights_fit(tree: Tree) -> bool:
    if not bool(np.isfinite(tree.height).all()) or bool((tree.height < 0).any()):
        return False
    below = np.zeros(len(tree.size))
    below[tree.n :] = tree.height_mono
    running = np.maximum(tree.height, np.maximum(below[tree.left], below[tree.right]))
    return bool((running == tree.height_mono).all())


def _partitions_fit(tree: Tree) -> bool:
    offset = tree.part_offset.astype(np.int64)
    if int(offset[0]) != 0 or int(offset[-1]) != tree.n or not bool((np.diff(offset) > 0).all()):
        return False
    return _hold_exactly(tree, tree.part_root, offset) and bool(
        (tree.start[tree.part_root] == tree.part_dfs_start).all()
    )


def _categories_fit(tree: Tree) -> bool:
    if not len(tree.category_id):
        return True
    if not bool((np.diff(tree.part_category) >= 0).all() and (np.diff(tree.category_id) > 0).all()):
        return False
    first = np.searchsorted(tree.part_category, tree.category_id)
    offset = tree.part_offset.astype(np.int64)[np.append(first, len(tree.part_category))]
    return np.array_equal(np.unique(tree.part_category), tree.category_id) and _hold_exactly(
        tree, tree.category_node, offset
    )


def _hold_exactly(tree: Tree, nodes: npt.NDArray[np.uint32], offset: npt.NDArray[np.int64]) -> bool:
    """Whether node i holds exactly the leaves offset[i]..offset[i+1]-1."""
    if not bool((nodes < len(tree.size)).all() and (tree.size[nodes] == np.diff(offset)).all()):
        return False
    starts = tree.start[nodes].astype(np.int64)
    order = np.argsort(starts)
    # The order of leaves, cut at the nodes, must give each range's lowest and highest leaf.
    low = np.minimum.reduceat(tree.order, starts[order]) if len(nodes) else offset[:0]
    high = np.maximum.reduceat(tree.order, starts[order]) if len(nodes) else offset[:0]
    return np.array_equal(low, offset[:-1][order]) and np.array_equal(high, offset[1:][order] - 1)


def _ids_unique(tree: Tree) -> bool:
    ids = np.concatenate([tree.row_id, tree.null_id])
    return len(np.unique(ids)) == len(ids)
