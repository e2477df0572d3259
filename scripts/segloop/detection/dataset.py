"""From a canonical COCO file to training samples; what a step sees is a function of its key alone."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from segloop.config import DetectorConfig, TrainingConfig
from segloop.data import masks
from segloop.data.images import ImageError, open_image
from segloop.data.skipped import SkipReport
from segloop.detection.distributed import ALONE, Ranks
from segloop.detection.scaling import scaled_size
from segloop.detection.segmenter import ImageArray
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.randomness import generator

FloatArray = npt.NDArray[np.float32]

CACHE_BYTES = 1 << 30
"""Images are kept in memory up to this sum; beyond it they are read again when they are needed."""
MIN_PIXELS = 6
"""An instance of which a crop shows fewer pixels is neither an example nor background."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Record:
    """One image and what is known about it; boxes are float32[n, 4], corners in pixels."""

    file_name: str
    height: int
    width: int
    rles: list[masks.Rle]
    labels: npt.NDArray[np.int64]
    boxes: FloatArray
    ignored: FloatArray
    collected: npt.NDArray[np.bool_]
    """Which instances were collected from the pool."""
    from_pool: bool = False
    """Whether the image is from the pool, not from the seed set."""

    def without(self, left_out: npt.NDArray[np.bool_]) -> "Record":
        """Return the record with some instances bool[n] as ignored regions."""
        if not left_out.any():
            return self
        kept = ~left_out
        return replace(
            self,
            rles=[self.rles[row] for row in np.flatnonzero(kept)],
            labels=self.labels[kept],
            boxes=self.boxes[kept],
            ignored=np.concatenate((self.ignored, self.boxes[left_out])),
            collected=self.collected[kept],
        )


@dataclass(frozen=True)
class Sample:
    """What the network sees of an image.

    Attributes
    ----------
    image
        uint8[h, w, 3].
    boxes, labels, masks
        float32[n, 4] corners, int64[n] from 1, bool[n, h, w].
    ignored
        float32[m, 4], boxes that hold no negative examples.
    """

    image: ImageArray
    boxes: FloatArray
    labels: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]
    ignored: FloatArray


@dataclass(frozen=True)
class View:
    """A window of the scaled image, perhaps mirrored.

    Attributes
    ----------
    scaled
        Height and width of the whole image after the change of scale.
    top, left, height, width
        The window in the scaled image, in pixels.
    flip, vertical_flip
        Whether left and right, up and down change places.
    """

    scaled: tuple[int, int]
    top: int
    left: int
    height: int
    width: int
    flip: bool
    vertical_flip: bool


