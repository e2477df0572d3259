"""Cut fixed squares of features out of a pyramid (RoIAlign; He et al., Mask R-CNN, ICCV 2017, section 3)."""

import math

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

SAMPLES = 2
"""Sampling points along each side of a cell."""
SMALL_MAP = 64 * 64
"""Up to this many cells of a feature map, matrix products are faster in training than torchvision's kernel."""


class RegionPooler(nn.Module):
    """Cut a fixed square of features out of the pyramid level that fits a box.

    The level of a box follows Lin et al., Feature Pyramid Networks (CVPR 2017), equation 1. Unlike torchvision's
    pooler it knows its strides instead of guessing them from the first batch it sees, so that a resumed training
    cannot differ from an undisturbed one.

    Parameters
    ----------
    strides
        Pixels between neighbours of each level, finest first, each the double of the one before.
    size
        Side of the square.
    aligned
        Whether pixel centres lie at half-integers, as they should, or at integers, as in the first implementations.
    canonical_size, canonical_level
        A box of this side in pixels belongs to the level with stride 2 ** canonical_level.
    """

    def __init__(
        self, strides: tuple[int, ...], size: int, *, aligned: bool, canonical_size: float, canonical_level: int
    ) -> None:
        super().__init__()
        self.strides = strides
        self.size = size
        self.aligned = aligned
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level

    def levels(self, boxes: Tensor) -> Tensor:
        """Return int64[n], the index into `strides` of every box of float[n, 4]."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
        level = torch.floor(self.canonical_level + torch.log2(side / self.canonical_size + 1e-6)).to(torch.int64)
        first = round(math.log2(self.strides[0]))
        return level.clamp(first, first + len(self.strides) - 1) - first

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor]) -> Tensor:
        """Pool features for boxes.

        Parameters
        ----------
        features
            Pyramid levels float[B, C, h, w], finest first; levels beyond `strides` are not used.
        boxes
            For each image float[n, 4] in pixels of the network's input.

        Returns
        -------
        float[sum of n, C, size, size] in the order of the boxes.
        """
        flat = torch.cat(boxes)
        image = torch.cat([torch.full_like(box[:, :1], index) for index, box in enumerate(boxes)])
        regions = torch.cat((image, flat), dim=1)
        level = self.levels(flat)
        pooled, rows = [], []
        for index, (stride, feature) in enumerate(zip(self.strides, features.values(), strict=False)):
            chosen = torch.where(level == index)[0]
            rows.append(chosen)
            pooled.append(self._pool(feature, regions[chosen], 1.0 / stride))
        return torch.cat(pooled)[torch.argsort(torch.cat(rows))]

    def _pool(self, feature: Tensor, regions: Tensor, scale: float) -> Tensor:
        small = feature.shape[-2] * feature.shape[-1] <= SMALL_MAP
        if feature.requires_grad and small and feature.device.type == "cpu":
            return pool_by_products(feature, regions, self.size, scale, aligned=self.aligned)
        pooled: Tensor = roi_align(feature, regions, self.size, scale, SAMPLES, self.aligned)
        return pooled


def pool_by_products(feature: Tensor, regions: Tensor, size: int, scale: float, *, aligned: bool) -> Tensor:
    """Compute RoIAlign as two matrix products for each region.

    Bilinear sampling is linear in the features and separates into rows and columns: a region's square is R F C^T, with
    one matrix of weights for its rows and one for its columns. The gradient is made of products, too, while
    torchvision's kernel scatters it on one thread; on small maps this is an order of magnitude faster.

    Parameters
    ----------
    feature
        float[B, C, h, w].
    regions
        float[n, 5]: position of the image in the batch, and corners in pixels; grouped by image.
    size
        Side of the square.
    scale
        Cells of the feature map a pixel.

    Returns
    -------
    float[n, C, size, size], equal to torchvision's `roi_align` up to rounding.
    """
    channels, height, width = feature.shape[1:]
    counts = torch.bincount(regions[:, 0].to(torch.int64), minlength=len(feature)).tolist()
    pooled = []
    for one, boxes in zip(feature, torch.split(regions[:, 1:], counts), strict=True):
        rows = sampling_weights(boxes[:, 1] * scale, boxes[:, 3] * scale, size, height, aligned=aligned)
        columns = sampling_weights(boxes[:, 0] * scale, boxes[:, 2] * scale, size, width, aligned=aligned)
        cells = one.permute(1, 2, 0).reshape(height, width * channels)
        lines = (rows.reshape(-1, height) @ cells).reshape(len(boxes), size, width, channels)
        pooled.append((columns[:, None] @ lines).permute(0, 3, 1, 2))
    return torch.cat(pooled)


def sampling_weights(low: Tensor, high: Tensor, size: int, length: int, *, aligned: bool) -> Tensor:
    """Return with what weights the cells of one axis make up the cells of a square.

    Parameters
    ----------
    low, high
        float[n], ends of the regions in cells of the feature map.
    size
        Cells of the square.
    length
        Cells of the feature map.

    Returns
    -------
    float[n, size, length]; each row sums to one, less where the region reaches beyond the map.
    """
    extent = high - low
    if aligned:
        low = low - 0.5
    else:
        extent = extent.clamp(min=1.0)
    place = (torch.arange(size * SAMPLES, device=low.device) + 0.5) / SAMPLES
    position = low[:, None] + place * (extent / size)[:, None]
    inside = (position >= -1.0) & (position <= length)
    position = position.clamp(0, length - 1)
    distance = (position[:, :, None] - torch.arange(length, device=low.device)).abs()
    weights = (1.0 - distance).clamp(min=0.0) * inside[:, :, None]
    return weights.reshape(len(low), size, SAMPLES, length).mean(dim=2)
