"""From the small square of probabilities a mask head gives to a run-length encoded mask of the image."""

import math

import numpy as np
import numpy.typing as npt
import pycocotools.mask

from segloop.data.masks import Rle

FloatArray = npt.NDArray[np.float32]


def paste_mask(probability: FloatArray, box: FloatArray, height: int, width: int) -> Rle | None:
    """Resample a square of probabilities to the pixels of its box and cut it at one half.

    Pixel centres lie at half-integers, and the square fills the box exactly: no rounding of the box moves the edge of
    a small object. Pixels with their centre outside the box do not belong to the mask.

    Parameters
    ----------
    probability
        float32[M, M].
    box
        float32[4], corners x0, y0, x1, y1 in pixels of the image; may reach beyond it.
    height, width
        Size of the image in pixels.

    Returns
    -------
    The mask, or None if no pixel reaches one half.
    """
    x0, y0, x1, y1 = (float(corner) for corner in box)
    columns = _pixels(x0, x1, width)
    rows = _pixels(y0, y1, height)
    if not len(columns) or not len(rows):
        return None
    side = probability.shape[0]
    local = _interpolation(rows, y0, y1, side) @ probability @ _interpolation(columns, x0, x1, side).T
    return encode_window(local >= 0.5, int(rows[0]), int(columns[0]), height, width)


def _pixels(low: float, high: float, limit: int) -> npt.NDArray[np.int64]:
    # Those with their centre in [low, high).
    return np.arange(max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), limit))


def _interpolation(pixels: npt.NDArray[np.int64], low: float, high: float, side: int) -> FloatArray:
    # Row k holds the weights with which the cells of the square make up pixel k: linear, hat-shaped.
    # Beyond the centre of the outermost cell its value holds.
    position = np.clip((pixels + 0.5 - low) * (side / (high - low)) - 0.5, 0, side - 1)
    weights = 1.0 - np.abs(position[:, None] - np.arange(side)[None, :])
    hats: FloatArray = np.maximum(weights, 0.0).astype(np.float32)
    return hats


def encode_window(window: npt.NDArray[np.bool_], top: int, left: int, height: int, width: int) -> Rle | None:
    """Encode a mask that is known inside a window only, at a cost that depends on the window, not on the image.

    Parameters
    ----------
    window
        bool[h, w], its first pixel at row `top` and column `left` of an image of `height` by `width` pixels.

    Returns
    -------
    The same as encoding the whole image, or None if the window is empty.
    """
    columns, rows = np.nonzero(window.T)
    if not len(rows):
        return None
    position = (columns + left) * height + rows + top
    gaps = np.flatnonzero(np.diff(position) != 1)
    starts = position[np.concatenate(([0], gaps + 1))]
    ends = position[np.concatenate((gaps, [-1]))] + 1
    bounds = np.stack((starts, ends), axis=1).ravel()
    runs = np.diff(np.concatenate(([0], bounds, [height * width])))
    if runs[-1] == 0:
        runs = runs[:-1]
    encoded = pycocotools.mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return Rle(size=[height, width], counts=encoded["counts"])
