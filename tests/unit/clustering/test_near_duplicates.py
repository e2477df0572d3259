from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segloop.clustering import near_duplicates as module
from segloop.clustering.near_duplicates import count_near_duplicates
from segloop.data import masks
from segloop.detection.segmenter import Detections
from segloop.ids import prediction_ids
from segloop.store.predictions import PredictionWriter

SIDE = 40

Box = tuple[int, int, int, int]
Write = Callable[..., tuple[Any, list[Path]]]


def mask(box: Box) -> np.ndarray[Any, np.dtype[np.bool_]]:
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[box[1] : box[3], box[0] : box[2]] = True
    return pixels


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write shards of images of (category, box); return all ids and the stores."""

    def make(*shards: list[list[tuple[int, Any]]]) -> tuple[Any, list[Path]]:
        ids, paths = [np.zeros(0, np.uint64)], []
        for number, images in enumerate(shards):
            paths.append(tmp_path / f"{number}.zarr")
            with PredictionWriter(paths[-1], iteration=1, shard=number, model_sha256="", embedding_dim=1) as writer:
                for image, found in enumerate(images):
                    count = len(found)
                    pixels = [mask(box) if isinstance(box, tuple) else box for _, box in found]
                    detections = Detections(
                        score=np.ones(count, np.float32),
                        category=np.array([category for category, _ in found], np.int32),
                        box=np.zeros((count, 4), np.float32),
                        masks=[masks.encode(one) for one in pixels],
                        embedding=np.ones((count, 1), np.float32),
                        predicted_iou=None,
                    )
                    writer.append(1000 * number + image, SIDE, SIDE, detections)
            ids.append(prediction_ids(1, number, sum(map(len, images))))
        return np.concatenate(ids), paths

    return make


def test_the_same_image_and_category_and_enough_overlap(write: Write) -> None:
    first, close, apart = (0, 0, 20, 20), (0, 0, 20, 18), (0, 0, 20, 10)
    ids, paths = write(
        [[(1, first), (1, close), (1, apart), (2, first)], [(1, first)]],
        [[(1, first), (1, first), (1, first)], []],
    )
    assert count_near_duplicates(ids, paths, 0.9) == 3
    assert count_near_duplicates(ids, paths, 0.91) == 2
    assert count_near_duplicates(ids, paths, 0.5) == 4
    assert count_near_duplicates(ids[:1], paths, 0.5) == 0
    assert count_near_duplicates(ids[1:4], paths, 0.5) == 1


def test_equals_the_comparison_of_all_pairs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    corner, size = rng.integers(0, 12, (60, 2)), rng.integers(6, 28, (60, 2))
    pixels = [
        mask((*low, *(low + side))) & (rng.random((SIDE, SIDE)) < 0.95) for low, side in zip(corner, size, strict=True)
    ]
    ids, paths = write([[(1, one) for one in pixels]])
    flat = np.array([one.ravel() for one in pixels], np.int64)
    both = flat @ flat.T
    iou = both / (flat.sum(1)[:, None] + flat.sum(1)[None] - both)
    for least in (0.3, 0.5, 0.7):
        expected = int((np.tril(iou, -1) >= least).any(axis=1).sum())
        assert 0 < expected < 60
        assert count_near_duplicates(ids, paths, least) == expected


def test_no_predictions(write: Write) -> None:
    ids, paths = write([[]], [[]])
    assert count_near_duplicates(ids, paths, 0.8) == 0
