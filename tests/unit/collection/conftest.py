"""A small run on disk: stores, pool, seed set and truth with rectangles for masks."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segloop.annotation.answers import ANSWER_SCHEMA, write_answers
from segloop.annotation.verdicts import REASONS, Verdicts, read_verdicts, write_verdicts
from segloop.collection.index import index_predictions
from segloop.data import masks
from segloop.files import write_json
from segloop.store.predictions import PredictionWriter

SIDE = 20
Rect = tuple[int, int, int, int]
Row = tuple[int, int, float, Rect]
"""(image id, category id, score, (x0, y0, x1, y1))."""


def rle_of(rect: Rect) -> masks.Rle:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rect[1] : rect[3], rect[0] : rect[2]] = True
    return masks.encode(mask)


def record_of(number: int, image: int, category: int, rect: Rect, **more: Any) -> dict[str, Any]:
    rle = rle_of(rect)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": masks.to_json(rle),
        "area": int(masks.area([rle])[0]),
        "bbox": masks.boxes([rle])[0].tolist(),
        "iscrowd": 0,
        **more,
    }


class Run:
    """Writes the files of a run where the rules would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seed_set = folder / "seed.json"
        self.truth = folder / "truth.json"
        self.shards: list[Path] = []
        self.categories = [{"id": 1, "name": "disc"}, {"id": 7, "name": "star"}]

    def pool(self, *shards: list[int]) -> None:
        for number, images in enumerate(shards):
            path = self.folder / f"pool_{number}.parquet"
            columns = {
                "image_id": pa.array(images, pa.int64()),
                "file_name": pa.array([f"pool/{image}.jpg" for image in images], pa.string()),
                "width": pa.array([0] * len(images), pa.int32()),
                "height": pa.array([0] * len(images), pa.int32()),
            }
            pq.write_table(pa.table(columns), path)
            self.shards.append(path)

    def coco(self, path: Path, images: list[int], rows: list[dict[str, Any]], folder: str = "seed") -> None:
        records = [{"id": i, "file_name": f"{folder}/{i}.jpg", "width": SIDE, "height": SIDE} for i in images]
        write_json(path, {"info": {}, "images": records, "annotations": rows, "categories": self.categories})

    def store(self, iteration: int, shard: int, rows: list[Row], images: list[int], **more: Any) -> Path:
        path = self.folder / f"iter_{iteration}" / f"{shard}.zarr"
        known = {"model_sha256": "f" * 64, "embedding_dim": 4} | more
        with PredictionWriter(path, iteration=iteration, shard=shard, **known) as writer:
            for image in images:
                found = sorted((row for row in rows if row[0] == image), key=lambda row: -row[2])
                iou = np.full(len(found), 0.5, np.float32) if more.get("has_predicted_iou") else None
                detections = SimpleNamespace(
                    score=np.array([row[2] for row in found], np.float32),
                    category=np.array([row[1] for row in found], np.int32),
                    box=np.array([row[3] for row in found], np.float32).reshape(-1, 4),
                    masks=[rle_of(row[3]) for row in found],
                    embedding=np.ones((len(found), known["embedding_dim"]), np.float32),
                    predicted_iou=iou,
                )
                writer.append(image, SIDE, SIDE, detections)
        return path

    def index(self, iteration: int, stores: list[Path], earlier: list[list[Path]] = (), **more: Any) -> Path:
        path = self.folder / f"iter_{iteration}" / "index.zarr"
        index_predictions(
            predictions=stores,
            earlier=list(earlier),
            earlier_verdicts=[self.folder / f"iter_{place}/verdicts.parquet" for place in range(1, len(earlier) + 1)],
            output=path,
            **({"score": 0.5, "duplicates_iou": 0.8, "iteration": iteration} | more),
        )
        return path

    def verdicts(self, iteration: int, prediction: Any, verdict: list[int], reason: list[str], node: Any) -> Path:
        path = self.folder / f"iter_{iteration}" / "verdicts.parquet"
        write_verdicts(
            path,
            Verdicts(
                np.asarray(prediction, np.uint64),
                np.array(verdict, np.int8),
                np.array([REASONS.index(word) for word in reason], np.int8),
                np.array(node, np.int64),
                np.full(len(verdict), -1, np.int16),
            ),
        )
        assert len(read_verdicts(path)) == len(verdict)
        return path

    def answers(self, iteration: int, records: list[dict[str, Any]]) -> Path:
        path = self.folder / f"iter_{iteration}" / "answers.parquet"
        common = {
            "schema": 1,
            "annotator": "oracle",
            "purpose": "decide",
            "reply": "yes",
            "seconds": 1.5,
            "price": 0.01,
        }
        filled = [common | {"answer_id": str(number)} | record for number, record in enumerate(records)]
        write_answers(path, pa.Table.from_pylist(filled, schema=ANSWER_SCHEMA))
        return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.coco(run.seed_set, [5, 3], [record_of(9, 3, 1, (0, 0, 4, 4)), record_of(2, 5, 7, (1, 1, 9, 9), iscrowd=1)])
    return run


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    return record_of
