"""Embeddings as a ReLU leaves them, in clumps: written as prediction shards and an index, block by block."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.ids import prediction_ids
from segloop.randomness import generator
from segloop.store.index import Index, write_index
from segloop.store.predictions import PredictionShard, PredictionWriter

SUBCLUSTERS = 800
NOISE = 0.6
"""Scatter of a row around its subcluster, whose centre has entries of standard deviation 1 before the ReLU."""
BLOCK_ROWS = 8192
"""Rows that are generated at a time; the first rows are the same whatever the number of rows."""
SHARD_ROWS = 8 * BLOCK_ROWS
ITERATION = 1


@dataclass(frozen=True)
class Dataset:
    """Where the predictions of one size lie."""

    folder: Path

    @property
    def index(self) -> Path:
        """The index."""
        return self.folder / "index.zarr"

    @property
    def predictions(self) -> list[Path]:
        """The prediction shards, in order."""
        return sorted((self.folder / "predictions").glob("*.zarr"))

    def embeddings(self) -> npt.NDArray[np.float32]:
        """Read all embeddings, float32 [n, dim]; no more than a shard lies in memory besides."""
        shards = [PredictionShard.open(path) for path in self.predictions]
        out = np.empty((sum(map(len, shards)), shards[0].embedding_dim), np.float32)
        filled = 0
        for shard in shards:
            out[filled : filled + len(shard)] = shard.embeddings()
            filled += len(shard)
        return out

    def read_bytes(self) -> int:
        """Read every byte of the prediction shards once and return how many there are."""
        total = 0
        for path in sorted((self.folder / "predictions").rglob("*")):
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    while piece := file.read(1 << 24):
                        total += len(piece)
        return total


def block(number: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Return rows number * BLOCK_ROWS and following, not negative, float32 [BLOCK_ROWS, dim]."""
    centres = generator("benchmark centres", seed).standard_normal((SUBCLUSTERS, dim), dtype=np.float32)
    random = generator("benchmark rows", seed, number)
    rows = random.standard_normal((BLOCK_ROWS, dim), dtype=np.float32)
    rows *= NOISE
    rows += centres[random.integers(0, SUBCLUSTERS, BLOCK_ROWS)]
    return np.maximum(rows, 0, out=rows)


def write_dataset(folder: Path, n: int, dim: int, seed: int) -> Dataset:
    """Write n predictions of one category: shards of `SHARD_ROWS`, and an index over them."""
    ids = []
    for shard, first in enumerate(range(0, n, SHARD_ROWS)):
        count = min(SHARD_ROWS, n - first)
        ids.append(prediction_ids(ITERATION, shard, count))
        _write_shard(folder / "predictions" / f"{shard:05d}.zarr", shard, first, count, dim, seed)
    write_index(folder / "index.zarr", _index(np.concatenate(ids)), {})
    return Dataset(folder)


def _write_shard(path: Path, shard: int, first: int, count: int, dim: int, seed: int) -> None:
    with PredictionWriter(path, iteration=ITERATION, shard=shard, model_sha256="", embedding_dim=dim) as writer:
        for start in range(first, first + count, BLOCK_ROWS):
            size = min(BLOCK_ROWS, first + count - start)
            found: Any = SimpleNamespace(
                score=np.ones(size, np.float32),
                category=np.ones(size, np.int32),
                box=np.zeros((size, 4), np.float32),
                masks=[{"size": [4, 4], "counts": b"x"}] * size,
                embedding=block(start // BLOCK_ROWS, dim, seed)[:size],
                predicted_iou=None,
            )
            writer.append(start // BLOCK_ROWS, 4, 4, found)


def _index(prediction: npt.NDArray[np.uint64]) -> Index:
    n = len(prediction)
    # Masks with equal keys would pass as copies of each other.
    mask_key = np.zeros((n, 32), np.uint8)
    mask_key[:, :8] = prediction[:, None].view(np.uint8)
    return Index(
        prediction=prediction,
        image_id=np.arange(n) // BLOCK_ROWS,
        category=np.ones(n, np.int32),
        score=np.ones(n, np.float32),
        box=np.zeros((n, 4), np.float32),
        area=np.ones(n, np.int64),
        predicted_iou=None,
        mask_key=mask_key,
        duplicate_of=np.zeros(n, np.uint64),
        inherited=np.zeros(n, np.int8),
    )
