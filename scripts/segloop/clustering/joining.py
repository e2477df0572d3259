"""From partition trees to one tree: a top tree over partition means, and the splice into contiguous ranges.

For unit vectors the mean of all cosine distances between two clusters is 1 - mu_A . mu_B, with mu the plain mean, and
Ward's distance is sqrt(2 n_A n_B / (n_A + n_B)) |mu_A - mu_B|. So the mean and the size are all that a partition has
to report, and heights between partitions are exact for both. Complete linkage has no such summary: its partitions are
joined as by average linkage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.clustering.linkage import depth_first_starts
from segloop.clustering.numerics import numerical_threads
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.partitions import Links, Partitions, PartitionTree, Slabs, read_links
from segloop.store.tree import Tree, validate, write_tree


def join_trees(*, partitions: Path, links: list[Path], output: Path, config: ClusteringConfig) -> None:
    """Join the trees of all partitions and write the tree of the iteration.

    Parameters
    ----------
    partitions
        The store that `partition_predictions` wrote.
    links
        All stores that `link_partitions` wrote from it, in any order.
    output
        The store to write (`tree.zarr`).

    Raises
    ------
    SegloopError
        If a partition has no tree or has two, or a store of links belongs to other partitions.
    """
    source = Partitions(partitions)
    batches = [_checked(read_links(path), source, config) for path in links]
    write_joined(output, _in_order(batches, source), source, config)


def write_joined(output: Path, trees: Sequence[PartitionTree], source: Slabs, config: ClusteringConfig) -> None:
    """Join the trees of all partitions, one each and in their order; check the tree and write it."""
    attributes = {**source.attributes, "linkage": config.linkage, "threads": config.threads}
    tree = join(
        trees,
        part_offset=source.part_offset,
        part_category=source.part_category,
        row_id=source.row_id,
        null_id=source.null_id,
        dim=source.dim,
        config=config,
        attributes=attributes,
    )
    validate(tree)
    write_tree(output, tree)


def _checked(links: Links, source: Partitions, config: ClusteringConfig) -> Links:
    if links.attributes["identity"] != source.attributes["identity"] or links.attributes["linkage"] != config.linkage:
        raise SegloopError(
            f"{links.path} was made from other partitions than {source.path} or with another linkage than "
            f"{config.linkage}. Delete it and run link_partitions again."
        )
    return links


def _in_order(batches: list[Links], source: Partitions) -> list[PartitionTree]:
    found: dict[int, PartitionTree] = {}
    for links in batches:
        for part, tree in zip(links.partition.tolist(), links.trees, strict=True):
            if part in found:
                raise SegloopError(f"Partition {part} has a second tree in {links.path}. Delete it and link again.")
            found[part] = tree
    missing = [part for part in range(len(source.part_category)) if part not in found]
    if missing:
        raise SegloopError(
            f"{len(missing)} partitions of {source.path} have no tree (the first is {missing[0]}). "
            "Run link_partitions again for all batches."
        )
    return [found[part] for part in range(len(source.part_category))]


def join(
    trees: Sequence[PartitionTree],
    *,
    part_offset: npt.NDArray[np.int64],
    part_category: npt.NDArray[np.int32],
    row_id: npt.NDArray[np.uint64],
    null_id: npt.NDArray[np.uint64],
    dim: int,
    config: ClusteringConfig,
    attributes: dict[str, Any],
) -> Tree:
    """Return one tree over all partitions; see `splice` and `top_tree`.

    Parameters
    ----------
    trees
        One tree a partition, in the order of the partitions.
    dim
        Width of the embeddings.
    """
    part_mean = np.stack([tree.mean for tree in trees]) if trees else np.empty((0, dim), np.float32)
    with numerical_threads(config.threads):
        top = top_tree(part_mean, np.diff(part_offset), part_category, config.linkage, config.scope == "category")
    return splice(
        iter(trees),
        top,
        part_offset=part_offset,
        part_category=part_category,
        part_mean=part_mean,
        row_id=row_id,
        null_id=null_id,
        # Complete linkage has no summary of a partition: partitions are joined as by average linkage.
        attributes={**attributes, "top_linkage": "ward" if config.linkage == "ward" else "average"},
    )


@dataclass
class Merges:
    """Merges over m items: merge t joins nodes left[t] < right[t] (items first, then earlier merges) as node m + t."""

    left: list[int]
    right: list[int]
    height: list[float]
    mean: npt.NDArray[np.float64]
    """Mean of all members, [D]."""
    size: int
    """Number of all members."""


def chain_merges(mean: npt.NDArray[np.floating[Any]], size: npt.NDArray[np.integer], linkage: str) -> Merges:
    """Join weighted items by a nearest-neighbour chain.

    Average and Ward linkage are reducible, so that merging mutual nearest neighbours as they are found gives the same
    tree as always merging the closest pair (F. Murtagh, The Computer Journal 26(4), 1983). Ties go to the lowest
    number.

    Parameters
    ----------
    mean
        Mean of the unit vectors of each of m >= 1 items, [m, D].
    size
        Members of each item, [m].
    linkage
        `ward`, or anything else for average.

    Notes
    -----
    Distances are computed from the means when they are needed: memory 8 m D bytes, time about 3 m products of the
    means with a vector.
    """
    state = _Items(np.array(mean, np.float64), np.array(size, np.float64), linkage)
    chain: list[int] = []
    left: list[int] = []
    right: list[int] = []
    height: list[float] = []
    while len(height) < len(mean) - 1:
        if not chain:
            chain.append(state.first_active())
        distance = state.distances(chain[-1])
        nearest = int(distance.argmin())
        previous = chain[-2] if len(chain) > 1 else -1
        # A nearest item inside the chain can only be a tie that rounding has broken: then the pair at the end merges.
        if previous >= 0 and (distance[previous] <= distance[nearest] or nearest in chain):
            a, b = sorted((state.node[previous], state.node[chain[-1]]))
            left.append(a)
            right.append(b)
            height.append(float(distance[previous]))
            state.merge(previous, chain[-1], len(mean) + len(height) - 1)
            del chain[-2:]
        else:
            chain.append(nearest)
    last = state.first_active()
    return Merges(left, right, height, state.mean[last], int(state.size[last]))


class _Items:
    """Active clusters of a chain; a merged cluster takes the slot of the lower of the two."""

    def __init__(self, mean: npt.NDArray[np.float64], size: npt.NDArray[np.float64], linkage: str):
        self.mean = mean
        self.size = size
        self.node = list(range(len(mean)))
        self._linkage = linkage
        self._active = np.ones(len(mean), bool)
        self._squares = np.einsum("ij,ij->i", mean, mean)

    def first_active(self) -> int:
        return int(self._active.argmax())

    def distances(self, item: int) -> npt.NDArray[np.float64]:
        """Distances from an item to all others; infinite for itself and for slots that are gone."""
        products = self.mean @ self.mean[item]
        if self._linkage == "ward":
            apart = np.maximum(self._squares + self._squares[item] - 2 * products, 0)
            distance = np.sqrt(2 * self.size * self.size[item] / (self.size + self.size[item]) * apart)
        else:
            distance = np.maximum(1 - products, 0)
        distance[~self._active] = np.inf
        distance[item] = np.inf
        return np.asarray(distance)

    def merge(self, a: int, b: int, node: int) -> None:
        keep, drop = min(a, b), max(a, b)
        total = self.size[keep] + self.size[drop]
        self.mean[keep] = (self.size[keep] * self.mean[keep] + self.size[drop] * self.mean[drop]) / total
        self.size[keep] = total
        self._squares[keep] = self.mean[keep] @ self.mean[keep]
        self._active[drop] = False
        self.node[keep] = node


@dataclass(frozen=True)
class TopTree:
    """Merges over P partitions: node t < P is partition t, node P + t was formed by merge t; the root is 2P-2."""

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    height: npt.NDArray[np.float64]
    category_id: npt.NDArray[np.int32]
    """Categories, ascending, [C]; empty when the tree mixes them."""
    category_node: npt.NDArray[np.int64]
    """The top node of each category, [C]."""


def top_tree(
    mean: npt.NDArray[np.float32],
    size: npt.NDArray[np.int64],
    category: npt.NDArray[np.int32],
    linkage: str,
    by_category: bool,
) -> TopTree:
    """Join partitions, those of one category first, so that each category is one node.

    Parameters
    ----------
    mean
        Means of the unit vectors, [P, D].
    size
        Members, [P].
    category
        Category of each partition, ascending, [P].
    by_category
        Whether categories are joined before they meet; else all partitions are alike.
    """
    parts = len(size)
    labels = category if by_category else np.zeros_like(category)
    names, firsts = np.unique(labels, return_index=True)
    left: list[int] = []
    right: list[int] = []
    height: list[float] = []

    def join(items: list[int], means: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[int, Merges]:
        merges = chain_merges(means, sizes, linkage)
        base = parts + len(height)
        nodes = items + list(range(base, base + len(merges.height)))
        left.extend(nodes[a] for a in merges.left)
        right.extend(nodes[b] for b in merges.right)
        height.extend(merges.height)
        return nodes[-1], merges

    bounds = [*firsts.tolist(), parts]
    tops = [join(list(range(a, b)), mean[a:b], size[a:b]) for a, b in pairwise(bounds)]
    if len(tops) > 1:
        join(
            [node for node, _ in tops],
            np.stack([merges.mean for _, merges in tops]),
            np.array([merges.size for _, merges in tops]),
        )
    return TopTree(
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(height, np.float64),
        names.astype(np.int32) if by_category else np.empty(0, np.int32),
        np.array([node for node, _ in tops] if by_category else [], np.int64),
    )


def splice(
    trees: Iterator[PartitionTree],
    top: TopTree,
    *,
    part_offset: npt.NDArray[np.int64],
    part_category: npt.NDArray[np.int32],
    part_mean: npt.NDArray[np.float32],
    row_id: npt.NDArray[np.uint64],
    null_id: npt.NDArray[np.uint64],
    attributes: dict[str, Any],
) -> Tree:
    """Put partition trees and the top tree into one.

    Inner node j of partition p, which starts at row o, becomes N + o - p + j; top node t becomes 2N - P + t.

    Parameters
    ----------
    trees
        One tree a partition, in the order of the partitions; consumed one by one.

    Raises
    ------
    SegloopError
        If there are too many predictions for 32-bit node numbers.
    """
    parts, leaves = len(part_offset) - 1, int(part_offset[-1])
    if 2 * leaves - 1 >= 1 << 32:
        raise SegloopError(f"A tree over {leaves} predictions exceeds 32-bit node numbers. Raise index.score.")
    builder = _Builder(leaves, parts)
    builder.place_partitions(top, np.diff(part_offset))
    for part, tree in enumerate(trees):
        builder.add_partition(part, int(part_offset[part]), tree)
    builder.add_top(top)
    return Tree(
        left=builder.left,
        right=builder.right,
        height=builder.height,
        height_mono=builder.height_mono,
        start=builder.start,
        size=builder.size,
        order=builder.order,
        row_id=row_id.astype(np.uint64),
        null_id=null_id.astype(np.uint64),
        category_id=top.category_id,
        category_node=builder.nodes(top.category_node).astype(np.uint32),
        part_offset=part_offset.astype(np.uint64),
        part_root=builder.part_root.astype(np.uint32),
        part_dfs_start=builder.part_start.astype(np.uint32),
        part_category=part_category.astype(np.int32),
        part_mean=part_mean.astype(np.float32),
        part_h_root=builder.part_h_root,
        attributes=attributes,
    )


class _Builder:
    """The arrays of a tree while its parts come in."""

    def __init__(self, leaves: int, parts: int):
        inner, nodes = max(leaves - 1, 0), max(2 * leaves - 1, 0)
        self._leaves, self._parts = leaves, parts
        self.left, self.right = np.empty(inner, np.uint32), np.empty(inner, np.uint32)
        self.height, self.height_mono = np.empty(inner), np.empty(inner)
        self.start, self.size = np.empty(nodes, np.uint32), np.empty(nodes, np.uint32)
        self.order = np.empty(leaves, np.uint32)
        self.part_root = np.empty(parts, np.int64)
        self.part_start = np.empty(parts, np.int64)
        self.part_h_root = np.empty(parts)

    def place_partitions(self, top: TopTree, part_size: npt.NDArray[np.int64]) -> None:
        """Give each partition and top node its range, without looking into a partition."""
        sizes = part_size.tolist()
        for a, b in zip(top.left.tolist(), top.right.tolist(), strict=True):
            sizes.append(sizes[a] + sizes[b])
        starts = depth_first_starts(top.left, top.right, np.array(sizes, np.uint32))
        self.part_start[:] = starts[: self._parts]
        first = 2 * self._leaves - self._parts
        if self._parts:
            self.start[first:], self.size[first:] = starts[self._parts :], sizes[self._parts :]

    def add_partition(self, part: int, offset: int, tree: PartitionTree) -> None:
        count, begin = len(tree.order), int(self.part_start[part])
        inner = slice(offset - part, offset - part + count - 1)
        node = slice(self._leaves + inner.start, self._leaves + inner.stop)
        self.left[inner] = _relabelled(tree.left, count, offset, node.start)
        self.right[inner] = _relabelled(tree.right, count, offset, node.start)
        # Within a partition heights ascend with the node number, so that they are their own running maximum.
        self.height[inner] = self.height_mono[inner] = tree.height
        self.start[offset : offset + count] = begin + tree.start[:count]
        self.start[node] = begin + tree.start[count:]
        self.size[offset : offset + count] = 1
        self.size[node] = tree.size[count:]
        self.order[begin : begin + count] = offset + tree.order
        self.part_root[part] = offset if count == 1 else node.stop - 1
        self.part_h_root[part] = tree.h_root

    def add_top(self, top: TopTree) -> None:
        inner = slice(self._leaves - self._parts, None)
        if not len(top.left):
            return
        self.left[inner] = self.nodes(top.left)
        self.right[inner] = self.nodes(top.right)
        self.height[inner] = top.height
        mono = self.part_h_root.tolist()
        for a, b, height in zip(top.left.tolist(), top.right.tolist(), self.height[inner].tolist(), strict=True):
            mono.append(max(mono[a], mono[b], height))
        self.height_mono[inner] = mono[self._parts :]

    def nodes(self, top_nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Numbers in the whole tree of nodes of the top tree."""
        numbers = np.concatenate(
            [self.part_root, 2 * self._leaves - self._parts + np.arange(max(self._parts - 1, 0), dtype=np.int64)]
        )
        return numbers[top_nodes]


def _relabelled(children: npt.NDArray[np.uint32], count: int, offset: int, first_inner: int) -> npt.NDArray[np.int64]:
    local = children.astype(np.int64)
    return np.where(local < count, offset + local, first_inner + local - count)
