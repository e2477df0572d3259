"""COCO average precision of a detector, and how sure one can be of it.

Average precision follows COCO (Lin et al., ECCV 2014; https://cocodataset.org/#detection-eval): the mean over
categories, over the IoU thresholds .50, .55, ..., .95 and over 101 recalls of the interpolated precision.
"""

import contextlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from segloop.config import PredictionConfig
from segloop.data import masks
from segloop.data.skipped import SkipReport
from segloop.detection import model_files
from segloop.detection.prediction import predict_images
from segloop.detection.segmenter import Detections, gpu_was_given, load_segmenter, resolve_device
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.randomness import generator

SCHEMA_VERSION = 1
SCORE = 0.05
"""Detections from this score on count: precision at low scores is part of the measure."""
COCO_DETECTIONS = 100
"""COCO counts at most so many detections of an image and category."""

FloatArray = npt.NDArray[np.float64]
Results = list[dict[str, Any]]


def evaluate_detector(
    *,
    model: Path,
    validation_set: Path,
    output: Path,
    results: Path,
    prediction: PredictionConfig,
    device: str,
    max_skipped: float,
) -> None:
    """Predict a labelled set and measure average precision.

    Parameters
    ----------
    model
        Model directory.
    validation_set
        Canonical COCO file.
    output
        evaluation.json to write; null where there is nothing to measure. `skipped` in it counts unreadable images,
        which the measure leaves out.
    results
        The detections in COCO's results format.
    prediction, device
        As configured; `store_score` plays no part.
    max_skipped
        Largest tolerated share of unreadable images.

    Raises
    ------
    SegloopError
        If the model is not whole, its categories are not those of the set, or too many images cannot be read.
    """
    began = time.monotonic()
    report = SkipReport(output.with_name(f"{output.stem}.skipped.json"), max_skipped)
    measured, detections = measure(model, validation_set, prediction, device, report)
    write_json(results, detections)
    write_json(output, {"schema_version": SCHEMA_VERSION, **measured, "seconds": round(time.monotonic() - began, 3)})


def measure(
    model: Path, validation_set: Path, prediction: PredictionConfig, device: str, report: SkipReport
) -> tuple[dict[str, Any], Results]:
    """Predict a labelled set and measure average precision, without writing anything but the report of skipped images.

    Parameters
    ----------
    model, validation_set, prediction, device
        As `evaluate_detector` takes them.
    report
        Takes the images that cannot be read.

    Returns
    -------
    What `evaluate_detector` writes, and the detections in COCO's results format.
    """
    truth = read_json(validation_set)
    segmenter = load_segmenter(
        model, device=device, threads=prediction.threads, precision=prediction.precision, score=prediction.score
    )
    description = model_files.read_description(model)
    check_categories(truth, segmenter.categories, validation_set, model)
    images = [(image["id"], image["file_name"]) for image in truth["images"]]
    rows = tqdm(images, desc="evaluating", unit="image", leave=None, disable=None)
    detections: Results = []
    seen: set[int] = set()
    for image_id, found in predict_images(segmenter, rows, prediction, SCORE, report):
        seen.add(image_id)
        detections += to_results(image_id, found)
    report.finish()
    truth = _only(truth, seen)
    most = max(COCO_DETECTIONS, description["detector"]["detections_per_image"])
    measured = {
        **average_precision(truth, detections, most),
        "images": len(truth["images"]),
        "skipped": len(images) - len(seen),
        "instances": sum(not annotation["iscrowd"] for annotation in truth["annotations"]),
        "detections": len(detections),
        "max_detections": most,
        "weights_sha256": description["weights_sha256"],
        "device": resolve_device(device, gpu_was_given()).type,
    }
    return measured, detections


