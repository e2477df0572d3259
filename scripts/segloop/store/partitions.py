"""Embeddings sorted by partition, and the trees of partitions: what lies between the index and the tree.

Row r of every array of `partitions.zarr` is leaf r of the tree: partitions follow each other, and within one the rows
ascend by prediction id, so that a partition is one slab.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segloop.store.arrays import Layout, Store, StoreWriter, drop_arrays, fitted, public

PARTITIONS_KIND, LINKS_KIND = "partitions", "links"

_EMBEDDINGS = Layout(chunk_rows=4096, shard_rows=65_536, compressed=False)


class Slabs(Protocol):
    """The sorted embeddings of N predictions in P partitions, wherever they lie."""

    @property
    def path(self) -> Path:
        """What messages call it."""

    @property
    def attributes(self) -> dict[str, Any]:
        """How it was made; `identity` is a hash of the assignment of predictions to rows and partitions."""

    @property
    def part_offset(self) -> npt.NDArray[np.int64]:
        """Partition p holds rows part_offset[p]..part_offset[p+1]-1, [P+1]."""

    @property
    def part_category(self) -> npt.NDArray[np.int32]:
        """Category of each partition, ascending, [P]; 0 when categories are mixed."""

    @property
    def dim(self) -> int:
        """Width of the embeddings, D."""

    @property
    def row_id(self) -> npt.NDArray[np.uint64]:
        """Prediction id of each row, [N]."""

    @property
    def null_id(self) -> npt.NDArray[np.uint64]:
        """Predictions whose embedding is zero or not finite, ascending."""

    def embeddings(self, start: int, stop: int) -> npt.NDArray[np.float16]:
        """Return rows start..stop as they were predicted, float16 [n, D]."""

    def lengths(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return the Euclidean lengths of rows start..stop, float32 [n]."""


class Partitions:
    """Sorted embeddings in a store; slabs are read when they are asked for."""

    def __init__(self, path: str | Path):
        self._store = Store(path, PARTITIONS_KIND)
        self.path = self._store.path
        self.attributes = public(self._store.attributes)
        self.part_offset: npt.NDArray[np.int64] = self._store.read("part_offset").astype(np.int64)
        self.part_category: npt.NDArray[np.int32] = self._store.read("part_category")

    def __len__(self) -> int:
        return len(self.part_category)

    @property
    def rows(self) -> int:
        """Number of embeddings, N."""
        return int(self.part_offset[-1])

    @property
    def dim(self) -> int:
        """Width of the embeddings, D."""
        return int(self._store.shape("embeddings")[1])

    @property
    def row_id(self) -> npt.NDArray[np.uint64]:
        """Prediction id of each row, [N]."""
        return self._store.read("row_id")

    @property
    def null_id(self) -> npt.NDArray[np.uint64]:
        """Predictions whose embedding is zero or not finite, ascending."""
        return self._store.read("null_id")

    def embeddings(self, start: int, stop: int) -> npt.NDArray[np.float16]:
        """Return rows start..stop as they were predicted, float16 [n, D]."""
        return self._store.read("embeddings", start, stop)

    def picked(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Return the given rows, float16 [n, D]."""
        return self._store.read_rows("embeddings", rows)

    def lengths(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return the Euclidean lengths of rows start..stop, float32 [n]."""
        return self._store.read("norm", start, stop)


def drop_embeddings(path: str | Path) -> None:
    """Drop the sorted embeddings of a store for good; which prediction lies where stays.

    Raises
    ------
    SegloopError
        If the store is missing or damaged.
    """
    store = Store(path, PARTITIONS_KIND)
    drop_arrays(path, PARTITIONS_KIND, ["embeddings"] if store.holds("embeddings") else [])


def identity(row_id: npt.NDArray[np.uint64], part_offset: npt.NDArray[np.int64]) -> str:
    """Return a hash of the assignment of predictions to rows and partitions."""
    return hashlib.sha256(row_id.astype("<u8").tobytes() + part_offset.astype("<u8").tobytes()).hexdigest()


def write_partitions(
    path: str | Path,
    *,
    blocks: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]],
    dim: int,
    row_id: npt.NDArray[np.uint64],
    norm: npt.NDArray[np.float32],
    part_offset: npt.NDArray[np.int64],
    part_category: npt.NDArray[np.int32],
    null_id: npt.NDArray[np.uint64],
    attributes: dict[str, Any],
) -> None:
    """Write sorted embeddings, whole or not at all.

    Parameters
    ----------
    blocks
        (rows, embeddings): where each embedding goes, int64 [b], and what goes there, float16 [b, D]; every row of
        the store once, in any order. Runs of consecutive rows make it fast.
    row_id, norm, part_offset, part_category, null_id
        As in `Partitions`.
    attributes
        JSON values that say how it was made, `identity` among them.

    Notes
    -----
    The rows pass through one flat file beside the store, because a shard of a Zarr array is best written once. Memory:
    a block, and one shard of 65,536 rows.
    """
    total = len(row_id)
    with StoreWriter(path, PARTITIONS_KIND, attributes) as store:
        spool = store.folder / "spool"
        _scatter(spool, blocks, dim)
        embeddings = store.create("embeddings", np.float16, (dim,), fitted(total, _EMBEDDINGS))
        for rows in _slabs(spool, total, dim):
            embeddings.append(rows)
        spool.unlink()
        store.write("norm", norm.astype(np.float32, copy=False))
        store.write("row_id", row_id.astype(np.uint64, copy=False))
        store.write("part_offset", part_offset.astype(np.uint64))
        store.write("part_category", part_category.astype(np.int32, copy=False))
        store.write("null_id", null_id.astype(np.uint64, copy=False))


