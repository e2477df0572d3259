"""Prediction as a pipeline: images are opened ahead of the network and masks are finished behind it.

On a CPU each image goes through the network alone, and `prediction.threads` of them at a time, one thread each: what is
found in an image then depends on neither its neighbours nor the number of threads, to the last bit, and several images
use several cores better than one image does. On a GPU images of like size share a batch.

Every queue has an end. Of `t` threads on a CPU, at most 2 + 2t opened images wait; on a GPU 2t opened images, `WINDOW`
batches of scaled ones (`segloop.detection.batching`), and the raw detections of 2t images; besides, detections of
images whose turn has not come, which are no more than those batches.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from segloop.config import PredictionConfig
from segloop.data.images import ImageError, open_image
from segloop.detection.batching import BatchSize, like_batches
from segloop.detection.dataset import read_ahead
from segloop.detection.segmenter import Detections, Segmenter
from segloop.detection.stages import Prepared, Stages, stages_of
from segloop.errors import SegloopError

logger = logging.getLogger("segloop.detection")

READING_THREADS = 1
"""Threads that open images while the network works on a CPU: reading is the smaller part there."""
GPU_FAILURES = ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "cuBLAS")
"""Words by which an error of the GPU's libraries is known that torch gives no class of its own."""
NO_MEMORY = ("DefaultCPUAllocator", "could not create a primitive", "bad_alloc", "can't start new thread")
"""Words by which it is known that this machine, or the limit of the job, has no more memory."""


@dataclass(frozen=True)
class Predicted:
    """What became of one image.

    Attributes
    ----------
    image_id, file
        The image.
    height, width
        Its size in pixels; 0 if it cannot be read.
    outcome
        What was found in it, or why it cannot be read.
    """

    image_id: int
    file: str
    height: int
    width: int
    outcome: Detections | str


@dataclass(frozen=True)
class _Opened:
    place: int
    image_id: int
    file: str
    prepared: Prepared | ImageError


def predict_stream(
    segmenter: Segmenter, images: Iterable[tuple[int, str]], prediction: PredictionConfig, score: float
) -> Iterator[Predicted]:
    """Predict images, in order.

    Parameters
    ----------
    images
        Id and file name of each.
    prediction
        As configured; `store_score` is not used.
    score
        Only detections above this score are given.

    Yields
    ------
    One `Predicted` an image, also for those that cannot be read.

    Raises
    ------
    SegloopError
        If the GPU fails, or its memory or the job's is too small for a single image.
    """
    stages = stages_of(segmenter)

    def opened(record: tuple[int, tuple[int, str]]) -> _Opened:
        place, (image_id, file) = record
        try:
            return _Opened(place, image_id, file, stages.prepare(open_image(Path(file))))
        except ImageError as error:
            return _Opened(place, image_id, file, error)

    readers = READING_THREADS if stages.parallel else prediction.threads
    with stages.running():
        ready = read_ahead(opened, enumerate(images), readers)
        try:
            if stages.parallel:
                yield from _one_by_one(stages, ready, prediction.threads, score)
            else:
                yield from _in_batches(stages, ready, prediction, score)
        except (RuntimeError, MemoryError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(error, MemoryError) or any(word in str(error) for word in NO_MEMORY):
                raise SegloopError(
                    f"the memory that this job gets is too small ({reason}). Give it more, or lower prediction.threads;"
                    " the prediction of a shard goes on from the images that were done."
                ) from error
            if not _is_of_gpu(error):
                raise
            raise SegloopError(
                f"the GPU failed ({reason}). Run the step again, on another node if this one fails again (`nvidia-smi` "
                "says how it is); the prediction of a shard goes on from the images that were done."
            ) from error


def _is_of_gpu(error: Exception) -> bool:
    return isinstance(error, torch.AcceleratorError) or any(word in str(error) for word in GPU_FAILURES)


def _one_by_one(stages: Stages, opened: Iterator[_Opened], threads: int, score: float) -> Iterator[Predicted]:
    def predict(one: _Opened) -> Predicted:
        if isinstance(one.prepared, ImageError):
            return _done(one, str(one.prepared))
        (found,) = stages.detect([one.prepared], score)
        return _done(one, stages.finish(found))

    return read_ahead(predict, opened, threads)


def _done(one: _Opened, outcome: Detections | str) -> Predicted:
    if isinstance(one.prepared, ImageError):
        return Predicted(one.image_id, one.file, 0, 0, outcome)
    return Predicted(one.image_id, one.file, one.prepared.height, one.prepared.width, outcome)


def _in_batches(
    stages: Stages, opened: Iterator[_Opened], prediction: PredictionConfig, score: float
) -> Iterator[Predicted]:
    size = BatchSize(prediction.batch_size)

    def finish(pair: tuple[_Opened, Any]) -> tuple[int, Predicted]:
        one, found = pair
        return one.place, _done(one, found if isinstance(found, str) else stages.finish(found))

    # The network runs in the caller's thread, whenever the next result is asked for.
    raw = (pair for batch in like_batches(opened, size, _like) for pair in _network(stages, batch, size, score))
    return _in_order(read_ahead(finish, raw, prediction.threads))


def _like(one: _Opened) -> object:
    return "unreadable" if isinstance(one.prepared, ImageError) else one.prepared.like


def _network(stages: Stages, batch: list[_Opened], size: BatchSize, score: float) -> Iterator[tuple[_Opened, Any]]:
    """Run the network on a batch, in parts if memory is short; yield each image and what `Stages.finish` takes."""
    waiting = list(batch)
    while waiting:
        part = waiting[: size.size]
        prepared = [one.prepared for one in part if not isinstance(one.prepared, ImageError)]
        if not prepared:
            yield from ((one, str(one.prepared)) for one in part)
        else:
            found = _tried(stages, prepared, size, score)
            if found is None:
                _lower(size, part)
                continue
            yield from zip(part, found, strict=True)
        del waiting[: len(part)]


def _tried(stages: Stages, prepared: list[Prepared], size: BatchSize, score: float) -> list[Any] | None:
    """Return what the network finds in a batch, or None if its memory is too small for it."""
    began = time.perf_counter()
    try:
        found = stages.detect(prepared, score)
        if size.trying and torch.cuda.is_available():
            torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    pixels = sum(one.like[0] * one.like[1] for one in prepared)
    size.measured(len(prepared), pixels, time.perf_counter() - began)
    return found


def _lower(size: BatchSize, part: list[_Opened]) -> None:
    # Outside the `except` block, which would hold the failed batch's tensors by its traceback.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(part) == 1:
        raise SegloopError(
            f"the GPU's memory is too small for a single image, {part[0].file}. Lower detector.max_size or "
            "detector.detections_per_image and train again, set prediction.precision to float16, or ask for a GPU "
            "with more memory."
        )
    size.out_of_memory(len(part))
    logger.warning("out of memory on the GPU with %d images; going on with %d", len(part), size.size)


def _in_order(results: Iterator[tuple[int, Predicted]]) -> Iterator[Predicted]:
    """Put results into the order of their places, which are 0, 1, 2, ..."""
    early: dict[int, Predicted] = {}
    places = count()
    place = next(places)
    for found_at, result in results:
        early[found_at] = result
        while place in early:
            yield early.pop(place)
            place = next(places)
