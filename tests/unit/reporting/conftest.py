from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from segloop.annotation.oracle import MATCH_SCHEMA
from segloop.annotation.tables import write_table
from segloop.annotation.verdicts import ACCEPTED, ANSWERED, DUPLICATE, NO_REASON, REJECTED, Verdicts, write_verdicts
from segloop.clustering.partition import partition_predictions
from segloop.collection.index import index_predictions
from segloop.config import ClusteringConfig
from segloop.data import masks
from segloop.data.pool import SCHEMA
from segloop.detection.segmenter import Detections
from segloop.files import write_json
from segloop.ids import prediction_ids
from segloop.store.predictions import PredictionWriter

HEIGHT, WIDTH = 48, 64
RED, GREEN, BLUE = (200, 40, 40), (40, 200, 40), (40, 40, 200)
COLOURS = (RED, GREEN, BLUE)


@dataclass(frozen=True)
class Iteration:
    """An iteration on disk: 3 images in 2 shards, `each` predictions an image, category = image, written for tests."""

    folder: Path
    predictions: list[Path]
    shards: list[Path]
    ids: np.ndarray[Any, np.dtype[np.uint64]]

    @property
    def seed_set(self) -> Path:
        return self.folder / "train.json"

    @property
    def partitions(self) -> Path:
        return self.folder / "partitions.zarr"

    @property
    def verdicts(self) -> Path:
        return self.folder / "verdicts.parquet"

    @property
    def truth_match(self) -> Path:
        return self.folder / "truth_match.parquet"

    def image(self, number: int) -> Path:
        return self.folder / f"{number}.png"


def square(place: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4 + 3 * place : 20 + 3 * place, 6 + 4 * place : 24 + 4 * place] = True
    return mask


def _detections(image: int, each: int) -> Detections:
    directions = np.eye(4, dtype=np.float32)[image - 1]
    noise = 0.01 * np.arange(each * 4, dtype=np.float32).reshape(each, 4)
    rles = [masks.encode(square(place)) for place in range(each)]
    xywh = masks.boxes(rles).reshape(each, 4)
    return Detections(
        score=(0.95 - 0.05 * np.arange(each)).astype(np.float32),
        category=np.full(each, image, np.int32),
        box=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32),
        masks=rles,
        embedding=directions + noise,
        predicted_iou=None,
    )


@pytest.fixture
def iteration(tmp_path: Path) -> Callable[..., Iteration]:
    """Write an iteration; return its paths."""

    def make(each: int = 3, images: tuple[int, ...] = (1, 2, 3)) -> Iteration:
        shards: list[Path] = []
        stores: list[Path] = []
        ids = [np.empty(0, np.uint64)]
        for number in (1, 2, 3):
            Image.new("RGB", (WIDTH, HEIGHT), COLOURS[number - 1]).save(tmp_path / f"{number}.png")
        for shard, own in enumerate(([1, 2], [3])):
            rows = [
                {"image_id": n, "file_name": str(tmp_path / f"{n}.png"), "width": WIDTH, "height": HEIGHT} for n in own
            ]
            shards.append(tmp_path / f"{shard}.parquet")
            write_table(shards[-1], pa.Table.from_pylist(rows, schema=SCHEMA))
            stores.append(tmp_path / f"{shard}.zarr")
            with PredictionWriter(stores[-1], iteration=1, shard=shard, model_sha256="", embedding_dim=4) as writer:
                for image in own:
                    count = each if image in images else 0
                    writer.append(image, HEIGHT, WIDTH, _detections(image, count))
            ids.append(prediction_ids(1, shard, sum(each for image in own if image in images)))
        names = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}, {"id": 3, "name": "blue"}]
        write_json(tmp_path / "train.json", {"images": [], "annotations": [], "categories": names})
        made = Iteration(tmp_path, stores, shards, np.concatenate(ids))
        index = tmp_path / "index.zarr"
        index_predictions(
            predictions=stores,
            earlier=[],
            earlier_verdicts=[],
            output=index,
            score=0.1,
            duplicates_iou=0.8,
            iteration=1,
        )
        partition_predictions(
            index=index, predictions=stores, output=made.partitions, config=ClusteringConfig(), seed=0
        )
        return made

    return make


