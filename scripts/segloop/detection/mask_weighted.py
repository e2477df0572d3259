"""An embedding of what lies below a mask: the features of its region, weighted by the mask, projected at random.

After the mask-weighted region feature of D. P. Papadopoulos, E. Weber and A. Torralba, *Scaling up Instance Annotation
via Label Propagation*, ICCV 2021. It needs no layer that was trained for it.
"""

import hashlib
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segloop.randomness import generator

WIDTH: Final = 512
"""Length of an embedding."""
SIDE: Final = 7
"""Cells along each side of a region, as the box head gets them."""
NAME: Final = "mask_weighted"


class MaskWeighted(nn.Module):
    """Weights the pooled features of regions by their masks and projects them.

    The projection is a matrix of independent normal numbers, which keeps angles and distances up to a small error
    whatever the features are (W. B. Johnson and J. Lindenstrauss, 1984). It depends on the number of inputs alone, so
    that all iterations and all models of one width of features share it; it is no part of a model's weights.

    Parameters
    ----------
    channels
        Channels of the features of a region.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inputs = channels * SIDE * SIDE
        numbers = generator("mask-weighted projection", self.inputs).standard_normal(
            (self.inputs, WIDTH), dtype=np.float32
        )
        matrix = numbers / np.float32(WIDTH**0.5)
        self.sha256 = hashlib.sha256(matrix.tobytes()).hexdigest()
        self.projection: Tensor
        self.register_buffer("projection", torch.from_numpy(matrix), persistent=False)

    def forward(self, features: Tensor, probability: Tensor) -> Tensor:
        """Describe masks.

        Parameters
        ----------
        features
            float[n, channels, S, S], the features of the boxes of the masks; S is a multiple of `SIDE`.
        probability
            float[n, M, M], the masks inside their boxes; M is a multiple of `SIDE`.

        Returns
        -------
        float[n, WIDTH].
        """
        if not len(features):
            return features.new_zeros((0, WIDTH))
        side = features.shape[-1]
        weight = F.adaptive_avg_pool2d(probability[:, None].to(features), side)
        weighted = features * weight
        if side != SIDE:
            weighted = F.adaptive_avg_pool2d(weighted, SIDE)
        return weighted.flatten(1) @ self.projection.to(weighted.dtype)

    def facts(self) -> dict[str, Any]:
        """Return what a store records about the embedding."""
        return {"inputs": self.inputs, "projection_sha256": self.sha256}
