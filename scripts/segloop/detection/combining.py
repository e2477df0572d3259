"""What several detectors found in one image, as one list without duplicates between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segloop.data import masks
from segloop.detection.segmenter import Detections


@dataclass(frozen=True)
class Combined:
    """The predictions on an image that stay.

    Attributes
    ----------
    detections
        In descending order of the score; of equal ones the earlier detector's comes first. Embeddings are filled up
        with zeros to one width. There is a predicted IoU only if every detector gives one.
    detector
        int8[n], which detector each is from.
    dropped
        int64[detectors], how many of each repeat a better one of another.
    """

    detections: Detections
    detector: npt.NDArray[np.int8]
    dropped: npt.NDArray[np.int64]


def combine(found: Sequence[Detections], least_iou: float, width: int) -> Combined:
    """Join the predictions of several detectors on one image.

    From the highest score down, a prediction is left out if another detector's that stayed has its category and a mask
    IoU of at least `least_iou` with it. Of equal scores the detector goes first that comes first in the configuration.
    What one detector found twice stays: its own non-maximum suppression has judged it.

    Parameters
    ----------
    found
        Of each detector, in the order of the configuration.
    least_iou
        `duplicates.iou`.
    width
        Width of the embeddings.
    """
    score = np.concatenate([one.score for one in found])
    category = np.concatenate([one.category for one in found])
    detector = np.repeat(np.arange(len(found)), [len(one) for one in found]).astype(np.int8)
    rles = [rle for one in found for rle in one.masks]
    # Stable: equal scores stay in the order of the detectors.
    order = np.argsort(-score, kind="stable")
    stays = np.ones(len(score), np.bool_)
    for kind in np.unique(category):
        rows = order[category[order] == kind]
        if len(np.unique(detector[rows])) < 2:
            continue
        same = masks.iou([rles[row] for row in rows], [rles[row] for row in rows]).astype(np.float32)
        repeats = (same >= np.float32(least_iou)) & (detector[rows][:, None] != detector[rows])
        for place in range(1, len(rows)):
            stays[rows[place]] = not bool((repeats[place, :place] & stays[rows[:place]]).any())
    kept = order[stays[order]]
    judged = all(one.predicted_iou is not None for one in found)
    embedding = np.concatenate([_filled_up(one.embedding, width) for one in found])
    return Combined(
        Detections(
            score=score[kept],
            category=category[kept],
            box=np.concatenate([one.box.reshape(-1, 4) for one in found])[kept],
            masks=[rles[row] for row in kept],
            embedding=embedding[kept],
            predicted_iou=np.concatenate([np.asarray(one.predicted_iou) for one in found])[kept] if judged else None,
        ),
        detector[kept],
        np.bincount(detector[~stays], minlength=len(found)).astype(np.int64),
    )


def _filled_up(embedding: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    return np.pad(embedding, ((0, 0), (0, width - embedding.shape[1])))
