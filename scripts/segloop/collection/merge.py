"""The training set of an iteration: the seed set and everything collected so far."""

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.annotation.answers import read_answers
from segloop.annotation.verdicts import ACCEPTED, REJECTED, Verdicts, read_verdicts
from segloop.data import masks
from segloop.data.pool import read_shard
from segloop.errors import SegloopError
from segloop.files import atomic_file, read_json, write_json
from segloop.store.predictions import PredictionShard

WRONG_CLASS: Final = ("wrong class", "wrong_class")
"""Reasons of a "no" after which the region stays background: what is there is none of the category."""


def merge_training_set(
    *,
    seed_set: Path,
    collected: list[Path],
    predictions: list[Path],
    verdicts: Path | None,
    answers: Path | None,
    output: Path,
    ignore_unaccepted: bool,
) -> None:
    """Write the training set of an iteration; that of iteration 0 is the seed set itself.

    Pool images enter with their collected masks. All other stored predictions of this iteration on these images, also
    those below the score of the index, become regions to ignore (`iscrowd` 1, `source` "unaccepted"): an object that
    nobody has labelled yet is not background (contract 6 of the architecture). Predictions whose mask was rejected as
    "wrong class" stay background.

    Parameters
    ----------
    seed_set
        Canonical COCO file.
    collected
        collected.json of the iterations 1..i; empty in iteration 0.
    predictions, verdicts, answers
        Of iteration i; none in iteration 0.
    output
        Canonical COCO file. Images are numbered anew, seed first, so that ids of seed and pool cannot clash; they
        carry `source` ("seed" or "pool") and the images of the pool `pool_id`.
    ignore_unaccepted
        False: what was not collected is background.

    Raises
    ------
    SegloopError
        If inputs are missing, damaged, or name one image in two ways.
    """
    if not collected:
        with atomic_file(output, sealed=True) as temporary:
            shutil.copyfile(seed_set, temporary)
        return
    merged = _Merged(read_json(seed_set))
    for path in collected:
        merged.add_collected(read_json(path), path)
    if ignore_unaccepted and verdicts is not None:
        judged = read_verdicts(verdicts)
        wrong_class = _wrong_class(answers, judged)
        for path in tqdm(predictions, desc="merge", unit="shard", disable=None):
            merged.add_ignored(PredictionShard.open(path), judged, wrong_class)
    merged.write(output, "Seed set and collected masks")


def upper_bound_set(*, seed_set: Path, truth: Path, shards: list[Path], output: Path) -> None:
    """Write the seed set and the whole truth of the pool: what a loop could at best collect.

    Parameters
    ----------
    truth
        Canonical COCO file with the image ids of the pool.
    shards
        The pool's Parquet files; truth on images outside the pool (not sampled) is left out.

    Raises
    ------
    SegloopError
        If inputs are missing or damaged, or the truth holds no image of the pool.
    """
    merged = _Merged(read_json(seed_set))
    dataset = read_json(truth)
    names: dict[int, str] = {}
    for path in shards:
        pool = read_shard(path)
        names |= zip(pool.image_id.tolist(), pool.file_name, strict=True)
    images = [image | {"file_name": names[image["id"]]} for image in dataset["images"] if image["id"] in names]
    if not images:
        raise SegloopError(f"{truth} holds no image of the pool. Import the truth again.")
    kept = {image["id"] for image in images}
    annotations = [record for record in dataset["annotations"] if record["image_id"] in kept]
    merged.add_pool(images, annotations, "truth", truth)
    merged.write(output, "Seed set and all truth of the pool")


