"""Nearest neighbours among all predictions of an iteration: exact and streamed for few queries, by faiss for many."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.clustering.distances import has_direction, norms, unit_rows
from segloop.clustering.numerics import numerical_threads
from segloop.errors import SegloopError
from segloop.randomness import generator, seed_of
from segloop.store.partitions import Partitions

Rows = npt.NDArray[np.int64]
Slabs = Iterator[tuple[int, npt.NDArray[np.float32]]]

_SLAB = 16_384
_QUERIES = 512
"""Queries of one product: beside it stand keys of 8 bytes, 64 MB for a slab."""

_FEW_QUERIES = 2048
"""About here making the index takes as long as streaming."""
_FEW_ROWS = 5000
"""Below, lists are too short to be worth an index."""
_WIDTH = 128
"""Components that the index compares."""
_LISTS = 16_384
"""At most so many: training takes time with their square."""
_TRAINING_ROWS = 64
"""For each list; faiss warns below 39."""
_PROBES = 32
_PAIRS = 1 << 24
"""Candidates of one pass of ranking: 0.5 GB with what stands beside them."""
_PRODUCTS = 8192
"""Pairs of rows that are multiplied at once: 64 MB at 1024 dimensions."""


def neighbours(
    queries: npt.NDArray[np.float32],
    partitions: Path,
    k: int,
    exclude: npt.NDArray[np.uint64] | None = None,
    *,
    seed: int,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Return the k predictions with the largest cosine with each query, the cheaper way.

    Up to 2,048 queries the search is exact (`exact_neighbours`), beyond it goes through an index and finds nearly all
    of them (`approximate_neighbours`, which is itself exact below 5,000 rows). The limit does not depend on the number
    of rows, because both ways take time in proportion to it: streaming a product for each row and query, the index
    a reduction and a look-up among its lists for each row, whatever the number of queries.

    Parameters
    ----------
    queries, partitions, k, exclude
        As in `exact_neighbours`.
    seed
        Seed of the index's samples; the exact search needs none.

    Returns
    -------
    As in `exact_neighbours`.
    """
    if len(queries) <= _FEW_QUERIES:
        return exact_neighbours(queries, partitions, k, exclude)
    return approximate_neighbours(queries, partitions, k, exclude, seed=seed)


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
    source, unit, left_out = _checked(queries, partitions, exclude)
    rows, cosines = _exact(unit, source, k, left_out)
    return _ids(rows, source), cosines


