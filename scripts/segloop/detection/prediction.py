"""Predict one shard of the pool."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from segloop import __version__
from segloop.config import PredictionConfig
from segloop.data.pool import ShardImages, read_shard
from segloop.data.skipped import SkipReport
from segloop.detection import model_files
from segloop.detection.combining import combine
from segloop.detection.crops import network_sha256
from segloop.detection.partial import PartialPredictions
from segloop.detection.pipeline import Predicted, predict_stream
from segloop.detection.segmenter import Detections, Segmenter, gpu_was_given, load_segmenter, resolve_device
from segloop.errors import SegloopError
from segloop.files import sha256_file
from segloop.store.predictions import PredictionWriter, StoredDetector

SOFTWARE: Final = ("torch", "torchvision", "numpy", "pillow", "pycocotools")
"""Whose versions decide about the last bits of a prediction."""


def predict_shard(
    *,
    models: Mapping[str, Path],
    images: Path,
    shard: int,
    iteration: int,
    output: Path,
    skipped: Path,
    prediction: PredictionConfig,
    device: str,
    max_skipped: float,
    duplicates_iou: float | None = None,
) -> None:
    """Predict the images of a shard with each model and store every prediction above `store_score`.

    Killed, it leaves its results in hidden folders beside the store, from which the next call goes on.

    Parameters
    ----------
    models
        Model directory of each detector by name, in the order of the configuration. Of several, what a better
        prediction of another detector repeats is left out (`segloop.detection.combining`).
    images
        The shard, a table of image ids and file names.
    shard, iteration
        What the ids of the predictions are made of.
    output
        The prediction store to write; images without a detection are recorded too.
    skipped
        Report of the images that cannot be read.
    prediction, device
        As configured.
    max_skipped
        Largest tolerated share of unreadable images.
    duplicates_iou
        Mask IoU from which predictions of two detectors are one; a single one needs none.

    Raises
    ------
    SegloopError
        If a model is not whole, the device cannot be used or fails, another process predicts the shard, or too many
        images cannot be read.
    """
    table = read_shard(images)
    report = SkipReport(skipped, max_skipped)
    several = len(models) > 1
    with ExitStack() as stack:
        predicted = []
        for name, model in models.items():
            key = _key(model, table, shard, iteration, prediction, device)
            partial = stack.enter_context(PartialPredictions(output, key, name if several else None))
            what = f"shard {shard}{f', {name}' if several else ''}"
            predicted.append(_predict_with(model, key, table, partial, prediction, what))
        with _writer(output, iteration, shard, list(models), predicted) as writer:
            _write(writer, predicted, report, duplicates_iou)
            # Before the store takes its name: a shard with too many holes must not pass for a whole one.
            _finish(report, [one.partial for one in predicted])
        for left in output.parent.glob(f".{output.name}.*partial"):
            # Also of detectors that the configuration no longer has.
            shutil.rmtree(left, ignore_errors=True)


@dataclass(frozen=True)
class _Predicted:
    """What one detector found in a shard."""

    partial: PartialPredictions
    weights_sha256: str
    embedding_parts: dict[str, int]
    embedding_facts: dict[str, Any]
    predicts_iou: bool


def _predict_with(
    model: Path,
    key: dict[str, Any],
    table: ShardImages,
    partial: PartialPredictions,
    prediction: PredictionConfig,
    name: str,
) -> _Predicted:
    segmenter = load_segmenter(
        model,
        device=key["device"],
        threads=prediction.threads,
        precision=prediction.precision,
        score=prediction.score,
        embeddings=prediction.embeddings,
        crop=prediction.crop,
    )
    _predict_rest(segmenter, table, partial, prediction, name)
    return _Predicted(
        partial,
        key["weights_sha256"],
        segmenter.embedding_parts,
        segmenter.embedding_facts,
        segmenter.predicts_iou,
    )


def _writer(
    output: Path, iteration: int, shard: int, names: list[str], predicted: list[_Predicted]
) -> PredictionWriter:
    """Return the writer of a store that fits what was predicted."""
    where: dict[str, Any] = {"iteration": iteration, "shard": shard}
    facts = {name: fact for one in predicted for name, fact in one.embedding_facts.items()}
    if len(predicted) == 1:
        (one,) = predicted
        return PredictionWriter(
            output,
            **where,
            model_sha256=one.weights_sha256,
            embedding_dim=sum(one.embedding_parts.values()),
            has_predicted_iou=one.predicts_iou,
            embedding_parts=one.embedding_parts,
            embedding_facts=facts,
        )
    hashes = [one.weights_sha256 for one in predicted]
    return PredictionWriter(
        output,
        **where,
        model_sha256=hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        embedding_dim=max(sum(one.embedding_parts.values()) for one in predicted),
        has_predicted_iou=all(one.predicts_iou for one in predicted),
        embedding_facts=facts,
        detectors=[
            StoredDetector(name, one.weights_sha256, one.embedding_parts)
            for name, one in zip(names, predicted, strict=True)
        ],
    )


def _write(
    writer: PredictionWriter, predicted: list[_Predicted], report: SkipReport, duplicates_iou: float | None
) -> None:
    """Write what was found, image by image; of several detectors without duplicates between them."""
    if len(predicted) == 1:
        for one, found in _without_unreadable(predicted[0].partial, report):
            writer.append(one.image_id, one.height, one.width, found)
        return
    if duplicates_iou is None:
        raise ValueError("say from which IoU predictions of several detectors are one")
    width = max(sum(one.embedding_parts.values()) for one in predicted)
    for results in zip(*(one.partial for one in predicted), strict=True):
        # An image that one of them could not read is no image for the others.
        first = next((one for one in results if isinstance(one.outcome, str)), results[0])
        for one, _ in _without_unreadable([first], report):
            of_each = [result.outcome for result in results if not isinstance(result.outcome, str)]
            combined = combine(of_each, duplicates_iou, width)
            writer.append(one.image_id, one.height, one.width, combined.detections, combined.detector, combined.dropped)


def _key(
    model: Path, table: ShardImages, shard: int, iteration: int, prediction: PredictionConfig, device: str
) -> dict[str, Any]:
    """Return everything that the bytes of a prediction store depend on, but for the images' own bytes."""
    images = json.dumps([table.image_id.tolist(), table.file_name]).encode()
    crop = prediction.crop if "crop" in prediction.embeddings else None
    return {
        "model": sha256_file(model / model_files.DESCRIPTION),
        "weights_sha256": model_files.read_description(model)["weights_sha256"],
        "images": hashlib.sha256(images).hexdigest(),
        "shard": shard,
        "iteration": iteration,
        "store_score": prediction.store_score,
        "score": prediction.score,
        "precision": prediction.precision,
        "embeddings": prediction.embeddings,
        "crop": None if crop is None else crop.model_dump(mode="json") | {"sha256": network_sha256(crop)},
        "device": resolve_device(device, gpu_was_given()).type,
        "versions": {"segloop": __version__, **{name: metadata.version(name) for name in SOFTWARE}},
    }


