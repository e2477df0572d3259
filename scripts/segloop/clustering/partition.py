"""Which predictions are linked together: by category, and beyond a limit by spherical k-means.

A category of at most `n_exact` predictions is one partition, whose tree is exact. A larger one is cut into parts of at
most `m_max`, because linkage needs 4 m² bytes. Embeddings are streamed from the prediction shards; no step holds more
than a block of them, apart from the samples that k-means learns from.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.clustering import distances
from segloop.clustering.numerics import numerical_threads, versions
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.ids import ROW_BITS, SHARD_BITS
from segloop.randomness import generator, seed_of
from segloop.store.index import read_index_columns
from segloop.store.partitions import write_partitions
from segloop.store.predictions import PredictionShard

logger = logging.getLogger("segloop.clustering")

Rows = npt.NDArray[np.int64]

_BLOCK = 16_384
"""Embeddings in memory at a time."""
_TRAINING_ROWS = 256
"""Rows a centroid learns from; more does not change it noticeably (faiss's own limit)."""
_SMALL = 200
"""Parts below this many rows join their nearest sibling."""
_ROUNDS = 8
"""After this many rounds of k-means, parts that are still too large are cut in the order of their rows."""


class Source(Protocol):
    """Embeddings of N predictions, in ascending order of their ids."""

    @property
    def dim(self) -> int:
        """Width of the embeddings."""

    def __len__(self) -> int:
        """Return N."""

    def read(self, rows: Rows) -> npt.NDArray[np.floating[Any]]:
        """Return the embeddings of ascending rows, [n, D]."""


class ArraySource:
    """Embeddings in memory."""

    def __init__(self, embeddings: npt.NDArray[np.floating[Any]]):
        self._embeddings = embeddings
        self.dim = embeddings.shape[1]

    def __len__(self) -> int:
        return len(self._embeddings)

    def read(self, rows: Rows) -> npt.NDArray[np.floating[Any]]:
        """Return the embeddings of ascending rows, [n, D]."""
        return self._embeddings[rows]


class ShardSource:
    """Embeddings in prediction shards.

    Raises
    ------
    SegloopError
        If a prediction's shard is missing or has too few rows, or two shards differ in width; it is named.
    """

    def __init__(self, prediction: npt.NDArray[np.uint64], paths: list[Path], index: Path):
        self._prediction = prediction
        shards = [PredictionShard.open(path) for path in paths]
        self.dim = _common_width(shards)
        self._shards = {shard.iteration << SHARD_BITS | shard.shard: shard for shard in shards}
        owner = prediction >> np.uint64(ROW_BITS)
        numbers, first = np.unique(owner, return_index=True)
        self._bounds = np.append(first, len(prediction)).astype(np.int64)
        self._owners = numbers.tolist()
        for owner_id in self._owners:
            if owner_id not in self._shards:
                iteration, number = owner_id >> SHARD_BITS, owner_id & ((1 << SHARD_BITS) - 1)
                raise SegloopError(
                    f"{index} refers to shard {number} of iteration {iteration}, which is not "
                    "among the prediction shards that were given. Give all shards of the iteration."
                )

    def __len__(self) -> int:
        return len(self._prediction)

    def read(self, rows: Rows) -> npt.NDArray[np.float16]:
        """Return the embeddings of ascending rows, float16 [n, D]."""
        out = np.empty((len(rows), self.dim), np.float16)
        cuts = np.searchsorted(rows, self._bounds)
        for owner, a, b in zip(self._owners, cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            if a < b:
                own = self._prediction[rows[a:b]] & np.uint64((1 << ROW_BITS) - 1)
                out[a:b] = self._shards[owner].embeddings(own.astype(np.int64))
        return out


def _common_width(shards: list[PredictionShard]) -> int:
    widths = {shard.embedding_dim for shard in shards}
    if len(widths) > 1:
        odd = next(shard for shard in shards if shard.embedding_dim != shards[0].embedding_dim)
        raise SegloopError(
            f"Embeddings of {odd.path} have width {odd.embedding_dim}, those of {shards[0].path} have "
            f"{shards[0].embedding_dim}. All shards of an iteration come from one model: predict the odd one again."
        )
    return widths.pop() if widths else 1


@dataclass(frozen=True)
class Partitioning:
    """Where each of N embeddings goes."""

    part: npt.NDArray[np.int32]
    """Partition of each row, -1 for embeddings without a direction, [N]."""
    part_category: npt.NDArray[np.int32]
    """Category of each partition, ascending, [P]; 0 when categories are mixed."""
    norm: npt.NDArray[np.float32]
    """Euclidean length of each embedding, [N]."""

    def leaves(self) -> Rows:
        """Return the rows that have a partition, sorted by (partition, row): leaf l of the tree is row leaves[l]."""
        rows = np.flatnonzero(self.part >= 0)
        return rows[np.argsort(self.part[rows], kind="stable")]

    def offsets(self) -> Rows:
        """Return the first leaf of each partition, and their number at the end, [P+1]."""
        sizes = np.bincount(self.part[self.part >= 0], minlength=len(self.part_category))
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def partition_predictions(
    *, index: Path, predictions: list[Path], output: Path, config: ClusteringConfig, seed: int
) -> None:
    """Sort the embeddings of an iteration by partition.

    Duplicates of earlier predictions are left out; embeddings that are zero or not finite are listed apart.

    Parameters
    ----------
    index
        The iteration's index.
    predictions
        All prediction shards of the iteration.
    output
        The store to write (`partitions.zarr`).

    Raises
    ------
    SegloopError
        If a store is damaged, a shard is missing, or embeddings of two shards differ in width.
    """
    prediction, category = _fresh(index)
    source = ShardSource(prediction, predictions, index)
    with numerical_threads(config.threads):
        parts = partition(source, category, config, seed)
    leaves, offset = parts.leaves(), parts.offsets()
    _announce(np.diff(offset), len(prediction) - len(leaves), source.dim, config)
    write_partitions(
        output,
        blocks=_sorted_blocks(source, leaves),
        dim=source.dim,
        row_id=prediction[leaves],
        norm=parts.norm[leaves],
        part_offset=offset,
        part_category=parts.part_category,
        null_id=prediction[parts.part < 0],
        attributes=attributes(config, seed, source.dim),
    )


def attributes(config: ClusteringConfig, seed: int, dim: int) -> dict[str, Any]:
    """Return what a tree records about how it was made."""
    return {
        "linkage": config.linkage,
        "scope": config.scope,
        "n_exact": config.n_exact,
        "m_max": config.m_max,
        "threads": config.threads,
        "seed": seed,
        "embedding": "box_head",
        "embedding_dim": dim,
        "versions": versions(),
    }


def _fresh(index: Path) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
    prediction, category, duplicate_of = read_index_columns(index, "prediction", "category", "duplicate_of")
    fresh = duplicate_of == 0
    return prediction[fresh], category[fresh]


def _announce(sizes: Rows, nulls: int, dim: int, config: ClusteringConfig) -> None:
    largest = int(sizes.max(initial=0))
    logger.info(
        "%d predictions in %d partitions, the largest of %d; embeddings take %.0f MB; linking takes about %.1f minutes "
        "on one core and %.0f MB; %d predictions have no usable embedding",
        int(sizes.sum()),
        len(sizes),
        largest,
        int(sizes.sum()) * dim * 2 / 1e6,
        float(np.sum(distances.expected_seconds(sizes, dim))) / 60,
        distances.expected_bytes(largest, dim) / 1e6,
        nulls,
    )


def _sorted_blocks(source: Source, leaves: Rows) -> Iterator[tuple[Rows, npt.NDArray[np.float16]]]:
    # Shards are read in their own order and rows are put where they belong: no shard is read twice.
    place = np.full(len(source), -1, np.int64)
    place[leaves] = np.arange(len(leaves))
    rows = np.flatnonzero(place >= 0)
    for block in _blocks(rows, "sorting embeddings"):
        yield place[block], source.read(block).astype(np.float16, copy=False)


def _blocks(rows: Rows, what: str) -> Iterator[Rows]:
    for start in tqdm(range(0, len(rows), _BLOCK), desc=what, disable=None):
        yield rows[start : start + _BLOCK]


# --- which row goes where ---


@dataclass
class _Group:
    """Rows of one category that lie together, while parts are being made."""

    category: int
    size: int
    limit: int
    """How many rows it may keep."""
    centroid: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Unit vector of its centre, [D]; empty if k-means did not make it."""


def partition(source: Source, category: npt.NDArray[np.int32], config: ClusteringConfig, seed: int) -> Partitioning:
    """Decide which rows are linked together.

    Parameters
    ----------
    source
        N embeddings.
    category
        Predicted category of each, [N].
    seed
        Seed of the samples and of k-means.
    """
    norm = np.empty(len(source), np.float32)
    for block in _blocks(np.arange(len(source)), "reading embeddings"):
        norm[block] = distances.norms(source.read(block))
    labels = category if config.scope == "category" else np.zeros_like(category)
    part, groups = _by_category(labels, distances.has_direction(norm), config.n_exact)
    _cut_large(source, norm, part, groups, config.m_max, seed)
    parent = _join_small(groups, config.m_max)
    return _numbered(part, parent, groups, norm)


def _by_category(
    labels: npt.NDArray[np.int32], usable: npt.NDArray[np.bool_], n_exact: int
) -> tuple[npt.NDArray[np.int32], list[_Group]]:
    names, inverse, sizes = np.unique(labels[usable], return_inverse=True, return_counts=True)
    part = np.full(len(labels), -1, np.int32)
    part[usable] = inverse
    return part, [_Group(name, size, n_exact) for name, size in zip(names.tolist(), sizes.tolist(), strict=True)]


def _cut_large(
    source: Source,
    norm: npt.NDArray[np.float32],
    part: npt.NDArray[np.int32],
    groups: list[_Group],
    m_max: int,
    seed: int,
) -> None:
    """Cut groups that are too large, all of them in each pass over the embeddings; changes `part` and `groups`."""
    for round_number in range(_ROUNDS + 1):
        large = [number for number, group in enumerate(groups) if group.size > group.limit]
        if not large:
            return
        own = _rows_of(part, large)
        if round_number == _ROUNDS:
            logger.warning("k-means did not divide %d partitions; they are cut in the order of their rows", len(large))
            for number in large:
                _cut_in_order(part, groups, number, own[number], m_max)
            return
        counts = {number: math.ceil(1.5 * groups[number].size / m_max) if round_number == 0 else 2 for number in large}
        centroids = _train(source, norm, own, counts, seed, round_number)
        _assign(source, norm, part, groups, centroids, m_max)
        for number in large:
            _mend_undivided(part, groups, number, own[number], m_max)


def _rows_of(part: npt.NDArray[np.int32], wanted: list[int]) -> dict[int, Rows]:
    rows = np.flatnonzero(np.isin(part, wanted))
    order = rows[np.argsort(part[rows], kind="stable")]
    bounds = np.searchsorted(part[order], wanted, side="left"), np.searchsorted(part[order], wanted, side="right")
    return {number: order[a:b] for number, a, b in zip(wanted, *bounds, strict=True)}


def _train(
    source: Source,
    norm: npt.NDArray[np.float32],
    own: dict[int, Rows],
    counts: dict[int, int],
    seed: int,
    round_number: int,
) -> dict[int, npt.NDArray[np.float32]]:
    """Return centroids, float32 [K, D], of each group; their samples are read in one pass."""
    samples = {}
    for number, rows in own.items():
        size = min(len(rows), _TRAINING_ROWS * counts[number])
        draw = generator("k-means sample", seed, round_number, number).choice(len(rows), size, replace=False)
        samples[number] = rows[np.sort(draw)]
    wanted = np.sort(np.concatenate(list(samples.values())))
    values = np.concatenate([source.read(block) for block in _blocks(wanted, "sampling embeddings")])
    return {
        number: spherical_kmeans(
            distances.unit_rows(values[np.searchsorted(wanted, rows)], norm[rows]),
            counts[number],
            seed_of("k-means", seed, round_number, number),
        )
        for number, rows in samples.items()
    }


def spherical_kmeans(unit: npt.NDArray[np.float32], k: int, seed: int) -> npt.NDArray[np.float32]:
    """Return k centroids of length 1, float32 [k, D], of rows of length 1.

    One thread, whatever is configured: faiss's sums depend on their order.
    """
    k = min(k, len(unit))
    kmeans = faiss.Kmeans(
        unit.shape[1],
        k,
        niter=10,
        spherical=True,
        seed=seed & 0x7FFFFFFF,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAINING_ROWS,
    )
    with numerical_threads(1):
        kmeans.train(np.ascontiguousarray(unit))
    return np.asarray(kmeans.centroids, np.float32).reshape(k, -1)


def _assign(
    source: Source,
    norm: npt.NDArray[np.float32],
    part: npt.NDArray[np.int32],
    groups: list[_Group],
    centroids: dict[int, npt.NDArray[np.float32]],
    m_max: int,
) -> None:
    """Give each row of the groups to its nearest centroid, in one pass; parts become new groups."""
    base = {}
    for number, centres in centroids.items():
        base[number] = len(groups)
        groups += [_Group(groups[number].category, 0, m_max, centre) for centre in centres]
    for block in _blocks(np.flatnonzero(np.isin(part, list(centroids))), "assigning embeddings"):
        unit = distances.unit_rows(source.read(block), norm[block])
        before = part[block]
        for number in np.unique(before).tolist():
            own = np.flatnonzero(before == number)
            nearest = (unit[own] @ centroids[number].T).argmax(axis=1)
            part[block[own]] = base[number] + nearest
    sizes = np.bincount(part[part >= 0], minlength=len(groups))
    for group, size in zip(groups, sizes.tolist(), strict=True):
        group.size = size


def _mend_undivided(part: npt.NDArray[np.int32], groups: list[_Group], number: int, rows: Rows, m_max: int) -> None:
    # Equal rows all have one nearest centroid, however often k-means is repeated.
    child = int(part[rows[0]])
    if groups[child].size == len(rows) > m_max:
        logger.warning("%d predictions of category %d are alike; cut in order", len(rows), groups[number].category)
        _cut_in_order(part, groups, child, rows, m_max)


def _cut_in_order(part: npt.NDArray[np.int32], groups: list[_Group], number: int, rows: Rows, m_max: int) -> None:
    pieces = np.array_split(rows, math.ceil(len(rows) / m_max))
    for piece in pieces:
        part[piece] = len(groups)
        groups.append(replace(groups[number], size=len(piece), limit=m_max))
    groups[number].size = 0


def _join_small(groups: list[_Group], m_max: int) -> list[int]:
    """Return, for each group, the group that it joins: itself, or the nearest sibling that has room for it."""
    parent = list(range(len(groups)))
    least = min(_SMALL, m_max // 4)
    siblings: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        if group.centroid.size and group.size:
            siblings.setdefault(group.category, []).append(number)
    for own in siblings.values():
        for number in sorted((n for n in own if groups[n].size < least), key=lambda n: (groups[n].size, n)):
            if groups[number].size < least:
                _join_nearest(groups, parent, number, own, m_max)
    return parent


def _join_nearest(groups: list[_Group], parent: list[int], number: int, siblings: list[int], m_max: int) -> None:
    small = groups[number]
    room = [s for s in siblings if s != number and groups[s].size and groups[s].size + small.size <= m_max]
    if not room:
        return
    similarity = np.stack([groups[s].centroid for s in room]) @ small.centroid
    nearest = room[int(similarity.argmax())]
    groups[nearest].size += small.size
    small.size = 0
    parent[number] = nearest


def _numbered(
    part: npt.NDArray[np.int32], parent: list[int], groups: list[_Group], norm: npt.NDArray[np.float32]
) -> Partitioning:
    """Number the groups that have rows by (category, group)."""
    final = sorted((n for n, group in enumerate(groups) if group.size), key=lambda n: (groups[n].category, n))
    number = np.full(len(groups) + 1, -1, np.int32)
    number[final] = np.arange(len(final))
    for group in range(len(groups)):
        number[group] = number[_last(parent, group)]
    categories = np.array([groups[n].category for n in final], np.int32)
    # Rows without a partition are -1 and so read the extra entry at the end.
    return Partitioning(number[part], categories, norm)


def _last(parent: list[int], group: int) -> int:
    while parent[group] != group:
        group = parent[group]
    return group
