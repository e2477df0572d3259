"""The index of an iteration: every prediction that may be asked about, with its name and its earlier verdict."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.annotation.edits import read_edited
from segloop.annotation.oracle import groups_of, mask_iou
from segloop.annotation.verdicts import ACCEPTED, DUPLICATE, REJECTED, UNDECIDED, read_verdicts
from segloop.data import masks
from segloop.data.masks import Rle
from segloop.errors import SegloopError
from segloop.files import file_lock
from segloop.ids import mask_key, unpack_prediction_ids
from segloop.store.index import Index, write_index
from segloop.store.predictions import PredictionShard


def index_predictions(
    *,
    predictions: list[Path],
    earlier: list[list[Path]],
    earlier_verdicts: list[Path],
    output: Path,
    score: float,
    duplicates_iou: float,
    iteration: int,
    earlier_edited: list[Path] | None = None,
) -> None:
    """Write the index: predictions above a score, their mask keys, and which of them repeat a judged one.

    A prediction is a duplicate if an earlier prediction of the same image and category that was accepted or rejected
    (and is no duplicate itself) has a mask IoU of at least `duplicates_iou` with it. It inherits the verdict of the one
    with the largest IoU (equal: the earliest) and is not asked about again. A prediction whose mask is the very same as
    that of one before it in this iteration (same image and category) is a duplicate of that one without a verdict.

    Parameters
    ----------
    predictions
        The stores of this iteration, one a shard, in shard order.
    earlier
        The same for each earlier iteration, from 1 on.
    earlier_verdicts
        verdicts.parquet of the same iterations.
    score
        Strictly above this a prediction enters the index.
    iteration
        The number of this iteration, to check the stores against.
    earlier_edited
        edited.json of the same earlier iterations; None where nobody edits. A mask that was mended is compared with as
        it was drawn, and as it was predicted it counts as rejected.

    Raises
    ------
    SegloopError
        If a store or a file is missing, damaged, or belongs elsewhere.
    """
    if len(earlier) != len(earlier_verdicts) or any(len(stores) != len(predictions) for stores in earlier):
        raise ValueError("each earlier iteration has one store a shard and one file of verdicts")
    none: list[dict[int, dict[str, Any]]] = [{}] * len(earlier)
    mended = none if earlier_edited is None else [read_edited(path) for path in earlier_edited]
    judged = [_Judged.read(path, edits) for path, edits in zip(earlier_verdicts, mended, strict=True)]
    parts, models = [], set()
    # Older iterations may be losing what their retention does not keep; not while their masks are read.
    with file_lock(lock_of(output), exclusive=False):
        for number, path in enumerate(tqdm(predictions, desc="index", unit="shard", disable=None)):
            shard = _open(path, iteration, number)
            models.add((shard.model_sha256, sum(one.embedding_dim for one in shard.detectors)))
            if len(models) > 1:
                raise SegloopError(
                    f"{path} was predicted by another model than the shards before it. Predict it again."
                )
            before = _EarlierMasks()
            for place, (stores, verdicts) in enumerate(zip(earlier, judged, strict=True), start=1):
                before.add(stores[number], place, number, verdicts)
            parts.append(_index_shard(shard, before, score, duplicates_iou))
    index = _join(parts)
    attributes: dict[str, Any] = {
        "iteration": iteration,
        "score": score,
        "duplicates_iou": duplicates_iou,
        "shards": len(predictions),
        "duplicates": int(np.count_nonzero(index.duplicate_of)),
        "copies": int(np.count_nonzero((index.duplicate_of != 0) & (index.inherited == 0))),
    }
    for model_sha256, embedding_dim in models:
        attributes |= {"model_sha256": model_sha256, "embedding_dim": embedding_dim}
    if index.detector is not None:
        attributes |= _of_detectors(predictions, index.detector)
    write_index(output, index, attributes)


def _of_detectors(predictions: list[Path], detector: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Return the names of several detectors, and how many predictions of each the index and the stores left out."""
    stores = [PredictionShard.open(path) for path in predictions]
    names = [one.name for one in stores[0].detectors]
    dropped = np.sum([store.duplicates_between_detectors for store in stores], axis=0).tolist()
    counts = np.bincount(detector, minlength=len(names)).tolist()
    return {
        "detectors": [
            {"name": name, "predictions": count, "duplicates_left_out": left}
            for name, count, left in zip(names, counts, dropped, strict=True)
        ]
    }


def lock_of(file: Path) -> Path:
    """Return the file by whose lock jobs keep apart that read and that shorten the stores of earlier iterations.

    Parameters
    ----------
    file
        Any file in the folder of an iteration.
    """
    return file.parent.parent / ".earlier_predictions.lock"


def _open(path: Path, iteration: int, number: int) -> PredictionShard:
    shard = PredictionShard.open(path)
    if (shard.iteration, shard.shard) != (iteration, number):
        raise SegloopError(
            f"{path} says it is shard {shard.shard} of iteration {shard.iteration}, not shard {number} of "
            f"iteration {iteration}. Remove it and predict it again."
        )
    return shard