def _predict_rest(
    segmenter: Segmenter, table: ShardImages, partial: PartialPredictions, prediction: PredictionConfig, name: str
) -> None:
    """Predict the images of a shard that an earlier attempt has not done."""
    done, total = len(partial), len(table)
    rest = zip(table.image_id[done:].tolist(), table.file_name[done:], strict=True)
    results = predict_stream(segmenter, rest, prediction, prediction.store_score)
    for one in tqdm(results, initial=done, total=total, desc=name, unit="image", disable=None):
        partial.append(one)


def _finish(report: SkipReport, partials: list[PartialPredictions]) -> None:
    try:
        report.finish()
    except SegloopError:
        # The images have to be mended, and then they are read again.
        for partial in partials:
            partial.remove()
        raise


def predict_images(
    segmenter: Segmenter,
    images: Iterable[tuple[int, str]],
    prediction: PredictionConfig,
    score: float,
    report: SkipReport,
) -> Iterator[tuple[int, Detections]]:
    """Predict images given as (id, file name), in order; those that cannot be read are reported and left out.

    Yields
    ------
    Image id and detections above `score`.
    """
    for one, found in _without_unreadable(predict_stream(segmenter, images, prediction, score), report):
        yield one.image_id, found


def _without_unreadable(results: Iterable[Predicted], report: SkipReport) -> Iterator[tuple[Predicted, Detections]]:
    for one in results:
        if isinstance(one.outcome, str):
            report.skip(one.file, one.image_id, one.outcome)
        else:
            report.use()
            yield one, one.outcome
