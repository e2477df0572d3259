"""Which boxes of which proposals become detections."""

from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

SMALLEST_SIDE = 1e-2
"""Boxes with a shorter side, in pixels of the network's input, show nothing."""


def keep_best(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], *, score: float, nms: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the detections of an image; every category of a proposal above the score is a candidate of its own.

    Parameters
    ----------
    boxes, scores
        float[n, C, 4], corners in pixels of the network's input, and float[n, C], for n proposals and C categories
        without the background.
    size
        Height and width of the image in the network's input.
    score, nms, most
        Only candidates above this score; of two of one category with an IoU above `nms` only the better; at most so
        many.

    Returns
    -------
    For each detection, in descending order of the score: the row of its proposal int64[k], its category int64[k] from
    0, and its box float[k, 4] within the image.
    """
    row, category = (scores > score).nonzero(as_tuple=True)
    box = clip_boxes_to_image(boxes[row, category], size)
    visible = remove_small_boxes(box, SMALLEST_SIDE)
    row, category, box = row[visible], category[visible], box[visible]
    kept = batched_nms(box, scores[row, category], category, nms)[:most]
    return row[kept], category[kept], box[kept]