def judge(iteration: Iteration, verdict: list[int], duplicate: list[int] | None = None) -> None:
    """Write verdicts, in the order of the ids; `duplicate` lists rows that repeat earlier predictions."""
    values = np.array(verdict, np.int8)
    reason = np.where(values == 0, NO_REASON, ANSWERED).astype(np.int8)
    reason[duplicate or []] = DUPLICATE
    node = np.full(len(values), -1, np.int64)
    certificate = np.full(len(values), -1, np.int16)
    write_verdicts(iteration.verdicts, Verdicts(iteration.ids, values, reason, node, certificate))


def match(iteration: Iteration, iou: list[float], t_iou: float = 0.8, matched: list[int] | None = None) -> None:
    """Write the IoU with the truth, in the order of the ids; `matched`: the truth that serves each alone, 0: none."""
    n = len(iou)
    table = pa.table(
        {
            "prediction": pa.array(iteration.ids[:n]),
            "iou": pa.array(np.array(iou, np.float32)),
            "truth_id": pa.array(np.ones(n, np.int64)),
            "matched_iou": pa.array(np.array(iou, np.float32)),
            "matched_id": pa.array(np.ones(n, np.int64) if matched is None else matched, pa.int64()),
        },
        schema=MATCH_SCHEMA.with_metadata({"t_iou": repr(t_iou)}),
    )
    write_table(iteration.truth_match, table)


@pytest.fixture
def judged(iteration: Callable[..., Iteration]) -> Iteration:
    """9 predictions: 5 accepted (one a duplicate), 3 rejected, 1 undecided; two verdicts are wrong by the truth."""
    made = iteration()
    judge(made, [ACCEPTED] * 5 + [REJECTED] * 3 + [0], duplicate=[0])
    match(made, [0.9, 0.9, 0.9, 0.9, 0.5, 0.1, 0.85, 0.8, 0.9])
    return made


def row(number: int, **known: Any) -> dict[str, Any]:
    """Return the summary of an iteration, unknown but for what is given."""
    names = ("predictions", "duplicates", "questions", "collected", "collected_total", "masks_per_question")
    names += ("precision", "recall", "truth_recall", "ap", "ap50", "control_ap", "dollars", "seconds")
    return {"schema_version": 1, "iteration": number} | dict.fromkeys(names) | known


@pytest.fixture
def summary(tmp_path: Path) -> Callable[..., Path]:
    """Write results/summary.json."""

    def write(*rows: dict[str, Any], **run: Any) -> Path:
        path = tmp_path / "summary.json"
        write_json(
            path,
            {
                "schema_version": 1,
                "iterations": list(rows),
                "stop_reason": "iterations",
                "control": None,
                "upper_bound": None,
                "versions": {},
            }
            | run,
        )
        return path

    return write


@pytest.fixture
def full(summary: Callable[..., Path]) -> Path:
    """A run that knows everything."""
    first = {"questions": 800, "collected": 200, "collected_total": 200, "masks_per_question": 0.25, "precision": 0.9}
    second = {"questions": 200, "collected": 300, "collected_total": 500, "masks_per_question": 1.5, "precision": 0.8}
    return summary(
        row(0, ap=0.195, ap50=0.36),
        row(1, ap=0.21, ap50=0.38, control_ap=0.18, truth_recall=0.1, **first),
        row(2, ap=0.25, ap50=0.44, control_ap=0.19, truth_recall=0.2, **second),
        control={"1": {"ap": 0.18, "ap50": 0.33}, "2": {"ap": 0.19, "ap50": 0.34}},
        upper_bound={"ap": 0.353, "ap50": 0.58},
    )
