"""The accepted masks of an iteration as a COCO file with provenance."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.annotation.answers import COUNTED_PURPOSES, read_answers
from segloop.annotation.edits import edited_rles, read_edited
from segloop.annotation.verdicts import ACCEPTED, CLUSTER, DUPLICATE, REASONS, Verdicts, read_verdicts
from segloop.data import masks
from segloop.data.pool import read_shard
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.ids import unpack_prediction_ids
from segloop.store.index import read_index_columns
from segloop.store.predictions import PredictionShard, StoredDetector

Row = npt.NDArray[np.int64]


def collect_masks(
    *,
    index: Path,
    predictions: list[Path],
    verdicts: Path,
    answers: Path,
    shards: list[Path],
    seed_set: Path,
    output: Path,
    iteration: int,
    edited: Path | None = None,
) -> None:
    """Write every accepted mask that repeats no earlier one, and why it was accepted.

    Parameters
    ----------
    predictions
        The stores of the iteration, one a shard, in shard order.
    shards
        The pool's Parquet files in the same order.
    seed_set
        Canonical COCO file; its categories are those of the collected file.
    output
        A COCO file with the images that hold a collected mask. Annotations carry `score` and `provenance`: iteration,
        shard, row, detector (where there are several), prediction (as text, because it exceeds the integers of JSON
        readers), mask_key, weights_sha256, node, verdict_reason and the ids of the answers that it rests on: those on
        the mask itself, or those that decided its cluster.

    edited
        edited.json: masks that people have mended take the place of the predicted ones, and their provenance names the
        edit; None where nobody edits.

    Raises
    ------
    SegloopError
        If inputs are missing, damaged or do not belong together.
    """
    judged, mended = read_verdicts(verdicts), read_edited(edited)
    prediction, mask_key = read_index_columns(index, "prediction", "mask_key")
    if not np.array_equal(judged.prediction, prediction):
        raise SegloopError(f"{verdicts} and {index} hold different predictions. Annotate this iteration again.")
    evidence = _Evidence.read(answers, prediction, mask_key)
    categories = read_json(seed_set)["categories"]
    accepted = np.flatnonzero((judged.verdict == ACCEPTED) & (judged.reason != DUPLICATE))
    _, shard_of, row_of = unpack_prediction_ids(prediction[accepted])
    bounds = np.searchsorted(shard_of, np.arange(len(predictions) + 1))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(tqdm(predictions, desc="collect", unit="shard", disable=None)):
        part = slice(int(bounds[number]), int(bounds[number + 1]))
        if part.start == part.stop:
            continue
        source = _Source(PredictionShard.open(path), row_of[part], accepted[part], judged, mask_key, evidence, mended)
        images += source.images(shards[number])
        annotations += source.annotations(first_id=len(annotations) + 1)
    _check_categories(annotations, categories, seed_set)
    info = {"description": f"Masks collected by segloop in iteration {iteration}", "iteration": iteration}
    write_json(
        output,
        {
            "info": info,
            "images": sorted(images, key=lambda image: int(image["id"])),
            "annotations": annotations,
            "categories": categories,
        },
    )


@dataclass(frozen=True)
class _Evidence:
    """Answers by what they are about and by the nodes whose decision counted them."""

    by_prediction: dict[int, list[str]]
    by_node: dict[int, list[str]]

    @staticmethod
    def read(path: Path, prediction: npt.NDArray[np.uint64], mask_key: npt.NDArray[np.uint8]) -> "_Evidence":
        table = read_answers(path)
        about = table.column("prediction").to_numpy().astype(np.uint64)
        place = np.minimum(np.searchsorted(prediction, about), max(0, len(prediction) - 1))
        evidence = _Evidence({}, {})
        columns = ("answer_id", "mask_key", "purpose", "counted_at")
        answers = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        for number, (name, key, purpose, counted_at) in enumerate(answers):
            # Stale answers are kept in the table, but are about no mask of this iteration.
            row = int(place[number])
            if purpose not in COUNTED_PURPOSES or not len(prediction) or mask_key[row].tobytes() != key:
                continue
            evidence.by_prediction.setdefault(int(about[number]), []).append(name)
            for node in counted_at or ():
                evidence.by_node.setdefault(node, []).append(name)
        return evidence


@dataclass(frozen=True)
class _Source:
    """The accepted masks of one shard."""

    shard: PredictionShard
    row: Row  # in the shard
    place: Row  # in the index
    judged: Verdicts
    mask_key: npt.NDArray[np.uint8]
    evidence: _Evidence
    mended: dict[int, dict[str, Any]]

    @cached_property
    def detectors(self) -> list[StoredDetector]:
        """The detectors of the shard."""
        return self.shard.detectors

    @cached_property
    def detector(self) -> npt.NDArray[np.int8]:
        """Place of each accepted mask's detector among them."""
        return self.shard.detector[self.row]

    def images(self, pool_shard: Path) -> list[dict[str, Any]]:
        """Return the records of the images that hold an accepted mask."""
        pool = read_shard(pool_shard)
        names = dict(zip(pool.image_id.tolist(), pool.file_name, strict=True))
        image_id, height, width = self.shard.images
        sizes = {
            image: (tall, wide)
            for image, tall, wide in zip(image_id.tolist(), height.tolist(), width.tolist(), strict=True)
        }
        records = []
        for image in np.unique(self.shard.image_id[self.row]).tolist():
            if image not in names:
                raise SegloopError(
                    f"{self.shard.path} holds predictions of image {image}, which {pool_shard} lacks: the pool was "
                    "changed after it was predicted. Predict this shard again."
                )
            tall, wide = sizes[image]
            records.append({"id": image, "file_name": names[image], "width": wide, "height": tall})
        return records

    def annotations(self, first_id: int) -> list[dict[str, Any]]:
        """Return the records of the accepted masks, numbered from `first_id` on."""
        names = self.judged.prediction[self.place].tolist()
        rles = edited_rles(self.shard.rles(self.row), names, self.mended, str(self.shard.path))
        area, box = masks.area(rles).tolist(), masks.boxes(rles).tolist()
        image_id = self.shard.image_id[self.row].tolist()
        category = self.shard.category[self.row].tolist()
        score = self.shard.score[self.row].tolist()
        return [
            {
                "id": first_id + number,
                "image_id": image_id[number],
                "category_id": category[number],
                "segmentation": masks.to_json(rles[number]),
                "area": area[number],
                "bbox": box[number],
                "iscrowd": 0,
                "score": score[number],
                "provenance": self._provenance(number),
            }
            for number in range(len(rles))
        ]

    def _provenance(self, number: int) -> dict[str, Any]:
        place = int(self.place[number])
        prediction, node = int(self.judged.prediction[place]), int(self.judged.node[place])
        reason = int(self.judged.reason[place])
        cluster = reason == CLUSTER
        detector = self.detectors[int(self.detector[number])]
        rests_on = self.evidence.by_node.get(node, []) if cluster else self.evidence.by_prediction.get(prediction, [])
        return {
            "iteration": self.shard.iteration,
            "shard": self.shard.shard,
            "row": int(self.row[number]),
            **({} if detector.name is None else {"detector": detector.name}),
            "prediction": str(prediction),
            "mask_key": self.mask_key[place].tobytes().hex(),
            "weights_sha256": detector.model_sha256,
            "node": None if node < 0 else node,
            "verdict_reason": REASONS[reason],
            "answers": rests_on,
        } | self._edit(prediction)

    def _edit(self, prediction: int) -> dict[str, Any]:
        """Return who mended a mask; `mask_key` stays that of the predicted one."""
        if prediction not in self.mended:
            return {}
        return {"edit": {name: self.mended[prediction][name] for name in ("edit_id", "annotator", "time")}}


def _check_categories(annotations: list[dict[str, Any]], categories: list[dict[str, Any]], seed_set: Path) -> None:
    known = {category["id"] for category in categories}
    for annotation in annotations:
        if annotation["category_id"] not in known:
            raise SegloopError(
                f"prediction {annotation['provenance']['prediction']} has category {annotation['category_id']}, which "
                f"{seed_set} lacks: the model was trained on another seed set. Train it again."
            )
