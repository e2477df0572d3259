"""How large the network sees an image."""

import numpy as np
from PIL import Image

from segloop.config import DetectorConfig
from segloop.detection.segmenter import ImageArray


def scaled_size(height: int, width: int, config: DetectorConfig, scale: float = 1.0) -> tuple[int, int]:
    """Return the height and width an image is scaled to: `min_size` for the shorter side, within `max_size`.

    Parameters
    ----------
    scale
        Factor on both limits.
    """
    factor = scale * min(config.min_size / min(height, width), config.max_size / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def scale_image(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    """Scale uint8[H, W, 3] to a height and width."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
