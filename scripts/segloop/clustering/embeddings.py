"""What is clustered: embeddings from prediction shards or from a file of one's own, and what is done to them first.

Everything behind this module sees N rows in ascending order of their prediction ids, read block by block.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr
from tqdm import tqdm

from segloop.clustering import distances
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.ids import ROW_BITS, SHARD_BITS
from segloop.randomness import generator
from segloop.store.predictions import PredictionShard, StoredDetector

logger = logging.getLogger("segloop.clustering")

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

BLOCK = 16_384
"""Embeddings in memory at a time."""
IN_MEMORY = 65_536
"""Up to so many, as a shard of a store holds, embeddings are read once and kept; more are read again for each pass."""
_PCA_ROWS = 65_536
"""Rows that principal components are learned from."""


class Source(Protocol):
    """Embeddings of N predictions, in ascending order of their ids."""

    @property
    def dim(self) -> int:
        """Width of the embeddings."""

    def __len__(self) -> int:
        """Return N."""

    def read(self, rows: Rows) -> Floats:
        """Return the embeddings of ascending rows, [n, D]."""


def blocks(rows: Rows, what: str) -> Any:
    """Return the rows in pieces of `BLOCK`, with progress."""
    return (rows[start : start + BLOCK] for start in tqdm(range(0, len(rows), BLOCK), desc=what, disable=None))


class ArraySource:
    """Embeddings in memory."""

    def __init__(self, embeddings: Floats):
        self._embeddings = embeddings
        self.dim = embeddings.shape[1]

    def __len__(self) -> int:
        return len(self._embeddings)

    def read(self, rows: Rows) -> Floats:
        """Return the embeddings of ascending rows, [n, D]."""
        return self._embeddings[rows]


class ShardSource:
    """Embeddings in prediction shards.

    Parameters
    ----------
    prediction
        Ids, ascending, uint64 [N].
    paths
        All prediction shards of the iteration.
    index
        Where the ids come from, for messages.
    parts
        The parts of the stored embedding that are wanted, in their stored order.

    Raises
    ------
    SegloopError
        If a prediction's shard is missing or has too few rows, two shards differ in width, or the model has no such
        part; the shard is named.
    """

    def __init__(
        self, prediction: npt.NDArray[np.uint64], paths: list[Path], index: Path, parts: tuple[str, ...] = ("box_head",)
    ):
        self._prediction = prediction
        shards = [PredictionShard.open(path) for path in paths]
        _check_one_width(shards)
        self._places = _places_of(shards[0], parts) if shards else [_Place(np.arange(1), 0)]
        self.dim = max(one.first + len(one.stored) for one in self._places)
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
                out[a:b] = self._placed(self._shards[owner], own.astype(np.int64))
        return out

    def _placed(self, shard: PredictionShard, rows: Rows) -> npt.NDArray[np.float16]:
        values = shard.embeddings(rows)
        if len(self._places) == 1:
            return values if values.shape[1] == self.dim else values[:, self._places[0].stored]
        out, detector = np.zeros((len(rows), self.dim), np.float16), shard.detector[rows]
        for number, place in enumerate(self._places):
            own = np.flatnonzero(detector == number)
            out[own, place.first : place.first + len(place.stored)] = values[np.ix_(own, place.stored)]
        return out


@dataclass(frozen=True)
class _Place:
    """Where the embeddings of one detector lie in the store and in what is clustered."""

    stored: npt.NDArray[np.int64]
    """Their columns in the store."""
    first: int
    """The first of their columns in what is clustered."""


COMMON = ("crop",)
"""Parts that come from the same network whichever detector found a mask, so that they can be compared."""


def _places_of(shard: PredictionShard, wanted: tuple[str, ...]) -> list[_Place]:
    """Return where the wanted parts of each detector lie.

    Numbers of different networks cannot be compared. Each detector therefore has columns of its own, in which the
    others are zero: the cosine distance between predictions of two detectors is 1, that of vectors which have nothing
    in common. What comes from one network whoever found the mask shares its columns.
    """
    places, first = [], 0
    for detector in shard.detectors:
        columns = _columns_of(shard, detector, wanted)
        places.append(_Place(columns, first))
        first += 0 if all(name in COMMON for name in wanted) else len(columns)
    return places


def _check_one_width(shards: list[PredictionShard]) -> None:
    for shard in shards:
        parts, first = ([one.embedding_parts for one in each.detectors] for each in (shard, shards[0]))
        if parts != first:
            raise SegloopError(
                f"Embeddings of {shard.path} have width {shard.embedding_dim} {parts}, those of "
                f"{shards[0].path} have {shards[0].embedding_dim} {first}. All shards of an "
                "iteration come from one model: predict the odd one again."
            )


def _columns_of(shard: PredictionShard, detector: StoredDetector, wanted: tuple[str, ...]) -> npt.NDArray[np.int64]:
    ends = np.cumsum([0, *detector.embedding_parts.values()])
    ranges = dict(zip(detector.embedding_parts, zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True), strict=True))
    missing = [name for name in wanted if name not in ranges]
    if missing:
        whose = f" of the detector {detector.name}" if detector.name else ""
        raise SegloopError(
            f"{shard.path} holds no embedding of {missing[0]}{whose}, only of {', '.join(ranges)}. Set "
            "clustering.embedding: box_head, or predict with a detector that has that head, or with "
            "prediction.embeddings that name it."
        )
    return np.concatenate([np.arange(*ranges[name]) for name in wanted])


class FileSource:
    """Embeddings in a file of the user's own: one row a prediction of the index, in the order of the index.

    Parameters
    ----------
    path
        A `.npy` file or a Zarr array of floats, [M, D]; rows are read when they are asked for.
    chosen
        Rows of the index that are clustered, ascending, [N].
    total
        Rows of the index, M.

    Raises
    ------
    SegloopError
        If the file is missing, cannot be read, or does not have M rows of floats.
    """

    def __init__(self, path: Path, chosen: Rows, total: int):
        self._path, self._chosen = path, chosen
        self._array = _open_array(path, total)
        shape, dtype = self._array.shape, self._array.dtype
        if len(shape) != 2 or shape[0] != total or not np.issubdtype(dtype, np.floating):
            raise SegloopError(
                f"clustering.embedding_file {path} holds {dtype} of shape {tuple(shape)}; the index has {total} "
                "predictions. Give one row of floats for each, in the order of the index."
            )
        self.dim = int(shape[1])

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, rows: Rows) -> Floats:
        """Return the embeddings of ascending rows, [n, D]."""
        wanted = self._chosen[rows]
        try:
            found: Floats = np.asarray(
                self._array[wanted] if isinstance(self._array, np.ndarray) else self._array.oindex[wanted]
            )
        except Exception as error:
            raise SegloopError(f"clustering.embedding_file {self._path} cannot be read ({error}). Mend it.") from error
        return found


def _open_array(path: Path, total: int) -> Any:
    if not path.exists():
        raise SegloopError(
            f"clustering.embedding_file {path} does not exist. Write one row of floats for each of the {total} "
            "predictions of the index, in its order, and run again; or remove the key."
        )
    try:
        if path.is_dir():
            return zarr.open_array(path, mode="r")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise SegloopError(f"clustering.embedding_file {path} is neither .npy nor a Zarr array ({error}).") from error


class PreparedSource:
    """Rows of another source after principal components and extra columns; float16 [n, D].

    Parameters
    ----------
    base
        Embeddings; each is scaled to length 1 first. Rows without a direction stay zero, and so without a partition.
    projection
        (mean [D0], axes [D0, D]) of `principal_axes`, or None. Projected rows are scaled to length 1 again.
    extra
        Columns to join, already weighted, float32 [N, E].
    """

    def __init__(
        self,
        base: Source,
        projection: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None,
        extra: npt.NDArray[np.float32],
    ):
        self._base, self._projection, self._extra = base, projection, extra
        self.dim = (base.dim if projection is None else projection[1].shape[1]) + extra.shape[1]

    def __len__(self) -> int:
        return len(self._base)

    def read(self, rows: Rows) -> npt.NDArray[np.float16]:
        """Return the prepared embeddings of ascending rows, float16 [n, D]."""
        unit = unit_or_zero(self._base.read(rows))
        known = unit.any(axis=1)
        if self._projection is not None:
            mean, axes = self._projection
            unit = unit_or_zero((unit - mean) @ axes)
        out = np.concatenate([unit, self._extra[rows]], axis=1).astype(np.float16)
        out[~known] = 0
        return out


def unit_or_zero(values: Floats) -> npt.NDArray[np.float32]:
    """Return rows of length 1, and zero for rows without a direction, float32 [n, D]."""
    lengths = distances.norms(values)
    usable = distances.has_direction(lengths)
    unit = np.zeros(values.shape, np.float32)
    unit[usable] = values[usable] / lengths[usable, None]
    return unit


def prepare(
    base: Source, extra: dict[str, npt.NDArray[np.floating[Any]]], config: ClusteringConfig, seed: int
) -> tuple[Source, dict[str, Any]]:
    """Return what is clustered, and what a tree records about it.

    Parameters
    ----------
    base
        N embeddings.
    extra
        The configured extra columns, each [N].
    seed
        Seed of the sample that principal components are learned from.

    Raises
    ------
    SegloopError
        If more components are wanted than the embeddings are wide, or an extra column is not finite.
    """
    record: dict[str, Any] = {"base_dim": base.dim, "pca": None, "extra_columns": list(extra)}
    if config.pca is None and not extra:
        return base, record
    projection = None
    if config.pca is not None:
        if config.pca > base.dim:
            raise SegloopError(f"clustering.pca is {config.pca}, but the embeddings have only {base.dim} dimensions.")
        mean, axes, share = principal_axes(base, config.pca, config.pca_whiten, seed)
        if share is None:
            logger.warning("all embeddings are alike: they have no principal components and stay as they are")
        else:
            projection = mean, axes
            record["pca"] = {"components": config.pca, "whiten": config.pca_whiten, "variance": share}
    if extra:
        record["extra_weight"] = config.extra_weight
    columns = [_standardised(name, values) * np.float32(config.extra_weight) for name, values in extra.items()]
    joined = np.stack(columns, axis=1) if columns else np.empty((len(base), 0), np.float32)
    return PreparedSource(base, projection, joined), record


def principal_axes(
    source: Source, count: int, whiten: bool, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float | None]:
    """Return the mean [D], the first `count` principal axes of the unit rows [D, count], and their share of variance.

    The covariance is summed block by block over at most 65,536 random rows. Each axis is turned so that its largest
    entry is positive, so that the result does not depend on the solver's choice; whitened axes are divided by the
    standard deviation along them. The share is None where the rows do not vary at all.
    """
    rows = np.arange(len(source))
    if len(rows) > _PCA_ROWS:
        rows = np.sort(generator("principal components", seed).choice(len(rows), _PCA_ROWS, replace=False))
    total, products, used = np.zeros(source.dim), np.zeros((source.dim, source.dim)), 0
    for block in blocks(rows, "principal components"):
        unit = unit_or_zero(source.read(block))
        unit = unit[unit.any(axis=1)]
        total += unit.sum(axis=0, dtype=np.float64)
        products += unit.T @ unit
        used += len(unit)
    mean = total / max(used, 1)
    variance, axes = np.linalg.eigh(products / max(used, 1) - np.outer(mean, mean))
    variance, axes = np.maximum(variance[::-1][:count], 0), axes[:, ::-1][:, :count]
    everything = float(np.trace(products) / max(used, 1) - mean @ mean)
    if everything < 1e-6:
        return mean.astype(np.float32), axes.astype(np.float32), None
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    if whiten:
        # Axes along which nothing varies would be blown up noise.
        axes = axes / np.sqrt(np.maximum(variance, 1e-6 * variance[0]))
    return mean.astype(np.float32), axes.astype(np.float32), round(float(variance.sum()) / everything, 6)


def _standardised(name: str, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    values = np.asarray(values, np.float64)
    if not bool(np.isfinite(values).all()):
        raise SegloopError(f"clustering.extra_columns: {name} is not finite everywhere. Leave the column out.")
    spread = values.std() if len(values) else 0.0
    centred = values - (values.mean() if len(values) else 0.0)
    return np.asarray(centred / spread if spread > 0 else np.zeros_like(values), np.float32)
