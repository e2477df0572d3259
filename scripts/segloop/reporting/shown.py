"""Masks that a picture shows, looked up by prediction id: the cost grows with the picture, not with the pool."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segloop.data import masks
from segloop.data.images import ImageError, open_image
from segloop.data.masks import Rle
from segloop.data.pool import read_shard
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.ids import unpack_prediction_ids
from segloop.reporting.drawing import Pixels, draw_mask
from segloop.store.predictions import PredictionShard

logger = logging.getLogger("segloop.reporting")


@dataclass(frozen=True)
class ShownMask:
    """One prediction and where its pixels are.

    Attributes
    ----------
    prediction
        Its id.
    category
        Category id.
    score
        The detector's score.
    image
        Path of its image, None where the pool's shard no longer lists it.
    rle
        The mask.
    """

    prediction: int
    category: int
    score: float
    image: Path | None
    rle: Rle


def look_up(wanted: npt.NDArray[np.uint64], predictions: list[Path], shards: list[Path]) -> list[ShownMask]:
    """Return the masks of predictions, in the order asked for.

    Parameters
    ----------
    wanted
        Prediction ids, [n].
    predictions, shards
        The iteration's prediction stores and the pool's Parquet files, each in shard order; only those that hold a
        wanted prediction are opened.

    Raises
    ------
    SegloopError
        If an id belongs to no shard, or a store is missing or damaged.
    """
    found: dict[int, ShownMask] = {}
    _, shard_of, row_of = unpack_prediction_ids(wanted)
    for number in np.unique(shard_of).tolist():
        here = shard_of == number
        store = _store(number, predictions, shards)
        for mask in _masks(store, shards[number], wanted[here], row_of[here]):
            found[mask.prediction] = mask
    return [found[key] for key in wanted.tolist()]


def _store(number: int, predictions: list[Path], shards: list[Path]) -> PredictionShard:
    if number >= min(len(predictions), len(shards)):
        raise SegloopError(
            f"a prediction belongs to shard {number}, but there are {len(predictions)} prediction stores and "
            f"{len(shards)} pool shards. Make the index of this iteration again."
        )
    store = PredictionShard.open(predictions[number])
    if store.shard != number:
        raise SegloopError(
            f"{predictions[number]} holds shard {store.shard}, not {number}. Give stores in shard order."
        )
    return store


def _masks(
    store: PredictionShard, shard: Path, ids: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]
) -> list[ShownMask]:
    images, category, score = store.image_id[rows], store.category[rows], store.score[rows]
    listed = read_shard(shard)
    place = {image: position for position, image in enumerate(listed.image_id.tolist())}
    files = [Path(listed.file_name[place[image]]) if image in place else None for image in images.tolist()]
    columns = (ids.tolist(), category.tolist(), score.tolist(), files, store.rles(rows))
    return [ShownMask(*values) for values in zip(*columns, strict=True)]


def draw_shown(mask: ShownMask, side: int) -> Pixels | None:
    """Return the picture uint8[side, side, 3] of a mask; None, and a line in the log, if its image cannot be had."""
    if mask.image is None:
        logger.warning("prediction %d: its image is no longer in the pool", mask.prediction)
        return None
    try:
        image = open_image(mask.image)
    except ImageError as error:
        logger.warning("prediction %d: %s", mask.prediction, error)
        return None
    pixels = masks.decode(mask.rle)
    if image.shape[:2] != pixels.shape:
        logger.warning("prediction %d: %s has changed its size since it was predicted", mask.prediction, mask.image)
        return None
    return draw_mask(image, pixels, side=side)


def category_names(seed_set: Path) -> dict[int, str]:
    """Return the name of each category id of a canonical COCO file."""
    return {int(category["id"]): str(category["name"]) for category in read_json(seed_set)["categories"]}
