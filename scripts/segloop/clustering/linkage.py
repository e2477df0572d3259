"""The exact tree of one partition: fastcluster's core, called in place, and its merges as contiguous ranges.

fastcluster: D. Müllner, Fast Hierarchical, Agglomerative Clustering Routines for R and Python, Journal of Statistical
Software 53(9), 2013.
"""

import heapq
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastcluster
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.clustering import distances
from segloop.clustering.numerics import numerical_threads
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.partitions import Partitions, PartitionTree, write_links

logger = logging.getLogger("segloop.clustering")

# Not part of fastcluster's documented interface, hence perhaps None one day.
_CORE: Any = getattr(fastcluster, "linkage_wrap", None)
_METHODS: Any = getattr(fastcluster, "mthidx", None)


def link_partitions(*, partitions: Path, batch: int, output: Path, config: ClusteringConfig) -> None:
    """Build the trees of one batch of partitions.

    Parameters
    ----------
    partitions
        The store that `partition_predictions` wrote.
    batch
        Which of the `config.batches` batches, from 0; a batch finds its own partitions, and may have none.
    output
        The store to write (`links/{batch}.zarr`).

    Raises
    ------
    SegloopError
        If the store is damaged, or was made for another linkage or scope than is configured now.
    """
    if not 0 <= batch < config.batches:
        raise SegloopError(
            f"There is no batch {batch} among clustering.batches = {config.batches}. Plan the run again."
        )
    source = Partitions(partitions)
    own = deal(np.diff(source.part_offset), source.dim, config.batches)[batch]
    attributes = {"batch": batch, "linkage": config.linkage, "identity": source.identity}
    with numerical_threads(config.threads):
        write_links(output, own, _trees(source, own, config.linkage), source.dim, attributes)


def _trees(source: Partitions, own: npt.NDArray[np.int64], linkage: str) -> Iterator[PartitionTree]:
    sizes = np.diff(source.part_offset)[own]
    seconds = float(np.sum(distances.expected_seconds(sizes, source.dim)))
    memory = distances.expected_bytes(int(sizes.max(initial=0)), source.dim)
    logger.info(
        "linking %d partitions with %d predictions: about %.0f s and %.0f MB",
        *(len(own), int(sizes.sum()), seconds, memory / 1e6),
    )
    for part in tqdm(own.tolist(), desc="linking partitions", disable=None):
        start, stop = int(source.part_offset[part]), int(source.part_offset[part + 1])
        rows = source.embeddings(start, stop)
        yield partition_tree(distances.unit_rows(rows, source.lengths(start, stop)), linkage)


def deal(sizes: npt.NDArray[np.int64], dim: int, batches: int) -> list[npt.NDArray[np.int64]]:
    """Deal partitions out among batches so that the slowest batch is short.

    The most expensive partition goes first, always to the batch with the least work so far (R. L. Graham, Bounds on
    multiprocessing timing anomalies, 1969: at most 4/3 of the best possible).

    Returns
    -------
    One ascending int64 array of partition numbers a batch.
    """
    cost = distances.expected_seconds(sizes, dim)
    # A heap gives the lightest batch; of equal ones the first.
    load = [(0.0, batch) for batch in range(batches)]
    own: list[list[int]] = [[] for _ in range(batches)]
    for part in np.argsort(-cost, kind="stable").tolist():
        seconds, batch = load[0]
        own[batch].append(part)
        heapq.heapreplace(load, (seconds + float(cost[part]), batch))
    return [np.array(sorted(parts), np.int64) for parts in own]


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
    if _CORE is None or _METHODS is None:
        return link_by_public_function(condensed, n, linkage)
    merges = np.empty((n - 1, 4), np.float64)
    if n > 1:
        _CORE(n, condensed, merges, _METHODS[linkage])
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
