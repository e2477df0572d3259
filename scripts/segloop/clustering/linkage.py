"""The exact tree of one partition: fastcluster's core, called in place, and its merges as contiguous ranges.

fastcluster: D. Müllner, Fast Hierarchical, Agglomerative Clustering Routines for R and Python, Journal of Statistical
Software 53(9), 2013.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastcluster
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.clustering import distances
from segloop.clustering.numerics import memory_limit
from segloop.clustering.planning import deal, link_bytes, link_request, link_seconds
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.files import scratch_directory
from segloop.store.partitions import Partitions, PartitionTree, Slabs, read_links, write_links
from segloop.workers import HERE, Workplace, worker_map

logger = logging.getLogger("segloop.clustering")

# Not part of fastcluster's documented interface, hence perhaps None one day.
_CORE: Any = getattr(fastcluster, "linkage_wrap", None)
_METHODS: Any = getattr(fastcluster, "mthidx", None)


def link_partitions(
    *, partitions: Path, batch: int, output: Path, config: ClusteringConfig, where: Workplace = HERE
) -> None:
    """Build the trees of one batch of partitions.

    Parameters
    ----------
    partitions
        The store that `partition_predictions` wrote.
    batch
        Which of the `config.batches` batches, from 0; a batch finds its own partitions, and may have none.
    output
        The store to write (`links/{batch}.zarr`); the same bytes for any number of `config.workers`.
    where
        Where the workers run, if there are several.

    Raises
    ------
    SegloopError
        If the store is damaged or a partition does not fit into the memory of this job; it is named.
    """
    source = Partitions(partitions)
    own = partitions_of_batch(source, batch, config)
    attributes = {"batch": batch, "linkage": config.linkage, "identity": source.attributes["identity"]}
    if config.workers == 1:
        write_links(output, own, link_slabs(source, own, config), source.dim, attributes)
        return
    sizes = np.diff(source.part_offset)[own]
    _check_memory(source, sizes, config, memory_limit() if where.config.cluster == "local" else where.worker_bytes)
    with scratch_directory(output) as scratch:
        tasks = _tasks(partitions, own, sizes, source.dim, scratch, config)
        with worker_map(config.workers, config.threads, where) as spread:
            spread(_link_task, tasks)
        trees = (tree for task in tasks for tree in read_links(task.output).trees)
        write_links(output, own, trees, source.dim, attributes)


def link_slabs(source: Slabs, own: npt.NDArray[np.int64], config: ClusteringConfig) -> Iterator[PartitionTree]:
    """Yield the trees of some partitions, in their order, linked in this process.

    Raises
    ------
    SegloopError
        If a partition does not fit into the memory of this process; it is named.
    """
    _check_memory(source, np.diff(source.part_offset)[own], config, memory_limit())
    yield from _trees(source, own, config)


def partitions_of_batch(source: Partitions, batch: int, config: ClusteringConfig) -> npt.NDArray[np.int64]:
    """Return the numbers of the partitions that a batch links, ascending."""
    if not 0 <= batch < config.batches:
        raise SegloopError(
            f"There is no batch {batch} among clustering.batches = {config.batches}. Plan the run again."
        )
    return deal(np.diff(source.part_offset), source.dim, config.batches)[batch]


def _check_memory(source: Slabs, sizes: npt.NDArray[np.int64], config: ClusteringConfig, allowed: int | None) -> None:
    """Say what the batch takes, and refuse it where a process is allowed fewer bytes."""
    request = link_request(sizes, source.dim, config.workers)
    logger.info(
        "linking %d partitions with %d predictions in %d processes: about %.0f s of computing and %d MB",
        *(len(sizes), int(sizes.sum()), config.workers, float(np.sum(link_seconds(sizes, source.dim))), request.mem_mb),
    )
    largest = int(sizes.max(initial=0))
    if allowed is not None and link_bytes(largest, source.dim) > allowed:
        raise SegloopError(
            f"The largest partition of {source.path} has {largest} predictions and needs about "
            f"{link_bytes(largest, source.dim) / 1e6:.0f} MB; this job may use {allowed / 1e6:.0f} MB. Give it more, "
            f"or set clustering.memory_mb to {int(allowed / 1e6)}: partitions are then cut until they fit."
        )


@dataclass(frozen=True)
class _Task:
    """Some partitions for one worker, which reads and writes the stores itself: nothing large is sent about."""

    partitions: Path
    own: npt.NDArray[np.int64]
    output: Path
    config: ClusteringConfig


# A task takes at least this long, so that many small partitions do not become many tasks.
_TASK_SECONDS = 5.0


def _tasks(
    partitions: Path,
    own: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    dim: int,
    scratch: Path,
    config: ClusteringConfig,
) -> list[_Task]:
    number = (np.cumsum(link_seconds(sizes, dim)) / _TASK_SECONDS).astype(np.int64)
    cuts = np.flatnonzero(np.diff(number)) + 1
    return [
        _Task(partitions, some, scratch / f"{place}.zarr", config)
        for place, some in enumerate(np.split(own, cuts))
        if len(some)
    ]


def _link_task(task: _Task) -> None:
    source = Partitions(task.partitions)
    write_links(task.output, task.own, _trees(source, task.own, task.config, quiet=True), source.dim, {})


def _trees(
    source: Slabs, own: npt.NDArray[np.int64], config: ClusteringConfig, quiet: bool = False
) -> Iterator[PartitionTree]:
    for part in tqdm(own.tolist(), desc="linking partitions", disable=True if quiet else None):
        start, stop = int(source.part_offset[part]), int(source.part_offset[part + 1])
        try:
            tree = partition_tree(_unit_rows(source, start, stop), config.linkage, config.threads)
        except MemoryError:
            needed = link_bytes(stop - start, source.dim) / 1e6
            raise SegloopError(
                f"Partition {part} of {source.path} has {stop - start} predictions and needs about {needed:.0f} MB, "
                "which this job does not get. Give it more, or lower clustering.memory_mb: partitions are then cut."
            ) from None
        yield tree


def _unit_rows(source: Slabs, start: int, stop: int) -> npt.NDArray[np.float32]:
    return distances.unit_rows(source.embeddings(start, stop), source.lengths(start, stop))


def partition_tree(unit: npt.NDArray[np.float32], linkage: str, threads: int = 1) -> PartitionTree:
    """Return the exact tree of one partition.

    Parameters
    ----------
    unit
        n >= 1 rows of length 1, float32 [n, D].
    linkage
        `average`, `complete` (both on 1 - cos) or `ward` (on Euclidean distance).
    threads
        How many compute the distances.

    Notes
    -----
    Memory: 4 n² bytes for the distances, beside the rows. Time: about 2.6e-8 n² seconds at D = 1024.
    """
    n = len(unit)
    mean = unit.mean(axis=0, dtype=np.float64).astype(np.float32)
    merges = link(distances.condensed(unit, linkage, threads), n, linkage)
    left, right = merges[:, 0].astype(np.uint32), merges[:, 1].astype(np.uint32)
    size = np.concatenate([np.ones(n, np.uint32), merges[:, 3].astype(np.uint32)])
    # Rounding in the linkage may leave a parent a last bit below its child.
    height = np.maximum.accumulate(merges[:, 2])
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