def to_results(image_id: int, found: Detections) -> Results:
    """Write detections as COCO results: image_id, category_id, segmentation, bbox (x, y, width, height), score."""
    sides = np.concatenate((found.box[:, :2], found.box[:, 2:] - found.box[:, :2]), axis=1)
    return [
        {
            "image_id": image_id,
            "category_id": int(category),
            "segmentation": masks.to_json(rle),
            "bbox": [round(float(value), 2) for value in box],
            # Six digits keep the order of float32 scores and half of the file.
            "score": round(float(score), 6),
        }
        for category, rle, box, score in zip(found.category, found.masks, sides, found.score, strict=True)
    ]


def average_precision(truth: dict[str, Any], results: Results, max_detections: int) -> dict[str, Any]:
    """Measure COCO average precision of masks.

    Parameters
    ----------
    truth
        Canonical COCO; crowds are ignored as COCO does.
    results
        Detections in COCO's results format; may be empty.
    max_detections
        At most this many detections of an image and category count. COCO's own limit is 100; a higher one is needed
        where images hold more objects.

    Returns
    -------
    ap, ap50, ap75, ap_small, ap_medium, ap_large (areas as COCO cuts them: 32² and 96² pixels) and ap_per_category
    by name; null where the truth has no instance.
    """
    evaluation = _evaluate(truth, results, max_detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    # precision[IoU threshold, recall, category, area range, limit of detections]; -1 where there is no truth.
    precision = evaluation.eval["precision"][..., -1]
    return {
        "ap": _mean(precision[:, :, :, 0]),
        "ap50": _mean(precision[0, :, :, 0]),
        "ap75": _mean(precision[5, :, :, 0]),
        "ap_small": _mean(precision[:, :, :, 1]),
        "ap_medium": _mean(precision[:, :, :, 2]),
        "ap_large": _mean(precision[:, :, :, 3]),
        "ap_per_category": {
            category["name"]: _mean(precision[:, :, index, 0])
            for index, category in enumerate(sorted(truth["categories"], key=lambda one: one["id"]))
        },
    }


def bootstrap_ap(
    truth: dict[str, Any],
    results: dict[str, Results],
    max_detections: int,
    *,
    resamples: int,
    seed: int,
) -> dict[str, FloatArray]:
    """Resample images and measure average precision of several models on the same draws.

    Images are matched once; a resample only weights them, which makes a thousand of them affordable. Because every
    model sees the same draws, the difference of two rows is a paired comparison.

    Parameters
    ----------
    truth
        Canonical COCO.
    results
        For each model its detections in COCO's results format.
    max_detections
        As in `average_precision`.
    resamples, seed
        Number of draws, and the key of the random numbers.

    Returns
    -------
    For each model float64[resamples]; NaN where a draw holds no instance.

    Notes
    -----
    Efron, Bootstrap methods: another look at the jackknife (Annals of Statistics 1979). Categories that a draw does
    not contain are left out of its mean, as COCO leaves out categories without truth.
    """
    images = len(truth["images"])
    draws = generator("bootstrap", seed).integers(images, size=(resamples, images))
    weights = np.stack([np.bincount(draw, minlength=images) for draw in draws]).astype(np.float64)
    samples = {}
    for name, detections in results.items():
        tables = _match_tables(_evaluate(truth, detections, max_detections))
        samples[name] = np.array([_weighted_ap(tables, weight) for weight in weights])
    return samples


def check_categories(truth: dict[str, Any], categories: list[dict[str, Any]], path: Path, known_to: Path) -> None:
    """Refuse a labelled set whose categories are not those of a model or of its training set.

    Raises
    ------
    SegloopError
        If ids or names differ.
    """
    expected, known = ({(one["id"], one["name"]) for one in many} for many in (truth["categories"], categories))
    if expected != known:
        first = sorted(expected ^ known)[0]
        raise SegloopError(
            f"{path} and {known_to} have different categories (first difference: {first}). The seed set and the "
            "validation set need the same categories, with the same ids."
        )


def _only(truth: dict[str, Any], seen: set[int]) -> dict[str, Any]:
    return {
        **truth,
        "images": [image for image in truth["images"] if image["id"] in seen],
        "annotations": [one for one in truth["annotations"] if one["image_id"] in seen],
    }


def _mean(precision: FloatArray) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _evaluate(truth: dict[str, Any], results: Results, max_detections: int) -> Any:
    # COCO's own `loadRes` fails on an empty list, so both sides are built alike. Ids start from 1, because COCOeval
    # takes the id 0 of a matched object for "not matched".
    things = [{**one, "id": row, "ignore": 0} for row, one in enumerate(truth["annotations"], start=1)]
    found = []
    for row, one in enumerate(results, start=1):
        area = int(masks.area([masks.from_json(one["segmentation"])])[0])
        found.append({**one, "id": row, "area": area, "iscrowd": 0})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(truth, things), _coco(truth, found), "segm")
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
    return evaluation


