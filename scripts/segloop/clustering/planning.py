"""What clustering will take, before it is done: partitions, bytes and seconds, from the counts alone.

The constants are rough and err on the long side (docs/benchmarks/clustering.md has measured times); requests to a batch
system are rounded up generously, because a killed job costs more than an idle one.
"""

import heapq
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.clustering.embeddings import BLOCK, IN_MEMORY
from segloop.config import ClusteringConfig, DaskConfig
from segloop.errors import SegloopError
from segloop.store.index import read_index_attributes
from segloop.store.partitions import Partitions

logger = logging.getLogger("segloop.clustering")

_PROCESS_BYTES = 300e6
"""Interpreter and libraries of a job."""
_PASS_BYTES_A_SECOND = 150e6
"""Reading or writing embeddings, with what is computed on the way."""


def link_seconds(rows: npt.NDArray[np.int64] | int, dim: int) -> Any:
    """Return about how long the exact tree of so many rows takes on one core: products, linkage, and a fixed part."""
    squares = np.asarray(rows, np.float64) ** 2
    return squares * (1.2e-8 * dim / 1024 + 2e-8) + 1e-3


def link_bytes(rows: int, dim: int) -> float:
    """Return about how much memory the exact tree of so many rows takes in a process of its own.

    Distances (4 n² bytes), rows in two precisions, one block of products, and the arrays of the tree.
    """
    return _PROCESS_BYTES + 4.0 * rows * rows + 6.0 * rows * dim + 3000.0 * rows


@dataclass(frozen=True)
class Limits:
    """How large partitions may be."""

    n_exact: int
    """Up to this size a category stays one partition."""
    m_max: int
    """The largest part of a category that is cut."""


def limits(config: ClusteringConfig, dim: int) -> Limits:
    """Return the configured limits, lowered until a partition fits into `clustering.memory_mb`.

    Raises
    ------
    SegloopError
        If not even ten rows of this width fit.
    """
    fits = _largest(config.memory_mb * 1e6, dim)
    if fits < 10:
        raise SegloopError(
            f"clustering.memory_mb is {config.memory_mb}: too little for embeddings of width {dim}. Give at least "
            f"{math.ceil(link_bytes(1000, dim) / 1e6)} MB."
        )
    return Limits(min(config.n_exact, fits), min(config.m_max, fits))


def _largest(allowed: float, dim: int) -> int:
    # The positive root of link_bytes(n) = allowed.
    slope, rest = 6.0 * dim + 3000.0, _PROCESS_BYTES - allowed
    return max(0, math.floor((-slope + math.sqrt(max(slope * slope - 16.0 * rest, 0.0))) / 8.0))


def expected_partitions(sizes: npt.NDArray[np.int64], allowed: Limits) -> npt.NDArray[np.int64]:
    """Return about how large the partitions of categories of these sizes will be, int64 [P].

    A category beyond `n_exact` is cut into ceil(1.5 n / m_max) parts, here taken as equal.
    """
    counts = np.where(sizes > allowed.n_exact, np.ceil(1.5 * sizes / allowed.m_max), 1).astype(np.int64)
    return np.repeat(np.ceil(sizes / np.maximum(counts, 1)).astype(np.int64), counts)


def announce(sizes: npt.NDArray[np.int64], dim: int, config: ClusteringConfig, allowed: Limits) -> None:
    """Say what clustering categories of these sizes will take, and whether memory lowers the limits."""
    if allowed != Limits(config.n_exact, config.m_max):
        logger.warning(
            "clustering.memory_mb = %d at width %d: n_exact is %d instead of %d, m_max %d instead of %d; larger "
            "categories are split further",
            *(config.memory_mb, dim, allowed.n_exact, config.n_exact, allowed.m_max, config.m_max),
        )
    parts, rows = expected_partitions(sizes, allowed), int(sizes.sum())
    largest, at_once = int(parts.max(initial=0)), min(config.batches * config.workers, max(len(parts), 1))
    minutes = (partition_seconds(rows, dim) + float(np.sum(link_seconds(parts, dim))) / at_once) / 60
    logger.info(
        "clustering %d predictions of %d %s: expecting about %d partitions of up to %d predictions, %.0f MB of sorted "
        "embeddings, %.0f MB of memory in each of %d link processes, and %.1f minutes",
        rows,
        len(sizes),
        "categories" if config.scope == "category" else "kinds",
        len(parts),
        largest,
        rows * dim * 2 / 1e6,
        link_bytes(largest, dim) / 1e6,
        at_once,
        minutes,
    )


def partition_seconds(rows: int, dim: int) -> float:
    """Return about how long it takes to read, assign and sort so many embeddings."""
    # Lengths, assignment, sorting, and the copy into the store.
    return 4 * rows * dim * 2 / _PASS_BYTES_A_SECOND


