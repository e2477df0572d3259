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
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from segloop.clustering import distances
from segloop.clustering.embeddings import IN_MEMORY, ArraySource, FileSource, Rows, ShardSource, Source, blocks, prepare
from segloop.clustering.numerics import numerical_threads, versions
from segloop.clustering.planning import Limits, announce, limits
from segloop.config import ClusteringConfig
from segloop.randomness import generator, seed_of
from segloop.store.index import read_index_columns
from segloop.store.partitions import identity, write_partitions
from segloop.store.predictions import PredictionShard

logger = logging.getLogger("segloop.clustering")

_TRAINING_ROWS = 256
"""Rows a centroid learns from; more does not change it noticeably (faiss's own limit)."""
_FEWEST_TRAINING_ROWS = 39
"""Fewer would not do (faiss's own limit)."""
_SAMPLE = 1 << 18
"""Rows that all centroids of a round learn from together, as far as the fewest allow: 512 MB at D = 1024."""
_SMALL = 200
"""Parts below this many rows join their nearest sibling."""
_ROUNDS = 8
"""After this many rounds of k-means, parts that are still too large are cut in the order of their rows."""


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
    *, index: Path, predictions: list[Path], output: Path, config: ClusteringConfig, seed: int, iteration: int = 1
) -> None:
    """Sort the embeddings of an iteration by partition.

    Duplicates of other predictions are left out; embeddings that are zero or not finite are listed apart.

    Parameters
    ----------
    index
        The iteration's index.
    predictions
        All prediction shards of the iteration.
    output
        The store to write (`partitions.zarr`).
    iteration
        What `{iteration}` in `clustering.embedding_file` stands for.

    Raises
    ------
    SegloopError
        If a store is damaged, a shard is missing, embeddings of two shards differ in width, or the configured
        embedding does not exist; the message names it.
    """
    found = sort_predictions(index, predictions, config, seed, iteration)
    write_partitions(
        output,
        blocks=found.blocks(),
        dim=found.dim,
        row_id=found.row_id,
        norm=found.norm,
        part_offset=found.part_offset,
        part_category=found.part_category,
        null_id=found.null_id,
        attributes=found.attributes,
    )


