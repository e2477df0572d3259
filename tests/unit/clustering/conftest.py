from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segloop.ids import prediction_ids
from segloop.store.index import Index, write_index
from segloop.store.predictions import PredictionWriter


def clustered(n: int, dim: int, seed: int = 0, centres: int = 12) -> npt.NDArray[np.float32]:
    """Rows as a ReLU leaves them: non-negative, in clumps."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, dim))
    rows = middle[rng.integers(0, centres, n)] + 0.4 * rng.standard_normal((n, dim))
    return np.maximum(rows, 0).astype(np.float32)


@pytest.fixture
def rows() -> Callable[..., npt.NDArray[np.float32]]:
    return clustered


@pytest.fixture
def iteration(tmp_path: Path) -> Callable[..., Any]:
    """Write shards and an index over given embeddings; return their paths and what lies in them."""

    def make(
        embeddings: npt.NDArray[np.floating[Any]],
        category: npt.NDArray[np.integer],
        shards: int = 3,
        keep: npt.NDArray[np.bool_] | None = None,
        duplicate: npt.NDArray[np.bool_] | None = None,
        parts: dict[str, int] | None = None,
    ) -> Any:
        paths, ids = [], [np.empty(0, np.uint64)]
        for shard, own in enumerate(np.array_split(np.arange(len(embeddings)), shards)):
            paths.append(tmp_path / f"{shard}.zarr")
            ids.append(prediction_ids(1, shard, len(own)))
            found = SimpleNamespace(
                score=np.ones(len(own), np.float32),
                category=category[own].astype(np.int32),
                box=np.zeros((len(own), 4), np.float32),
                masks=[{"size": [4, 4], "counts": b"x"}] * len(own),
                embedding=embeddings[own],
                predicted_iou=None,
            )
            options = {"iteration": 1, "shard": shard, "model_sha256": "", "embedding_dim": embeddings.shape[1]}
            with PredictionWriter(paths[-1], **options, embedding_parts=parts) as writer:
                writer.append(shard, 4, 4, found)
        prediction = np.concatenate(ids)
        kept = np.ones(len(prediction), bool) if keep is None else keep
        copies = np.zeros(len(prediction), bool) if duplicate is None else duplicate
        write_index(tmp_path / "index.zarr", index_of(prediction[kept], category[kept], copies[kept]), {})
        return SimpleNamespace(index=tmp_path / "index.zarr", shards=paths, prediction=prediction, kept=kept)

    return make


def index_of(
    prediction: npt.NDArray[np.uint64], category: npt.NDArray[np.integer], duplicate: npt.NDArray[np.bool_]
) -> Index:
    n = len(prediction)
    return Index(
        prediction=prediction,
        image_id=np.zeros(n, np.int64),
        category=category.astype(np.int32),
        score=np.ones(n, np.float32),
        box=np.zeros((n, 4), np.float32),
        area=np.ones(n, np.int64),
        predicted_iou=None,
        mask_key=np.random.default_rng(0).integers(0, 256, (n, 32), dtype=np.uint8),
        duplicate_of=duplicate.astype(np.uint64),
        inherited=duplicate.astype(np.int8),
    )
