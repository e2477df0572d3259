"""How well predictions on transformed copies of an image agree with the predictions on the image itself.

Data distillation: I. Radosavovic et al., Data Distillation: Towards Omni-Supervised Learning, CVPR 2018.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.annotation.oracle import match_one_to_one
from segloop.annotation.probabilities import write_probabilities
from segloop.config import DistillationConfig, PredictionConfig
from segloop.data import masks
from segloop.data.images import open_image
from segloop.data.masks import Rle
from segloop.data.pool import read_shard
from segloop.detection import model_files
from segloop.detection.batching import batches
from segloop.detection.dataset import read_ahead
from segloop.detection.pipeline import READING_THREADS
from segloop.detection.segmenter import Detections, ImageArray, Segmenter, load_segmenter
from segloop.errors import SegloopError
from segloop.ids import unpack_prediction_ids
from segloop.store.index import read_index_columns
from segloop.store.predictions import PredictionShard

MIN_IOU: Final = 0.5
"""Smallest mask IoU of two predictions of one object."""


def measure_agreement(
    *,
    models: Mapping[str, Path],
    images: Path,
    index: Path,
    predictions: Path,
    output: Path,
    prediction: PredictionConfig,
    distillation: DistillationConfig,
    device: str,
) -> None:
    """Measure how well transformed copies agree with the indexed predictions of a shard.

    Parameters
    ----------
    models
        The models that made the predictions, by the name of their detector, in the order of the configuration. Each
        looks for its own predictions.
    images
        The shard, a table of image ids and file names; images without an indexed prediction are not opened.
    index, predictions
        The index of the iteration, and the store of the shard.
    output
        `.npy` file, float32 of one number for each indexed prediction of the shard, in the order of the index.
    prediction, distillation, device
        As configured.

    Raises
    ------
    SegloopError
        If an input is missing or damaged, the predictions are another model's, or an image cannot be read any more.
    """
    stored = PredictionShard.open(predictions)
    made_by = [one.model_sha256 for one in stored.detectors]
    for model, weights in zip(models.values(), made_by, strict=True):
        if weights != model_files.read_description(model)["weights_sha256"]:
            raise SegloopError(f"{predictions} was not predicted with {model}. Run predict_shard again.")
    rows = _indexed_rows(index, stored.shard)
    table = read_shard(images)
    files = dict(zip(table.image_id.tolist(), table.file_name, strict=True))
    unknown = set(stored.image_id[rows].tolist()) - files.keys()
    if unknown:
        raise SegloopError(f"{predictions} has an image {min(unknown)}, {images} has not. Run predict_shard again.")
    result = np.zeros(len(rows), np.float32)
    detector = stored.detector[rows]
    for number, model in enumerate(models.values()):
        own = np.flatnonzero(detector == number)
        result[own] = _agreement_of(model, stored, rows[own], files, prediction, distillation, device)
    write_probabilities(output, result)


def _agreement_of(
    model: Path,
    stored: PredictionShard,
    rows: npt.NDArray[np.int64],
    files: dict[int, str],
    prediction: PredictionConfig,
    distillation: DistillationConfig,
    device: str,
) -> npt.NDArray[np.float32]:
    """Return the agreement of rows of a store, all of them of one model, [n]."""
    groups = _rows_of_images(stored.image_id[rows])
    segmenter = load_segmenter(
        model, device=device, threads=prediction.threads, precision=prediction.precision, score=prediction.score
    )
    score, category, rles = stored.score[rows], stored.category[rows], stored.rles(rows)
    result = np.zeros(len(rows), np.float32)
    records = [(image, files[image], rles[own[0]]["size"]) for image, own in groups.items()]
    opened = read_ahead(_open, tqdm(records, unit="image", disable=None), READING_THREADS)
    for image, copies in _predict_copies(segmenter, opened, prediction, distillation):
        own = groups[image]
        result[own] = agreement(score[own], category[own], [rles[row] for row in own], copies)
    return result


def agreement(
    score: npt.NDArray[np.float32], category: npt.NDArray[np.int32], rles: list[Rle], copies: Sequence[Detections]
) -> npt.NDArray[np.float32]:
    """Return how well the predictions on copies of an image agree with those on the image, 0 to 1.

    Parameters
    ----------
    score, category : [n]
        Of the predictions on the image.
    rles
        Their n masks.
    copies
        What was found in each transformed copy, with masks mapped back to the image.

    Returns
    -------
    float32 [n], the mean of a prediction's own score and, for each copy, the score of its match there, 0 without one.
    """
    scores = [score.astype(np.float64), *(_matched_scores(score, category, rles, found) for found in copies)]
    return np.asarray(np.mean(scores, axis=0), np.float32)


def _matched_scores(
    score: npt.NDArray[np.float32], category: npt.NDArray[np.int32], rles: list[Rle], found: Detections
) -> npt.NDArray[np.float64]:
    """Return the score of the match of each prediction in a copy, 0 without one, [n].

    In descending order of score each prediction takes the free one of its category with the largest mask IoU.
    """
    result = np.zeros(len(score), np.float64)
    # The matching wants more than its threshold, so this is the number just below the smallest IoU that counts.
    above = float(np.nextafter(np.float32(MIN_IOU), np.float32(0)))
    for kind in np.unique(category):
        own, others = np.flatnonzero(category == kind), np.flatnonzero(found.category == kind)
        iou = masks.iou([rles[row] for row in own], [found.masks[row] for row in others])
        match = match_one_to_one(iou.astype(np.float32), score[own], above)
        served = match >= 0
        result[own[served]] = found.score[others[match[served]]]
    return result


@dataclass(frozen=True)
class Transform:
    """A copy of an image: mirrored left to right or not, and of another size."""

    flip: bool = False
    scale: float = 1.0

    def predict(self, segmenter: Segmenter, images: list[ImageArray], score: float) -> list[Detections]:
        """Find objects in copies of images; their masks are mapped back, their boxes and embeddings are not."""
        shown = [np.ascontiguousarray(image[:, ::-1]) for image in images] if self.flip else images
        # The segmenter scales its input itself and gives masks of the image's own size back.
        found = segmenter.predict(shown, score=score, scale=self.scale)
        return [replace(one, masks=[mirrored(rle) for rle in one.masks]) for one in found] if self.flip else found


def transforms_of(distillation: DistillationConfig) -> list[Transform]:
    """Return the copies that a configuration describes."""
    return [Transform(flip=True)] * distillation.flip + [Transform(scale=scale) for scale in distillation.scales]


def mirrored(rle: Rle) -> Rle:
    """Return a mask mirrored left to right."""
    return masks.encode(masks.decode(rle)[:, ::-1])


def _predict_copies(
    segmenter: Segmenter,
    images: Iterator[tuple[int, ImageArray]],
    prediction: PredictionConfig,
    distillation: DistillationConfig,
) -> Iterator[tuple[int, list[Detections]]]:
    """Yield the id of each image and what was found in each of its copies."""
    transforms = transforms_of(distillation)
    size = 2 if prediction.batch_size == "auto" else prediction.batch_size
    for batch in batches(images, size):
        pixels = [image for _, image in batch]
        found = [transform.predict(segmenter, pixels, prediction.store_score) for transform in transforms]
        for place, (image_id, _) in enumerate(batch):
            yield image_id, [copies[place] for copies in found]


def _open(record: tuple[int, str, list[int]]) -> tuple[int, ImageArray]:
    image_id, file, size = record
    image = open_image(file)
    if list(image.shape[:2]) != size:
        raise SegloopError(f"{file} has another size than when it was predicted. Run predict_shard again.")
    return image_id, image


def _indexed_rows(index: Path, shard: int) -> npt.NDArray[np.int64]:
    """Return the rows of a shard that are in the index, ascending."""
    (ids,) = read_index_columns(index, "prediction")
    _, shard_of, row = unpack_prediction_ids(ids)
    return row[np.searchsorted(shard_of, shard) : np.searchsorted(shard_of, shard + 1)]


def _rows_of_images(image_id: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """Return the places of each image in a column whose images follow each other, as in a prediction store."""
    if not len(image_id):
        return {}
    begins = np.flatnonzero(np.r_[True, image_id[1:] != image_id[:-1]])
    return dict(zip(image_id[begins].tolist(), np.split(np.arange(len(image_id)), begins[1:]), strict=True))
