"""Predict one shard of the pool."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from segloop import __version__
from segloop.config import PredictionConfig
from segloop.data.pool import ShardImages, read_shard
from segloop.data.skipped import SkipReport
from segloop.detection import model_files
from segloop.detection.partial import PartialPredictions
from segloop.detection.pipeline import Predicted, predict_stream
from segloop.detection.segmenter import Detections, Segmenter, gpu_was_given, load_segmenter, resolve_device
from segloop.errors import SegloopError
from segloop.files import sha256_file
from segloop.store.predictions import PredictionWriter

SOFTWARE: Final = ("torch", "torchvision", "numpy", "pillow", "pycocotools")
"""Whose versions decide about the last bits of a prediction."""


def predict_shard(
    *,
    model: Path,
    images: Path,
    shard: int,
    iteration: int,
    output: Path,
    skipped: Path,
    prediction: PredictionConfig,
    device: str,
    max_skipped: float,
) -> None:
    """Predict the images of a shard and store every prediction above `store_score`.

    Killed, it leaves its results in a hidden folder beside the store, from which the next call goes on.

    Parameters
    ----------
    model
        Model directory.
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

    Raises
    ------
    SegloopError
        If the model is not whole, the device cannot be used or fails, another process predicts the shard, or too many
        images cannot be read.
    """
    table = read_shard(images)
    report = SkipReport(skipped, max_skipped)
    key = _key(model, table, shard, iteration, prediction, device)
    with PartialPredictions(output, key) as partial:
        segmenter = load_segmenter(
            model, device=device, threads=prediction.threads, precision=prediction.precision, score=prediction.score
        )
        _predict_rest(segmenter, table, partial, prediction, f"shard {shard}")
        with PredictionWriter(
            output,
            iteration=iteration,
            shard=shard,
            model_sha256=key["weights_sha256"],
            embedding_dim=segmenter.embedding_dim,
            has_predicted_iou=segmenter.predicts_iou,
            embedding_parts=segmenter.embedding_parts,
        ) as writer:
            for one, found in _without_unreadable(partial, report):
                writer.append(one.image_id, one.height, one.width, found)
            # Before the store takes its name: a shard with too many holes must not pass for a whole one.
            _finish(report, partial)
        partial.remove()


def _key(
    model: Path, table: ShardImages, shard: int, iteration: int, prediction: PredictionConfig, device: str
) -> dict[str, Any]:
    """Return everything that the bytes of a prediction store depend on, but for the images' own bytes."""
    images = json.dumps([table.image_id.tolist(), table.file_name]).encode()
    return {
        "model": sha256_file(model / model_files.DESCRIPTION),
        "weights_sha256": model_files.read_description(model)["weights_sha256"],
        "images": hashlib.sha256(images).hexdigest(),
        "shard": shard,
        "iteration": iteration,
        "store_score": prediction.store_score,
        "score": prediction.score,
        "precision": prediction.precision,
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


def _finish(report: SkipReport, partial: PartialPredictions) -> None:
    try:
        report.finish()
    except SegloopError:
        # The images have to be mended, and then they are read again.
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
