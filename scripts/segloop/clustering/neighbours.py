"""Nearest neighbours of a few queries among all predictions of an iteration: exact, streamed over the slabs."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segloop.clustering.distances import has_direction, norms, unit_rows
from segloop.errors import SegloopError
from segloop.store.partitions import Partitions

_SLAB = 16_384
_QUERIES = 512
"""Queries of one product: beside it stand keys of 8 bytes, 64 MB for a slab."""


def exact_neighbours(
    queries: npt.NDArray[np.float32], partitions: Path, k: int, exclude: npt.NDArray[np.uint64] | None = None
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Return the k predictions whose embeddings have the largest cosine with each query.

    Parameters
    ----------
    queries
        Embeddings, float32 [Q, D], of any length above zero.
    partitions
        The store that `partition_predictions` wrote.
    k
        Number of neighbours.
    exclude
        A prediction id a query that is no neighbour of it (itself), [Q]; 0 excludes none.

    Returns
    -------
    (prediction ids uint64 [Q, k], cosines float32 [Q, k]) in descending order of the cosine; ties in the order of the
    store. Where there are fewer than k predictions, ids are 0 and cosines are minus infinity.

    Raises
    ------
    SegloopError
        If the store is damaged, the widths differ, or a query has no direction.

    Notes
    -----
    Each embedding is read once for 512 queries; memory does not depend on the number of predictions but for their ids.
    """
    source = Partitions(partitions)
    if queries.ndim != 2 or (len(queries) and queries.shape[1] != source.dim):
        raise SegloopError(f"Queries of shape {queries.shape} do not fit {source.path} of width {source.dim}.")
    if not bool(has_direction(norms(queries)).all()):
        raise SegloopError("A query's embedding is zero or not finite. Choose another query.")
    unit, row_id = unit_rows(queries), source.row_id
    left_out = np.zeros(len(queries), np.uint64) if exclude is None else np.asarray(exclude, np.uint64)
    ids, cosines = np.zeros((len(queries), k), np.uint64), np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(queries), _QUERIES):
        some = slice(start, start + _QUERIES)
        rows, cosine = _search(unit[some], source, k, _rows_of(left_out[some], row_id))
        found = rows >= 0
        ids[some][found] = row_id[rows[found]]
        cosines[some][found] = cosine[found]
    return ids, cosines


def _rows_of(ids: npt.NDArray[np.uint64], row_id: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Rows of prediction ids, -1 where there is none."""
    if not len(row_id):
        return np.full(len(ids), -1, np.int64)
    order = np.argsort(row_id)
    place = order[np.minimum(np.searchsorted(row_id, ids, sorter=order), len(row_id) - 1)]
    return np.where(row_id[place] == ids, place, -1)


def _search(
    unit: npt.NDArray[np.float32], source: Partitions, k: int, left_out: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    best_rows = np.full((len(unit), 0), -1, np.int64)
    best = np.empty((len(unit), 0), np.float32)
    for start in range(0, source.rows, _SLAB):
        stop = min(start + _SLAB, source.rows)
        slab = unit_rows(source.embeddings(start, stop), source.lengths(start, stop))
        cosine = unit @ slab.T
        inside = np.flatnonzero((left_out >= start) & (left_out < stop))
        cosine[inside, left_out[inside] - start] = -np.inf
        rows = np.broadcast_to(np.arange(start, stop), cosine.shape)
        best_rows, best = _top(np.concatenate([best_rows, rows], axis=1), np.concatenate([best, cosine], axis=1), k)
    best_rows = np.where(np.isfinite(best), best_rows, -1)
    pad = k - best.shape[1]
    return (
        np.pad(best_rows, ((0, 0), (0, pad)), constant_values=-1),
        np.pad(best, ((0, 0), (0, pad)), constant_values=-np.inf),
    )


def _top(
    rows: npt.NDArray[np.int64], cosine: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Keep the k largest of each line in descending order; of equal ones those that come first."""
    # One integer holds the cosine and then the place, so that no two are equal and a partial sort is deterministic.
    keys = _sortable(cosine) << 32 | (0xFFFFFFFF - np.arange(cosine.shape[1], dtype=np.int64))
    if cosine.shape[1] > k:
        chosen = np.argpartition(keys, cosine.shape[1] - k, axis=1)[:, cosine.shape[1] - k :]
        keys = np.take_along_axis(keys, chosen, axis=1)
    else:
        chosen = np.broadcast_to(np.arange(cosine.shape[1]), cosine.shape)
    order = np.take_along_axis(chosen, np.argsort(-keys, axis=1), axis=1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosine, order, axis=1)


def _sortable(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return integers of at most 31 bits and a sign that order as the floats do."""
    # Adding zero turns -0.0 into 0.0; the bits of negative floats ascend as the floats fall.
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