def _coco(truth: dict[str, Any], annotations: Results) -> Any:
    coco = COCO()
    coco.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
    coco.createIndex()
    return coco


@dataclass(frozen=True)
class MatchTable:
    """Detections of one category over all images, in descending order of the score.

    Attributes
    ----------
    image
        int64[n], position of the image.
    true, false
        bool[thresholds, n]: matched an instance, matched nothing. Those that matched a crowd are neither.
    positives
        float64[images], instances of each image.
    """

    image: npt.NDArray[np.int64]
    true: npt.NDArray[np.bool_]
    false: npt.NDArray[np.bool_]
    positives: FloatArray


def _match_tables(evaluation: Any) -> list[MatchTable]:
    # evalImgs runs over categories, then area ranges, then images; the first area range is "all".
    images, areas = len(evaluation.params.imgIds), len(evaluation.params.areaRng)
    tables = []
    for category in range(len(evaluation.params.catIds)):
        start = category * areas * images
        tables.append(_match_table(evaluation.evalImgs[start : start + images], len(evaluation.params.iouThrs)))
    return tables


def _match_table(matches: list[dict[str, Any] | None], thresholds: int) -> MatchTable:
    positives = np.array([0 if one is None else np.sum(np.asarray(one["gtIgnore"]) == 0) for one in matches], float)
    present = [(index, one) for index, one in enumerate(matches) if one is not None and len(one["dtScores"])]
    if not present:
        empty = np.zeros((thresholds, 0), dtype=bool)
        return MatchTable(np.zeros(0, dtype=np.int64), empty, empty, positives)
    score = np.concatenate([one["dtScores"] for _, one in present])
    # The same stable order as COCOeval.accumulate.
    order = np.argsort(-score, kind="mergesort")
    matched = np.concatenate([one["dtMatches"] for _, one in present], axis=1)[:, order] > 0
    ignored = np.concatenate([one["dtIgnore"] for _, one in present], axis=1)[:, order] > 0
    image = np.concatenate([np.full(len(one["dtScores"]), index) for index, one in present])[order]
    return MatchTable(image, matched & ~ignored, ~matched & ~ignored, positives)


def _weighted_ap(tables: list[MatchTable], weight: FloatArray) -> float:
    precisions = []
    for table in tables:
        positives = float(table.positives @ weight)
        if positives > 0:
            precisions.append(_interpolated_precision(table, weight, positives))
    return float(np.mean(precisions)) if precisions else float("nan")


RECALLS = np.linspace(0.0, 1.0, 101)


def _interpolated_precision(table: MatchTable, weight: FloatArray, positives: float) -> float:
    of_detection = weight[table.image]
    true = np.cumsum(table.true * of_detection, axis=1)
    false = np.cumsum(table.false * of_detection, axis=1)
    recall = true / positives
    precision = true / np.maximum(true + false, np.spacing(1.0))
    # Precision at a recall is the best precision at that recall or a higher one.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for row, at in zip(envelope, recall, strict=True):
        place = np.searchsorted(at, RECALLS, side="left")
        total += float(row[place[place < len(row)]].sum())
    return total / (len(RECALLS) * len(recall))