def approximate_neighbours(
    queries: npt.NDArray[np.float32],
    partitions: Path,
    k: int,
    exclude: npt.NDArray[np.uint64] | None = None,
    *,
    seed: int,
    probes: int = _PROBES,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Return k predictions with nearly the largest cosine with each query; for many queries.

    An inverted file of faiss over at most 128 principal components, one byte each, proposes 10 k candidates (at least
    100), which are then ranked by their true cosines. Below 5,000 rows the search is exact, and so it is for queries
    to which the index proposes fewer than k.

    Parameters
    ----------
    queries, partitions, k, exclude
        As in `exact_neighbours`.
    seed
        Seed of the samples that the index is trained on.
    probes
        Lists of the index that are looked through for a query: more find more and take longer.

    Returns
    -------
    As in `exact_neighbours`; cosines are exact, but a neighbour may be missing.

    Raises
    ------
    SegloopError
        If the store is damaged, the widths differ, or a query has no direction.

    Notes
    -----
    Memory: 136 bytes a row of the store (a byte a component and a row number), 32 kB for each of the index's lists,
    of which there are 4 sqrt(N), at most 16,384, while it is trained, and at most 0.5 GB of candidates. The embeddings
    are read three times, and once more for each further 160,000 queries. One thread: the same call gives the same
    bytes.

    References
    ----------
    M. Douze et al., The Faiss library, 2024.
    """
    source, unit, left_out = _checked(queries, partitions, exclude)
    with numerical_threads(1):
        if source.rows < _FEW_ROWS or not len(unit):
            rows, cosines = _exact(unit, source, k, left_out)
        else:
            rows, cosines = _by_index(unit, source, k, left_out, _Index(source, seed, probes))
            # Lists that were looked through may hold fewer than k rows.
            short = np.flatnonzero((rows >= 0).sum(axis=1) < np.minimum(k, source.rows - (left_out >= 0)))
            rows[short], cosines[short] = _exact(unit[short], source, k, left_out[short])
    return _ids(rows, source), cosines


def nearest(
    unit: npt.NDArray[np.float32], slabs: Slabs, k: int, left_out: Rows
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Return the k rows of all slabs with the largest cosine with each query.

    Parameters
    ----------
    unit
        Queries of length 1, float32 [Q, D]; the memory of 4 Q (slab rows) bytes is the caller's concern.
    slabs
        (number of the first row, rows of length 1), one slab after the other.
    k
        Number of rows.
    left_out
        A row a query that is not returned for it, -1 for none, [Q].

    Returns
    -------
    (rows int64 [Q, k], cosines float32 [Q, k]) in descending order of the cosine, ties in ascending order of rows;
    -1 and minus infinity where there are fewer.
    """
    best_rows, best = np.full((len(unit), 0), -1, np.int64), np.empty((len(unit), 0), np.float32)
    for start, slab in slabs:
        cosine = unit @ slab.T
        inside = np.flatnonzero((left_out >= start) & (left_out < start + len(slab)))
        cosine[inside, left_out[inside] - start] = -np.inf
        rows = np.broadcast_to(np.arange(start, start + len(slab)), cosine.shape)
        best_rows, best = _top(np.concatenate([best_rows, rows], axis=1), np.concatenate([best, cosine], axis=1), k)
    return _padded(best_rows, best, k)


def _checked(
    queries: npt.NDArray[np.float32], partitions: Path, exclude: npt.NDArray[np.uint64] | None
) -> tuple[Partitions, npt.NDArray[np.float32], Rows]:
    """Return the store, queries of length 1, and the row that each leaves out."""
    source = Partitions(partitions)
    if queries.ndim != 2 or (len(queries) and queries.shape[1] != source.dim):
        raise SegloopError(f"Queries of shape {queries.shape} do not fit {source.path} of width {source.dim}.")
    if not bool(has_direction(norms(queries)).all()):
        raise SegloopError("A query's embedding is zero or not finite. Choose another query.")
    if exclude is None:
        return source, unit_rows(queries), np.full(len(queries), -1, np.int64)
    return source, unit_rows(queries), _rows_of(np.asarray(exclude, np.uint64), source.row_id)


def _rows_of(ids: npt.NDArray[np.uint64], row_id: npt.NDArray[np.uint64]) -> Rows:
    """Rows of prediction ids, -1 where there is none."""
    if not len(row_id):
        return np.full(len(ids), -1, np.int64)
    order = np.argsort(row_id)
    place = order[np.minimum(np.searchsorted(row_id, ids, sorter=order), len(row_id) - 1)]
    return np.where(row_id[place] == ids, place, -1)


def _ids(rows: Rows, source: Partitions) -> npt.NDArray[np.uint64]:
    """Prediction ids of rows, 0 for -1."""
    ids = np.zeros(rows.shape, np.uint64)
    ids[rows >= 0] = source.row_id[rows[rows >= 0]]
    return ids


def _slabs(source: Partitions) -> Slabs:
    for start in range(0, source.rows, _SLAB):
        stop = min(start + _SLAB, source.rows)
        yield start, unit_rows(source.embeddings(start, stop), source.lengths(start, stop))


def _exact(
    unit: npt.NDArray[np.float32], source: Partitions, k: int, left_out: Rows
) -> tuple[Rows, npt.NDArray[np.float32]]:
    rows, cosines = np.full((len(unit), k), -1, np.int64), np.full((len(unit), k), -np.inf, np.float32)
    for start in range(0, len(unit), _QUERIES):
        some = slice(start, start + _QUERIES)
        rows[some], cosines[some] = nearest(unit[some], _slabs(source), k, left_out[some])
    return rows, cosines


def _padded(rows: Rows, cosine: npt.NDArray[np.float32], k: int) -> tuple[Rows, npt.NDArray[np.float32]]:
    pad = ((0, 0), (0, k - cosine.shape[1]))
    rows = np.where(np.isfinite(cosine), rows, -1)
    return np.pad(rows, pad, constant_values=-1), np.pad(cosine, pad, constant_values=-np.inf)


def _top(rows: Rows, cosine: npt.NDArray[np.float32], k: int) -> tuple[Rows, npt.NDArray[np.float32]]:
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


def _sortable(values: npt.NDArray[np.float32]) -> Rows:
    """Return integers of at most 31 bits and a sign that order as the floats do."""
    # Adding zero turns -0.0 into 0.0; the bits of negative floats ascend as the floats fall.
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


# --- many queries ---


class _Index:
    """The inverted file: all that touches faiss, whose Python wrapper has no types.

    It compares squared Euclidean distances of unit vectors, 2 - 2 cos, which do not change when principal components
    are centred; inner products would.
    """

    def __init__(self, source: Partitions, seed: int, probes: int) -> None:
        lists = min(int(4 * math.sqrt(source.rows)), _LISTS)
        self._reduction: Any = None
        if source.dim > _WIDTH:
            self._reduction = faiss.PCAMatrix(source.dim, _WIDTH)
            self._reduction.train(np.concatenate(list(_sampled(source, 256 * _WIDTH, seed))))
        training = np.concatenate([self._reduced(part) for part in _sampled(source, _TRAINING_ROWS * lists, seed)])
        self._index = cast(Any, faiss.index_factory(training.shape[1], f"IVF{lists},SQ8", faiss.METRIC_L2))
        self._index.cp.seed = seed_of("neighbours lists", seed) & 0x7FFFFFFF
        self._index.cp.min_points_per_centroid = 1
        self._index.cp.max_points_per_centroid = _TRAINING_ROWS
        self._index.train(training)
        self._index.nprobe = probes
        steps = math.ceil(source.rows / _SLAB)
        for _, slab in tqdm(_slabs(source), desc="indexing embeddings", total=steps, disable=None):
            self._index.add(self._reduced(slab))

    def _reduced(self, unit: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return unit if self._reduction is None else np.asarray(self._reduction.apply(unit), np.float32)

    def candidates(self, unit: npt.NDArray[np.float32], count: int) -> Rows:
        """Return rows that may be near each query, int64 [Q, count], -1 where there are fewer."""
        found = [np.empty((0, count), np.int64)]
        for start in range(0, len(unit), _QUERIES):
            found.append(self._index.search(self._reduced(unit[start : start + _QUERIES]), count)[1])
        return np.concatenate(found)


def _sampled(source: Partitions, size: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield random rows of length 1 in the order of the store, slab by slab."""
    size = min(size, source.rows)
    wanted = np.sort(generator("neighbours sample", seed, size).choice(source.rows, size, replace=False))
    for start, slab in _slabs(source):
        first, last = np.searchsorted(wanted, [start, start + len(slab)])
        yield slab[wanted[first:last] - start]


def _by_index(
    unit: npt.NDArray[np.float32], source: Partitions, k: int, left_out: Rows, index: _Index
) -> tuple[Rows, npt.NDArray[np.float32]]:
    rows, cosines = np.full((len(unit), k), -1, np.int64), np.full((len(unit), k), -np.inf, np.float32)
    # One more than wanted, because the query itself is among them.
    count = min(max(10 * k, 100) + 1, source.rows)
    step = max(_PAIRS // count, 1)
    for start in range(0, len(unit), step):
        some = slice(start, start + step)
        candidates = index.candidates(unit[some], count)
        rows[some], cosines[some] = _ranked(unit[some], source, candidates, k, left_out[some])
    return rows, cosines


def _ranked(
    unit: npt.NDArray[np.float32], source: Partitions, candidates: Rows, k: int, left_out: Rows
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Return the k best candidates of each query by their true cosines, in one pass over the embeddings."""
    rows = np.sort(np.where(candidates == left_out[:, None], -1, candidates), axis=1)
    cosine = np.full(rows.size, -np.inf, np.float32)
    pairs = np.argsort(rows, axis=None, kind="stable")
    flat, width = rows.ravel(), rows.shape[1]
    for start, slab in _slabs(source):
        first, last = np.searchsorted(flat, [start, start + len(slab)], sorter=pairs)
        for some in np.array_split(pairs[first:last], math.ceil((last - first) / _PRODUCTS) or 1):
            cosine[some] = np.einsum("ij,ij->i", slab[flat[some] - start], unit[some // width])
    return _padded(*_top(rows, cosine.reshape(rows.shape), k), k)