class _Merged:
    """A growing data set; ids of images and annotations are given in the order of arrival."""

    def __init__(self, seed: dict[str, Any]) -> None:
        self.categories = seed["categories"]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.pool: dict[int, dict[str, Any]] = {}
        new_id: dict[int, int] = {}
        for image in seed["images"]:
            new_id[image["id"]] = len(self.images) + 1
            self.images.append(image | {"id": len(self.images) + 1, "source": "seed"})
        for annotation in seed["annotations"]:
            self._add(annotation | {"image_id": new_id[annotation["image_id"]], "source": "seed"})

    def add_collected(self, dataset: dict[str, Any], path: Path) -> None:
        """Add a file of collected masks; their provenance stays behind, but for the name of the prediction."""
        annotations = []
        for annotation in dataset["annotations"]:
            slim = {key: value for key, value in annotation.items() if key != "provenance"}
            slim["prediction"] = annotation["provenance"]["prediction"]
            annotations.append(slim)
        self.add_pool(dataset["images"], annotations, "collected", path)

    def add_pool(
        self, images: list[dict[str, Any]], annotations: list[dict[str, Any]], source: str, path: Path
    ) -> None:
        """Add images of the pool, each once, and annotations on them."""
        for image in images:
            known = self.pool.get(image["id"])
            if known is None:
                pool_id, number = image["id"], len(self.images) + 1
                self.pool[pool_id] = image | {"id": number, "source": "pool", "pool_id": pool_id}
                self.images.append(self.pool[pool_id])
            elif known["file_name"] != image["file_name"]:
                raise SegloopError(
                    f"{path} calls image {image['id']} of the pool {image['file_name']}, an earlier file "
                    f"{known['file_name']}: the pool was changed during the run. Start a new run directory."
                )
        for annotation in annotations:
            self._add(annotation | {"image_id": self.pool[annotation["image_id"]]["id"], "source": source})

    def add_ignored(self, shard: PredictionShard, judged: Verdicts, wrong_class: npt.NDArray[np.uint64]) -> None:
        """Add what a shard predicted on images that are used, and nobody accepted."""
        image_id = shard.image_id
        used = np.isin(image_id, np.array(sorted(self.pool), np.int64))
        prediction = shard.prediction
        rows = np.flatnonzero(used & ~_among(prediction, judged.prediction[judged.verdict == ACCEPTED]))
        rows = rows[~np.isin(prediction[rows], wrong_class)]
        rles = shard.rles(rows)
        area, box = masks.area(rles).tolist(), masks.boxes(rles).tolist()
        category, score = shard.category[rows].tolist(), shard.score[rows].tolist()
        for number, row in enumerate(rows.tolist()):
            self._add(
                {
                    "image_id": self.pool[int(image_id[row])]["id"],
                    "category_id": category[number],
                    "segmentation": masks.to_json(rles[number]),
                    "area": area[number],
                    "bbox": box[number],
                    "iscrowd": 1,
                    "score": score[number],
                    "source": "unaccepted",
                }
            )

    def _add(self, annotation: dict[str, Any]) -> None:
        # The id stands first in every record and is unique in the merged set; the old one means nothing here.
        self.annotations.append({"id": len(self.annotations) + 1} | {k: v for k, v in annotation.items() if k != "id"})

    def write(self, output: Path, description: str) -> None:
        write_json(
            output,
            {
                "info": {"description": description},
                "images": self.images,
                "annotations": self.annotations,
                "categories": self.categories,
            },
        )


def _among(values: npt.NDArray[np.uint64], ascending: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values)


def _wrong_class(answers: Path | None, judged: Verdicts) -> npt.NDArray[np.uint64]:
    """Return the rejected predictions whose answer gives "wrong class" as its reason, ascending."""
    if answers is None:
        return np.zeros(0, np.uint64)
    table = read_answers(answers)
    columns = (table.column(name).to_pylist() for name in ("prediction", "reply", "reason"))
    named = [
        prediction
        for prediction, reply, reason in zip(*columns, strict=True)
        if reply == "no" and reason in WRONG_CLASS
    ]
    return np.intersect1d(np.array(named, np.uint64), judged.prediction[judged.verdict == REJECTED])