@dataclass(frozen=True)
class Sorted:
    """N embeddings and their order by partition: `Slabs` that are read from where the embeddings lie already."""

    path: Path
    """The index that they belong to."""
    source: Source
    leaves: Rows
    """Rows of `source` in the order of the partitions, [N]."""
    norm: npt.NDArray[np.float32]
    """Their Euclidean lengths, [N]."""
    row_id: npt.NDArray[np.uint64]
    null_id: npt.NDArray[np.uint64]
    part_offset: npt.NDArray[np.int64]
    part_category: npt.NDArray[np.int32]
    attributes: dict[str, Any]

    @property
    def dim(self) -> int:
        """Width of the embeddings, D."""
        return self.source.dim

    def embeddings(self, start: int, stop: int) -> npt.NDArray[np.float16]:
        """Return rows start..stop as they were predicted, float16 [n, D]."""
        return self.source.read(self.leaves[start:stop]).astype(np.float16, copy=False)

    def lengths(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return the Euclidean lengths of rows start..stop, float32 [n]."""
        return self.norm[start:stop]

    def blocks(self) -> Iterator[tuple[Rows, npt.NDArray[np.float16]]]:
        """Return (rows, embeddings) pairs in the order of the source, so that no shard is read twice."""
        place = np.full(len(self.source), -1, np.int64)
        place[self.leaves] = np.arange(len(self.leaves))
        rows = np.flatnonzero(place >= 0)
        for block in blocks(rows, "sorting embeddings"):
            yield place[block], self.source.read(block).astype(np.float16, copy=False)


def sort_predictions(
    index: Path, predictions: list[Path], config: ClusteringConfig, seed: int, iteration: int = 1
) -> Sorted:
    """Decide which predictions are linked together; parameters and errors are those of `partition_predictions`."""
    fresh = _Fresh.read(index)
    with numerical_threads(config.threads):
        source, made_of = _source(fresh, index, predictions, config, seed, iteration)
        if len(source) <= IN_MEMORY and not isinstance(source, FileSource):
            source = ArraySource(source.read(np.arange(len(source))))
        labels = fresh.category if config.scope == "category" else np.zeros_like(fresh.category)
        allowed = limits(config, source.dim)
        announce(np.unique(labels, return_counts=True)[1].astype(np.int64), source.dim, config, allowed)
        parts = partition(source, labels, allowed, seed)
    leaves, offset = parts.leaves(), parts.offsets()
    sizes, row_id = np.diff(offset), fresh.prediction[leaves]
    logger.info("%d partitions, the largest of %d predictions", len(sizes), int(sizes.max(initial=0)))
    if len(leaves) < len(fresh.prediction):
        logger.info("%d have no usable embedding and stay outside the tree", len(fresh.prediction) - len(leaves))
    return Sorted(
        path=index,
        source=source,
        leaves=leaves,
        norm=parts.norm[leaves],
        row_id=row_id,
        null_id=fresh.prediction[parts.part < 0],
        part_offset=offset,
        part_category=parts.part_category,
        attributes=attributes(config, allowed, seed, source.dim) | made_of | {"identity": identity(row_id, offset)},
    )


@dataclass(frozen=True)
class _Fresh:
    """Predictions of an index that are clustered."""

    prediction: npt.NDArray[np.uint64]
    """Ids, ascending, [N]."""
    category: npt.NDArray[np.int32]
    """Their categories, [N]."""
    row: Rows
    """Their rows in the index, ascending, [N]."""
    total: int
    """Rows of the index."""

    @classmethod
    def read(cls, index: Path) -> "_Fresh":
        prediction, category, duplicate_of = read_index_columns(index, "prediction", "category", "duplicate_of")
        row = np.flatnonzero(duplicate_of == 0)
        return cls(prediction[row], category[row], row, len(prediction))


PARTS = {
    "box_head": ("box_head",),
    "box_and_mask_iou_head": ("box_head", "mask_iou_head"),
    "mask_weighted": ("mask_weighted",),
    "crop": ("crop",),
}
"""Of which stored parts each embedding is made."""


def stored_embeddings(predictions: list[Path]) -> list[str]:
    """Return the values of `clustering.embedding` that all detectors of prediction stores give, if they are there."""
    if not predictions or not (first := PredictionShard.open(predictions[0])).has_embeddings:
        return []
    parts = [one.embedding_parts for one in first.detectors]
    return [name for name, wanted in PARTS.items() if all(part in own for own in parts for part in wanted)]


def _source(
    fresh: _Fresh, index: Path, predictions: list[Path], config: ClusteringConfig, seed: int, iteration: int
) -> tuple[Source, dict[str, Any]]:
    base: Source
    if config.embedding_file is not None:
        path = Path(config.embedding_file.replace("{iteration}", str(iteration)))
        base, what = FileSource(path, fresh.row, fresh.total), f"file:{config.embedding_file}"
    else:
        base, what = ShardSource(fresh.prediction, predictions, index, PARTS[config.embedding]), config.embedding
    extra: dict[str, npt.NDArray[Any]] = {
        column: _extra_column(column, index)[fresh.row] for column in config.extra_columns
    }
    source, record = prepare(base, extra, config, seed)
    return source, {"embedding": what, **record}


def _extra_column(name: str, index: Path) -> npt.NDArray[Any]:
    (column,) = read_index_columns(index, "area" if name == "size" else name)
    return np.log(np.maximum(column, 1)) if name == "size" else column


def attributes(config: ClusteringConfig, allowed: Limits, seed: int, dim: int) -> dict[str, Any]:
    """Return what a tree records about how it was made."""
    return {
        "linkage": config.linkage,
        "scope": config.scope,
        "n_exact": allowed.n_exact,
        "m_max": allowed.m_max,
        "threads": config.threads,
        "seed": seed,
        "embedding_dim": dim,
        "versions": versions(),
    }


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


def partition(source: Source, labels: npt.NDArray[np.int32], allowed: Limits, seed: int) -> Partitioning:
    """Decide which rows are linked together.

    Parameters
    ----------
    source
        N embeddings.
    labels
        Category of each; rows of different labels are never linked in one partition, [N].
    allowed
        How large partitions may be.
    seed
        Seed of the samples and of k-means.
    """
    drawn = _draw(_rows_of(labels, _large_labels(labels, allowed.n_exact)), allowed.m_max, seed, 0)
    norm, sample = _read_once(source, np.sort(np.concatenate([np.empty(0, np.int64), *drawn.values()])))
    part, groups = _by_category(labels, distances.has_direction(norm), allowed.n_exact)
    _cut_large(source, norm, part, groups, allowed.m_max, seed, sample)
    parent = _join_small(groups, allowed.m_max)
    return _numbered(part, parent, groups, norm)


@dataclass(frozen=True)
class _Sample:
    """Some rows in memory."""

    row: Rows
    """Ascending, [S]."""
    values: npt.NDArray[np.floating[Any]]
    """Their embeddings, [S, D]."""


def _large_labels(labels: npt.NDArray[np.int32], n_exact: int) -> list[int]:
    names, sizes = np.unique(labels, return_counts=True)
    return [int(name) for name in names[sizes > n_exact]]


def _draw(own: dict[int, Rows], m_max: int, seed: int, round_number: int) -> dict[int, Rows]:
    """Return the rows that the centroids of each group learn from, ascending."""
    counts = {number: _parts(len(rows), m_max, round_number) for number, rows in own.items()}
    each = max(_FEWEST_TRAINING_ROWS, min(_TRAINING_ROWS, _SAMPLE // max(sum(counts.values()), 1)))
    samples = {}
    for number, rows in own.items():
        size = min(len(rows), each * counts[number])
        random = generator("k-means sample", seed, round_number, number)
        samples[number] = rows[np.sort(random.choice(len(rows), size, replace=False))]
    return samples


def _parts(size: int, m_max: int, round_number: int) -> int:
    """Return into how many parts k-means cuts so many rows; parts that are still too large are halved."""
    return math.ceil(1.5 * size / m_max) if round_number == 0 else 2


def _read_once(source: Source, wanted: Rows) -> tuple[npt.NDArray[np.float32], _Sample]:
    """Return the length of every row and the wanted rows, in one pass over the embeddings."""
    norm = np.empty(len(source), np.float32)
    kept = [source.read(np.empty(0, np.int64))]
    for block in blocks(np.arange(len(source)), "reading embeddings"):
        values = source.read(block)
        norm[block] = distances.norms(values)
        first, last = np.searchsorted(wanted, [block[0], block[-1] + 1])
        # A copy, so that the block itself can go.
        kept.append(values[wanted[first:last] - block[0]])
    return norm, _Sample(wanted, np.concatenate(kept))


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
    sample: _Sample,
) -> None:
    """Cut groups that are too large, all of them in each pass over the embeddings; changes `part` and `groups`.

    The first round learns from `sample`, later ones draw and read their own.
    """
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
        counts = {number: _parts(groups[number].size, m_max, round_number) for number in large}
        if round_number or _too_few(sample, part, counts):
            drawn = np.sort(np.concatenate(list(_draw(own, m_max, seed, round_number).values())))
            parts = [source.read(block) for block in blocks(drawn, "sampling embeddings")]
            sample = _Sample(drawn, np.concatenate(parts))
        centroids = _train(sample, norm, part, counts, seed, round_number)
        _assign(source, norm, part, groups, centroids, m_max)
        for number in large:
            _mend_undivided(part, groups, number, own[number], m_max)


def _rows_of(part: npt.NDArray[np.int32], wanted: list[int]) -> dict[int, Rows]:
    rows = np.flatnonzero(np.isin(part, wanted))
    order = rows[np.argsort(part[rows], kind="stable")]
    bounds = np.searchsorted(part[order], wanted, side="left"), np.searchsorted(part[order], wanted, side="right")
    return {number: order[a:b] for number, a, b in zip(wanted, *bounds, strict=True)}


def _too_few(sample: _Sample, part: npt.NDArray[np.int32], counts: dict[int, int]) -> bool:
    # The first sample was drawn before rows without a direction were known.
    found = part[sample.row]
    return any(np.count_nonzero(found == number) < count for number, count in counts.items())


def _train(
    sample: _Sample,
    norm: npt.NDArray[np.float32],
    part: npt.NDArray[np.int32],
    counts: dict[int, int],
    seed: int,
    round_number: int,
) -> dict[int, npt.NDArray[np.float32]]:
    """Return centroids, float32 [K, D], of each group, from those of its rows that are in the sample."""
    centroids = {}
    for number, count in counts.items():
        own = np.flatnonzero(part[sample.row] == number)
        unit = distances.unit_rows(sample.values[own], norm[sample.row[own]])
        centroids[number] = spherical_kmeans(unit, count, seed_of("k-means", seed, round_number, number))
    return centroids


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
    for block in blocks(np.flatnonzero(np.isin(part, list(centroids))), "assigning embeddings"):
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