@dataclass(frozen=True)
class _Judged:
    """Predictions of one earlier iteration that were accepted or rejected and repeat none, ascending."""

    prediction: npt.NDArray[np.uint64]
    shard: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    verdict: npt.NDArray[np.int8]
    mended: dict[int, dict[str, Any]]

    @staticmethod
    def read(path: Path, mended: dict[int, dict[str, Any]]) -> "_Judged":
        verdicts = read_verdicts(path)
        kept = (verdicts.verdict != UNDECIDED) & (verdicts.reason != DUPLICATE)
        ids = verdicts.prediction[kept]
        _, shard, row = unpack_prediction_ids(ids)
        return _Judged(ids, shard, row, verdicts.verdict[kept], mended)


class _EarlierMasks:
    """Judged masks of one shard, by image and category. The pool's shards are fixed, so its images are all here."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], list[tuple[int, int, Rle]]] = defaultdict(list)

    def add(self, store: Path, iteration: int, number: int, judged: _Judged) -> None:
        low, high = np.searchsorted(judged.shard, [number, number + 1])
        if low == high:
            return
        shard = _open(store, iteration, number)
        rows = judged.row[low:high]
        image_id, category, rles = shard.image_id[rows], shard.category[rows], shard.rles(rows)
        for place in range(len(rows)):
            name, verdict = int(judged.prediction[low + place]), int(judged.verdict[low + place])
            found = self._found[int(image_id[place]), int(category[place])]
            edit = judged.mended.get(name)
            if edit is not None:
                found.append((name, ACCEPTED, edit["segmentation"]))
            found.append((name, verdict if edit is None else REJECTED, rles[place]))

    def of(self, image: int, category: int) -> list[tuple[int, int, Rle]]:
        """Return (prediction id, verdict, mask) in ascending order of ids."""
        return self._found.get((image, category), [])


def _index_shard(shard: PredictionShard, before: _EarlierMasks, score: float, duplicates_iou: float) -> Index:
    all_scores = shard.score
    # In float32 as stored: a score written as 0.5 must not be above the threshold 0.5.
    rows = np.flatnonzero(all_scores > np.float32(score))
    image_id, category, rles = shard.image_id[rows], shard.category[rows], shard.rles(rows)
    predicted_iou = shard.predicted_iou
    duplicate_of, inherited = _duplicates(image_id, category, rles, before, duplicates_iou, str(shard.path))
    prediction, mask_key = shard.prediction[rows], _mask_keys(image_id, category, rles)
    first = _first_of_each(mask_key)
    copies = np.flatnonzero((first != np.arange(len(rows))) & (duplicate_of == 0))
    duplicate_of[copies] = prediction[first[copies]]
    return Index(
        prediction=prediction,
        image_id=image_id,
        category=category,
        score=all_scores[rows],
        box=shard.box[rows],
        area=np.asarray(masks.area(rles), np.int64),
        predicted_iou=None if predicted_iou is None else predicted_iou[rows],
        mask_key=mask_key,
        duplicate_of=duplicate_of,
        inherited=inherited,
        detector=shard.detector[rows] if len(shard.detectors) > 1 else None,
    )


def _mask_keys(
    image_id: npt.NDArray[np.int64], category: npt.NDArray[np.int32], rles: list[Rle]
) -> npt.NDArray[np.uint8]:
    keys = [
        mask_key(image, kind, (rle["size"][0], rle["size"][1]), rle["counts"])
        for image, kind, rle in zip(image_id.tolist(), category.tolist(), rles, strict=True)
    ]
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)


def _first_of_each(mask_key: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the first row that has the same key as each row."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(key.tobytes(), row) for row, key in enumerate(mask_key)], np.int64)


def _duplicates(
    image_id: npt.NDArray[np.int64],
    category: npt.NDArray[np.int32],
    rles: list[Rle],
    before: _EarlierMasks,
    least_iou: float,
    where: str,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int8]]:
    duplicate_of, inherited = np.zeros(len(rles), np.uint64), np.zeros(len(rles), np.int8)
    for (image, kind), rows in groups_of(image_id, category):
        candidates = before.of(image, kind)
        if not candidates:
            continue
        iou = mask_iou([rles[row] for row in rows], [rle for _, _, rle in candidates], f"image {image} in {where}")
        best = iou.argmax(axis=1)
        found = iou[np.arange(len(rows)), best] >= np.float32(least_iou)
        for row, place in zip(rows[found], best[found], strict=True):
            duplicate_of[row], inherited[row], _ = candidates[place]
    return duplicate_of, inherited


def _join(parts: list[Index]) -> Index:
    def column(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    with_iou = [part.predicted_iou is not None for part in parts]
    if any(with_iou) and not all(with_iou):
        raise SegloopError("some prediction shards hold predicted IoUs and some do not. Predict all of them again.")
    return Index(
        prediction=column("prediction"),
        image_id=column("image_id"),
        category=column("category"),
        score=column("score"),
        box=column("box"),
        area=column("area"),
        predicted_iou=column("predicted_iou") if any(with_iou) else None,
        mask_key=column("mask_key"),
        duplicate_of=column("duplicate_of"),
        inherited=column("inherited"),
        detector=column("detector") if all(part.detector is not None for part in parts) else None,
    )