def _scatter(spool: Path, blocks: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]], dim: int) -> None:
    # Writing at offsets, not into a memory map: pages of a map would count as this process's memory.
    with spool.open("wb") as file:
        for rows, values in blocks:
            order = np.argsort(rows, kind="stable")
            rows, values = rows[order], np.ascontiguousarray(values[order], "<f2")
            cuts = np.flatnonzero(np.diff(rows) != 1) + 1
            for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
                if a < b:
                    file.seek(int(rows[a]) * dim * 2)
                    file.write(values[a:b].data)


def _slabs(spool: Path, total: int, dim: int) -> Iterator[npt.NDArray[np.float16]]:
    with spool.open("rb") as file:
        for start in range(0, total, _EMBEDDINGS.shard_rows):
            count = min(_EMBEDDINGS.shard_rows, total - start)
            yield np.frombuffer(file.read(count * dim * 2), "<f2").reshape(count, dim)


@dataclass(frozen=True)
class PartitionTree:
    """The tree of n rows; leaves 0..n-1 are the rows, inner node n+i was formed by merge i, the root is 2n-2."""

    left: npt.NDArray[np.uint32]
    """First child, [n-1]."""
    right: npt.NDArray[np.uint32]
    """Second child, [n-1]."""
    height: npt.NDArray[np.float64]
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
    def h_root(self) -> float:
        """Height of the root; 0 for a single row."""
        return float(self.height[-1]) if len(self.height) else 0.0


@dataclass(frozen=True)
class Links:
    """Trees of some partitions."""

    path: Path
    partition: npt.NDArray[np.int64]
    """Their numbers, ascending, [B]."""
    trees: list[PartitionTree]
    """Their trees, in the same order."""
    attributes: dict[str, Any]
    """How they were made; `identity` names the partitions."""


def write_links(
    path: str | Path,
    partition: npt.NDArray[np.int64],
    trees: Iterable[PartitionTree],
    dim: int,
    attributes: dict[str, Any],
) -> None:
    """Write the trees of some partitions, whole or not at all.

    Parameters
    ----------
    partition
        Numbers of the partitions, ascending, [B].
    trees
        Their trees in the same order; consumed one by one.
    dim
        Width of the embeddings.
    """
    with StoreWriter(path, LINKS_KIND, attributes) as store:
        arrays = {
            name: store.create(name, dtype)
            for name, dtype in (
                ("left", np.uint32),
                ("right", np.uint32),
                ("height", np.float64),
                ("start", np.uint32),
                ("size", np.uint32),
                ("order", np.uint32),
            )
        }
        means, leaves = store.create("mean", np.float32, (dim,), Layout(1024, 65_536)), []
        for tree in trees:
            for name, array in arrays.items():
                array.append(getattr(tree, name))
            means.append(tree.mean[None])
            leaves.append(len(tree.order))
        store.write("partition", partition.astype(np.uint32))
        store.write("leaves", np.array(leaves, np.uint32))


def read_links(path: str | Path) -> Links:
    """Read the trees of some partitions.

    Raises
    ------
    SegloopError
        If the store is missing, truncated or of another schema version.
    """
    store = Store(path, LINKS_KIND)
    leaves = store.read("leaves").astype(np.int64)
    arrays = {name: store.read(name) for name in ("left", "right", "height", "start", "size", "order", "mean")}
    ends = np.cumsum(leaves)
    trees = []
    for number, (count, end) in enumerate(zip(leaves.tolist(), ends.tolist(), strict=True)):
        # Of n leaves a tree has n-1 merges and 2n-1 nodes.
        leaf = slice(end - count, end)
        merge = slice(leaf.start - number, end - number - 1)
        node = slice(leaf.start * 2 - number, end * 2 - number - 1)
        columns = {name: arrays[name][merge] for name in ("left", "right", "height")}
        columns |= {name: arrays[name][node] for name in ("start", "size")}
        trees.append(PartitionTree(**columns, order=arrays["order"][leaf], mean=arrays["mean"][number]))
    return Links(Path(path), store.read("partition").astype(np.int64), trees, public(store.attributes))
