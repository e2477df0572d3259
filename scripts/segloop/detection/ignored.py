"""Unlabelled objects are not background (contract 6 of the architecture).

In images of the pool only accepted masks are labelled. Whatever else was predicted there may well be an object, so
the detector must not learn that it is none: anchors and proposals that would be negative examples, and of which half
the area or more lies inside the box of an ignored region, are left out of the loss.
"""

import torch
from torch import Tensor

COVERED = 0.5


def inside_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Say which boxes lie at least half inside one ignored region.

    Parameters
    ----------
    boxes
        float[n, 4], corners x0, y0, x1, y1.
    ignored
        float[m, 4], boxes of the ignored regions.

    Returns
    -------
    bool[n]; a box without area is never inside.
    """
    if len(ignored) == 0 or len(boxes) == 0:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    low = torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=2).amax(dim=1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    return (area > 0) & (common >= COVERED * area)
