"""Predict one shard of the pool."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from segloop.config import PredictionConfig
from segloop.data.images import ImageError, open_image
from segloop.data.pool import read_shard
from segloop.data.skipped import SkipReport
from segloop.detection import model_files
from segloop.detection.dataset import read_ahead
from segloop.detection.segmenter import Detections, ImageArray, Segmenter, load_segmenter
from segloop.store.predictions import PredictionWriter

READING_THREADS = 1
"""Threads that open images while the network works."""

Item = TypeVar("Item")


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
        If the model is not whole, the device cannot be used, or too many images cannot be read.
    """
    segmenter = load_segmenter(model, device=device, threads=prediction.threads, score=prediction.score)
    table = read_shard(images)
    report = SkipReport(skipped, max_skipped)
    with PredictionWriter(
        output,
        iteration=iteration,
        shard=shard,
        model_sha256=model_files.read_description(model)["weights_sha256"],
        embedding_dim=segmenter.embedding_dim,
        has_predicted_iou=segmenter.predicts_iou,
        embedding_parts=segmenter.embedding_parts,
    ) as writer:
        records = zip(table.image_id.tolist(), table.file_name, strict=True)
        rows = tqdm(records, total=len(table.file_name), desc=f"shard {shard}", unit="image", disable=None)
        for image_id, image, found in predict_images(segmenter, rows, prediction, prediction.store_score, report):
            writer.append(image_id, image.shape[0], image.shape[1], found)
        # Before the store takes its name: a shard with too many holes must not pass for a whole one.
        report.finish()


def predict_images(
    segmenter: Segmenter,
    images: Iterable[tuple[int, str]],
    prediction: PredictionConfig,
    score: float,
    report: SkipReport,
) -> Iterator[tuple[int, ImageArray, Detections]]:
    """Predict images given as (id, file name), in order; those that cannot be read are reported and left out.

    Yields
    ------
    Image id, pixels and detections above `score`.
    """
    for batch in batches(_readable(images, report), prediction.batch_size):
        found = segmenter.predict([image for _, image in batch], score=score)
        for (image_id, image), detections in zip(batch, found, strict=True):
            yield image_id, image, detections


def _readable(images: Iterable[tuple[int, str]], report: SkipReport) -> Iterator[tuple[int, ImageArray]]:
    for image_id, file, image in read_ahead(_open, images, READING_THREADS):
        if isinstance(image, ImageError):
            report.skip(file, image_id, str(image))
        else:
            report.use()
            yield image_id, image


def _open(record: tuple[int, str]) -> tuple[int, str, ImageArray | ImageError]:
    image_id, file = record
    try:
        return image_id, file, open_image(Path(file))
    except ImageError as error:
        return image_id, file, error


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of `size`; the last one may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