@dataclass(frozen=True)
class Request:
    """What a job asks of the batch system."""

    mem_mb: int
    """Megabytes."""
    runtime: int
    """Minutes."""


def _request(peak: float, seconds: float) -> Request:
    return Request(math.ceil(1.25 * peak / 1e6), 10 + math.ceil(3 * seconds / 60))


def partition_request(rows: int, dim: int, config: ClusteringConfig) -> Request:
    """Return what sorting so many embeddings needs: about 150 bytes a row, blocks, and the sample for k-means."""
    sample = 0 if rows <= config.n_exact else min(math.ceil(384 * rows / config.m_max), 1 << 18)
    kept = 2.0 * rows if rows <= IN_MEMORY else 0.0
    peak = _PROCESS_BYTES + 150.0 * rows + (20.0 * BLOCK + 14.0 * sample + kept) * dim
    return _request(peak, partition_seconds(rows, dim))


def link_request(sizes: npt.NDArray[np.int64], dim: int, workers: int, dask: DaskConfig | None = None) -> Request:
    """Return what the job needs that links partitions of these sizes; the largest may meet in all workers.

    Workers that are jobs of their own (`dask.cluster: slurm`) take no memory of this one, but may keep it waiting.
    """
    seconds = float(np.sum(link_seconds(sizes, dim))) / max(1, min(workers, len(sizes)))
    if dask is not None and dask.cluster == "slurm" and workers > 1:
        return _request(2 * _PROCESS_BYTES, seconds + dask.timeout_seconds)
    peak = sum(link_bytes(int(rows), dim) for rows in np.sort(sizes)[::-1][:workers])
    return _request(_PROCESS_BYTES + peak, seconds)


def join_request(rows: int, partitions: int, dim: int) -> Request:
    """Return what joining the trees needs: about 300 bytes a row, and the means of the partitions."""
    return _request(_PROCESS_BYTES + 300.0 * rows + 30.0 * partitions * dim, 4e-6 * rows + 1e-8 * partitions**2 * dim)


# --- what the rules ask for: estimates from what is there, the configured bounds before ---

_UNKNOWN_ROWS, _UNKNOWN_DIM = 1_000_000, 2048


def request_to_partition(index: str, config: ClusteringConfig) -> Request:
    """Return what partition_predictions needs; for a million predictions while the index does not exist."""
    known = read_index_attributes(index) if Path(index).exists() else {}
    rows, dim = int(known.get("rows", _UNKNOWN_ROWS)), int(known.get("embedding_dim", _UNKNOWN_DIM))
    return partition_request(rows, dim, config)


def request_to_link(partitions: str, batch: int, config: ClusteringConfig, dask: DaskConfig | None = None) -> Request:
    """Return what a batch needs; its largest possible partitions while they do not exist."""
    if not Path(partitions).exists():
        largest = limits(config, _UNKNOWN_DIM)
        sizes = np.full(config.workers, max(largest.n_exact, largest.m_max), np.int64)
        return link_request(sizes, _UNKNOWN_DIM, config.workers, dask)
    source = Partitions(partitions)
    sizes = np.diff(source.part_offset)
    own = deal(sizes, source.dim, config.batches)[batch]
    return link_request(sizes[own], source.dim, config.workers, dask)


def request_to_join(partitions: str, config: ClusteringConfig) -> Request:
    """Return what join_trees needs; for a million predictions while the partitions do not exist."""
    if not Path(partitions).exists():
        return join_request(_UNKNOWN_ROWS, _UNKNOWN_ROWS // config.m_max + 1, _UNKNOWN_DIM)
    source = Partitions(partitions)
    return join_request(source.rows, len(source), source.dim)


def deal(sizes: npt.NDArray[np.int64], dim: int, batches: int) -> list[npt.NDArray[np.int64]]:
    """Deal partitions out among batches so that the slowest batch is short.

    The most expensive partition goes first, always to the batch with the least work so far (R. L. Graham, Bounds on
    multiprocessing timing anomalies, 1969: at most 4/3 of the best possible).

    Returns
    -------
    One ascending int64 array of partition numbers a batch.
    """
    cost = link_seconds(sizes, dim)
    # A heap gives the lightest batch; of equal ones the first.
    load = [(0.0, batch) for batch in range(batches)]
    own: list[list[int]] = [[] for _ in range(batches)]
    for part in np.argsort(-cost, kind="stable").tolist():
        seconds, batch = load[0]
        own[batch].append(part)
        heapq.heapreplace(load, (seconds + float(cost[part]), batch))
    return [np.array(sorted(parts), np.int64) for parts in own]