class TrainingSet:
    """The records of a canonical COCO file.

    Parameters
    ----------
    path
        The file; `iscrowd: 1` marks ignored regions.
    report
        Takes the images that cannot be read. They are all opened once, so that none ends a training of days.
    threads
        Threads that open images.
    ranks
        Who else trains on it: each opens its part of the images, and all learn which can be read.

    Raises
    ------
    SegloopError
        If no image remains, or there are no categories.
    """

    def __init__(self, path: Path, report: SkipReport, threads: int, ranks: Ranks = ALONE) -> None:
        dataset = read_json(path)
        self.categories: list[dict[str, Any]] = dataset["categories"]
        if not self.categories:
            raise SegloopError(f"{path} has no categories: there is nothing to learn")
        self._cache: dict[str, ImageArray] = {}
        self._room = CACHE_BYTES
        records = list(_records(dataset))
        errors = self._errors(records, threads, ranks)
        self.records = [record for record, error in zip(records, errors, strict=True) if error is None]
        report.use(len(self.records))
        for record, error in zip(records, errors, strict=True):
            if error is not None:
                report.skip(record.file_name, record.file_name, error)
        report.finish()
        if not any(len(record.labels) for record in self.records):
            raise SegloopError(f"{path} holds no labelled instance in a readable image: there is nothing to train on")

    def __len__(self) -> int:
        return len(self.records)

    def _errors(self, records: list[Record], threads: int, ranks: Ranks) -> list[str | None]:
        """Open every image once; return for each record why it cannot be used, or None."""
        own = records[ranks.rank :: ranks.size]
        errors = []
        for record, image in zip(own, read_ahead(_open_or_error, own, threads), strict=True):
            errors.append(str(image) if isinstance(image, ImageError) else None)
            if not isinstance(image, ImageError):
                self._keep(record.file_name, image)
        shared = ranks.share(errors)
        return [shared[place % ranks.size][place // ranks.size] for place in range(len(records))]

    def _keep(self, file: str, image: ImageArray) -> None:
        if image.nbytes <= self._room:
            self._room -= image.nbytes
            self._cache[file] = image

    def image(self, index: int) -> ImageArray:
        """Return uint8[H, W, 3] of a record."""
        file = self.records[index].file_name
        image = self._cache.get(file)
        if image is None:
            image = open_image(Path(file))
            self._keep(file, image)
        return image

    @cached_property
    def parts(self) -> tuple[list[int], list[int]]:
        """Return the images of the seed set and those of the pool."""
        pool = [index for index, record in enumerate(self.records) if record.from_pool]
        return sorted(set(range(len(self.records))) - set(pool)), pool


def _open_or_error(record: Record) -> ImageArray | ImageError:
    try:
        image = open_image(Path(record.file_name))
    except ImageError as error:
        return error
    if image.shape[:2] != (record.height, record.width):
        return ImageError(f"is {image.shape[0]} x {image.shape[1]} pixels, its masks {record.height} x {record.width}")
    return image


def _records(dataset: dict[str, Any]) -> Iterator[Record]:
    label = {category["id"]: index + 1 for index, category in enumerate(dataset["categories"])}
    annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in dataset["images"]}
    for annotation in dataset["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    for image in dataset["images"]:
        crowds = [one for one in annotations[image["id"]] if one["iscrowd"]]
        things = [one for one in annotations[image["id"]] if not one["iscrowd"]]
        yield Record(
            file_name=image["file_name"],
            height=image["height"],
            width=image["width"],
            rles=[masks.from_json(one["segmentation"]) for one in things],
            labels=np.array([label[one["category_id"]] for one in things], dtype=np.int64),
            boxes=_corners([one["bbox"] for one in things]),
            ignored=_corners([one["bbox"] for one in crowds]),
            # A seed set by itself does not say where it is from.
            collected=np.array([one.get("source") == "collected" for one in things], dtype=bool),
            from_pool=image.get("source") == "pool",
        )


def _corners(boxes: list[list[float]]) -> FloatArray:
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def draw_view(
    random: np.random.Generator, height: int, width: int, detector: DetectorConfig, training: TrainingConfig
) -> View:
    """Draw how an image is scaled, cropped and mirrored.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    """
    low, high = training.scale_jitter
    jitter = float(np.exp(random.uniform(np.log(low), np.log(high))))
    base = scaled_size(height, width, detector)
    scaled = (max(1, round(base[0] * jitter)), max(1, round(base[1] * jitter)))
    window = tuple(min(side, training.crop or side) for side in scaled)
    top, left = (int(random.integers(side - shown + 1)) for side, shown in zip(scaled, window, strict=True))
    return View(
        scaled=scaled,
        top=top,
        left=left,
        height=window[0],
        width=window[1],
        flip=bool(random.random() < training.flip),
        vertical_flip=bool(random.random() < training.vertical_flip),
    )


def make_sample(image: ImageArray, record: Record, view: View) -> Sample:
    """Look at an image and its instances through a view.

    Instances of which fewer than `MIN_PIXELS` pixels are left become ignored regions.
    """
    boxes = _boxes_in_view(record.boxes, record, view)
    touched = _has_area(boxes)
    shown = _masks_in_view([record.rles[row] for row in np.flatnonzero(touched)], record, view)
    large = shown.sum(axis=(1, 2)) >= MIN_PIXELS
    ignored = np.concatenate((_boxes_in_view(record.ignored, record, view), boxes[touched][~large]))
    return Sample(
        image=_image_in_view(image, view),
        boxes=tight_boxes(shown[large]),
        labels=record.labels[touched][large],
        masks=shown[large],
        ignored=ignored[_has_area(ignored)],
    )


def _has_area(boxes: FloatArray) -> npt.NDArray[np.bool_]:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _image_in_view(image: ImageArray, view: View) -> ImageArray:
    across, down = image.shape[1] / view.scaled[1], image.shape[0] / view.scaled[0]
    window = (
        view.left * across,
        view.top * down,
        min((view.left + view.width) * across, image.shape[1]),
        min((view.top + view.height) * down, image.shape[0]),
    )
    shown = Image.fromarray(image).resize((view.width, view.height), Image.Resampling.BILINEAR, box=window)
    pixels = np.asarray(shown)
    return np.ascontiguousarray(pixels[:: -1 if view.vertical_flip else 1, :: -1 if view.flip else 1])


def _masks_in_view(rles: list[masks.Rle], record: Record, view: View) -> npt.NDArray[np.bool_]:
    # The pixel of the image that lies under the centre of each pixel of the view.
    rows = ((view.top + np.arange(view.height) + 0.5) * record.height / view.scaled[0]).astype(np.int64)
    columns = ((view.left + np.arange(view.width) + 0.5) * record.width / view.scaled[1]).astype(np.int64)
    rows = rows[:: -1 if view.vertical_flip else 1]
    columns = columns[:: -1 if view.flip else 1]
    shown = np.zeros((len(rles), view.height, view.width), dtype=bool)
    for target, rle in zip(shown, rles, strict=True):
        target[:] = masks.decode(rle)[rows[:, None], columns[None, :]]
    return shown


def _boxes_in_view(boxes: FloatArray, record: Record, view: View) -> FloatArray:
    scale = np.array([view.scaled[1] / record.width, view.scaled[0] / record.height] * 2, dtype=np.float32)
    offset = np.array([view.left, view.top] * 2, dtype=np.float32)
    limit = np.array([view.width, view.height] * 2, dtype=np.float32)
    moved: FloatArray = np.clip(boxes * scale - offset, 0, limit).astype(np.float32)
    if view.flip:
        moved[:, [0, 2]] = view.width - moved[:, [2, 0]]
    if view.vertical_flip:
        moved[:, [1, 3]] = view.height - moved[:, [3, 1]]
    return moved


def tight_boxes(shown: npt.NDArray[np.bool_]) -> FloatArray:
    """Return float32[n, 4], the smallest boxes around non-empty masks bool[n, h, w]."""
    columns: npt.NDArray[np.bool_] = np.asarray(shown.any(axis=1))
    rows: npt.NDArray[np.bool_] = np.asarray(shown.any(axis=2))
    edges = (
        columns.argmax(axis=1),
        rows.argmax(axis=1),
        columns.shape[1] - columns[:, ::-1].argmax(axis=1),
        rows.shape[1] - rows[:, ::-1].argmax(axis=1),
    )
    boxes: FloatArray = np.stack(edges, axis=1).astype(np.float32).reshape(-1, 4)
    return boxes


def batch_indices(images: int, batch_size: int, step: int, *key: int | str) -> list[int]:
    """Return the images of a step: an endless row of shuffled epochs, cut into batches.

    Parameters
    ----------
    step
        Number of the step, from 0.
    key
        What the order depends on besides, such as the seed and the iteration.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [_in_shuffled_epochs(images, place, *key) for place in places]


def _in_shuffled_epochs(images: int, place: int, *key: int | str) -> int:
    epoch, rank = divmod(place, images)
    return int(generator("order", *key, epoch).permutation(images)[rank])


def shared_indices(
    parts: tuple[list[int], list[int]], share: float, batch_size: int, step: int, *key: int | str
) -> list[int]:
    """Return the images of a step if a share of all comes from the first of two parts, each in shuffled epochs.

    Of any number n of images from the beginning, `floor(n share)` are from the first part, whatever the batches.
    A part without images leaves everything to the other.

    Parameters
    ----------
    parts
        The images of each part.
    share
        In 0..1.
    batch_size, step, key
        As `batch_indices` takes them.
    """
    if not all(parts):
        share = float(bool(parts[0]))
    chosen = []
    for place in range(step * batch_size, (step + 1) * batch_size):
        before, after = math.floor(place * share), math.floor((place + 1) * share)
        part, rank = (0, before) if after > before else (1, place - before)
        chosen.append(parts[part][_in_shuffled_epochs(len(parts[part]), rank, f"part {part}", *key)])
    return chosen


def make_batch(
    training_set: TrainingSet,
    step: int,
    detector: DetectorConfig,
    training: TrainingConfig,
    *key: int | str,
    ranks: Ranks = ALONE,
) -> list[Sample]:
    """Return the samples of a step; the same step and key always give the same samples.

    With several ranks each gets every `size`-th of the samples that one alone would get.
    """
    samples = []
    if training.seed_share is None:
        indices = batch_indices(len(training_set), training.batch_size, step, *key)
    else:
        indices = shared_indices(training_set.parts, training.seed_share, training.batch_size, step, *key)
    for place, index in list(enumerate(indices))[ranks.rank :: ranks.size]:
        record = training_set.records[index]
        random = generator("augment", *key, step, place)
        view = draw_view(random, record.height, record.width, detector, training)
        # Drawn apart, so that views are the same with any weight.
        counts = generator("weight", *key, step, place).random(len(record.labels)) < training.collected_weight
        samples.append(make_sample(training_set.image(index), record.without(record.collected & ~counts), view))
    return samples


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """Map a function over items in threads, a few items ahead of the consumer; the order is kept."""
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Result]] = [pool.submit(function, item) for item in islice(remaining, 2 * threads)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(function, item) for item in islice(remaining, 1)]
                yield result
        finally:
            for future in waiting:
                future.cancel()
