"""Predictions of one iteration that show nearly the same mask twice."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.annotation.oracle import groups_of, mask_iou
from segloop.data import masks
from segloop.data.masks import Rle
from segloop.ids import unpack_prediction_ids
from segloop.store.predictions import PredictionShard

_BLOCK = 256
"""Masks of an image whose boxes are compared with all others at once."""
_ROUNDING = 1e-6


def count_near_duplicates(prediction: npt.NDArray[np.uint64], shards: list[Path], least_iou: float) -> int:
    """Return how many predictions overlap an earlier one of the same image and category.

    Parameters
    ----------
    prediction
        Ids of predictions of one iteration, ascending, [N].
    shards
        Their stores.
    least_iou
        Mask IoU from which two predictions are nearly the same.

    Raises
    ------
    SegloopError
        If a store is missing or damaged, or holds masks of different sizes for one image.

    Notes
    -----
    One shard is in memory at a time. Masks are compared only where their boxes overlap enough.
    """
    _, shard_of, row_of = unpack_prediction_ids(prediction)
    found = 0
    for path in tqdm(shards, desc="near-duplicates", unit="shard", disable=None):
        shard = PredictionShard.open(path)
        first, last = np.searchsorted(shard_of, [shard.shard, shard.shard + 1])
        found += _in_shard(shard, row_of[first:last], least_iou)
    return found


def _in_shard(shard: PredictionShard, rows: npt.NDArray[np.int64], least_iou: float) -> int:
    pairs = groups_of(shard.image_id[rows], shard.category[rows])
    groups = [(image, own) for (image, _), own in pairs if len(own) > 1]
    if not groups:
        return 0
    rles = shard.rles(rows)
    return sum(
        _in_group([rles[row] for row in own], least_iou, f"image {image} in {shard.path}") for image, own in groups
    )


def _in_group(rles: list[Rle], least_iou: float, where: str) -> int:
    box, area = masks.boxes(rles), masks.area(rles).astype(np.float64)
    found = 0
    for start in range(0, len(rles), _BLOCK):
        near = _may_overlap(box, area, slice(start, start + _BLOCK), least_iou)
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            earlier = [rles[other] for other in np.flatnonzero(near[row])]
            found += bool((mask_iou([rles[start + row]], earlier, where) >= np.float32(least_iou)).any())
    return found


def _may_overlap(
    box: npt.NDArray[np.float64], area: npt.NDArray[np.float64], some: slice, least_iou: float
) -> npt.NDArray[np.bool_]:
    """Return for which earlier masks the IoU can reach `least_iou`, bool [rows of `some`, all rows].

    An intersection is no larger than that of the boxes and than the smaller mask, a union no smaller than the larger.
    """
    low, high = box[:, :2], box[:, :2] + box[:, 2:]
    sides = np.minimum(high[some, None], high[None]) - np.maximum(low[some, None], low[None])
    most = np.minimum(np.maximum(sides, 0).prod(axis=2), np.minimum(area[some, None], area[None]))
    possible = most >= least_iou * (1 - _ROUNDING) * np.maximum(area[some, None], area[None])
    rows = np.arange(len(area))
    return np.asarray(possible & (rows[None] < rows[some, None]))
