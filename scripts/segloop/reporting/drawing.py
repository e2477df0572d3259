"""Draw one mask on its image in the style of the thesis's Figures 3-4 and 3-5.

The crop surrounds the mask with some context, everything outside the mask is dimmed and greyed, and the mask has an
edge of one pixel, so that the eye judges the outline without losing the scene.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from segloop.reporting.style import YELLOW

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

CONTEXT = 0.35
"""Context on each side of a mask, as a share of the longer side of its box."""
SMALLEST_WINDOW = 24
"""A window is never narrower than this, in image pixels, so that a tiny mask still shows where it lies."""
DIMMED = 0.45
"""Brightness that is left outside the mask."""
FADED = 0.6
"""Share of the colour that is taken away outside the mask."""

DARK = 120
"""A crop whose bright parts stay below this value is made brighter, else many micrographs would print black."""
MOST_GAIN = 4.0
"""No crop is made brighter by more than this factor."""


@dataclass(frozen=True)
class Window:
    """A square of image pixels; it may reach over the borders of the image.

    Attributes
    ----------
    top, left
        First row and column; negative above or left of the image.
    side
        Length in pixels.
    """

    top: int
    left: int
    side: int


def mask_box(mask: Mask) -> tuple[int, int, int, int]:
    """Return the box (top, left, height, width) of a mask bool[H, W]; the whole image when no pixel is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return 0, 0, mask.shape[0], mask.shape[1]
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def crop_window(mask: Mask, *, context: float = CONTEXT, smallest: int = SMALLEST_WINDOW) -> Window:
    """Return the square around a mask.

    Parameters
    ----------
    mask
        bool[H, W].
    context
        Room on each side, as a share of the longer side of the mask's box.
    smallest
        Least side in pixels; a window never exceeds the longer side of the image otherwise than to hold the mask.

    Returns
    -------
    A window that is moved inside the image as far as it fits, so that as little as possible of it is empty.
    """
    top, left, height, width = mask_box(mask)
    longest = max(mask.shape)
    side = min(max(smallest, round(max(height, width) * (1 + 2 * context))), longest)
    return Window(_place(top, height, side, mask.shape[0]), _place(left, width, side, mask.shape[1]), side)


def _place(start: int, length: int, side: int, available: int) -> int:
    centred = start + (length - side) // 2
    if side >= available:  # the image is narrower than the window: centre the image in it
        return (available - side) // 2
    return min(max(centred, 0), available - side)


def cut(pixels: npt.NDArray[np.generic], window: Window) -> npt.NDArray[np.generic]:
    """Return the window of an array [H, W, ...]; pixels outside the image are zero."""
    canvas = np.zeros((window.side, window.side, *pixels.shape[2:]), pixels.dtype)
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.top + window.side, pixels.shape[0]), min(window.left + window.side, pixels.shape[1])
    canvas[top - window.top : bottom - window.top, left - window.left : right - window.left] = pixels[
        top:bottom, left:right
    ]
    return canvas


def inner_edge(mask: Mask) -> Mask:
    """Return the pixels of a mask bool[H, W] that touch its outside or the border of the array (four neighbours)."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def draw_mask(
    image: Pixels,
    mask: Mask,
    *,
    side: int = 192,
    edge: str = YELLOW,
    context: float = CONTEXT,
    smallest: int = SMALLEST_WINDOW,
) -> Pixels:
    """Draw a mask on a crop of its image.

    Parameters
    ----------
    image
        uint8[H, W, 3], RGB.
    mask
        bool[H, W].
    side
        Side of the picture in pixels.
    edge
        Colour of the one-pixel edge, as #RRGGBB.
    context, smallest
        See `crop_window`.

    Returns
    -------
    uint8[side, side, 3]: very dark crops brightened, the background dimmed, a one-pixel edge around the mask.

    Raises
    ------
    ValueError
        If image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the image has {image.shape[:2]} pixels, the mask {mask.shape}")
    window = crop_window(mask, context=context, smallest=smallest)
    scene = brighten(_resize(cut(image, window), side))
    shape = _resize(cut(mask, window).astype(np.uint8) * 255, side) >= 128
    return outline(dim(scene, shape), shape, edge)


def brighten(image: Pixels) -> Pixels:
    """Return a very dark image brighter, its hues unchanged; any other image as it is."""
    bright = float(np.percentile(image.max(axis=2), 99))
    gain = min(DARK / max(bright, 1.0), MOST_GAIN)
    return image if gain <= 1 else np.minimum(np.rint(image * gain), 255).astype(np.uint8)


def dim(image: Pixels, mask: Mask) -> Pixels:
    """Return the image with everything outside the mask darker and less colourful."""
    # Weights of ITU-R BT.601: how bright an eye finds red, green and blue.
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    background = DIMMED * (FADED * grey + (1 - FADED) * image)
    return np.where(mask[..., None], image, np.rint(background)).astype(np.uint8)


def outline(image: Pixels, mask: Mask, colour: str) -> Pixels:
    """Return the image with a one-pixel edge along the inside of the mask."""
    drawn = image.copy()
    drawn[inner_edge(mask)] = rgb(colour)
    return drawn


def rgb(colour: str) -> tuple[int, int, int]:
    """Return (red, green, blue), 0 to 255, of a colour written as #RRGGBB."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _resize(pixels: npt.NDArray[np.generic], side: int) -> Pixels:
    # Bicubic up, area average down: neither invents stairs on enlarged pixels nor drops thin parts of big masks.
    way = Image.Resampling.BICUBIC if pixels.shape[0] <= side else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize((side, side), way), np.uint8)
