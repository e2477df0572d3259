"""Outlines of masks as polygons, exact to the pixel.

An outline runs along the cracks between pixels, a quarter of a pixel inside the mask. So readers that cut coordinates
to whole pixels and fill with the border (OpenCV's `fillPoly`, as ultralytics uses it) and those that ask which pixel
centres lie inside (COCO) get the same mask back. Pixels that touch at a corner alone are two parts.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]
"""Corners (x, y) in pixels, float64 of shape (n, 2); the last one is joined to the first."""

INSET: Final = 0.25
MAX_RINGS: Final = 1000
"""A mask of more rings is noise; its smallest ones are left out."""


@dataclass(frozen=True)
class Part:
    """A connected part of a mask: its outer ring, the rings of its holes, and its area in pixels."""

    outer: Ring
    holes: list[Ring]
    area: int


def parts_of(mask: Mask) -> list[Part]:
    """Return the outlines of a mask, the largest part first.

    Parameters
    ----------
    mask
        Boolean of shape (height, width); pixels are connected by their sides.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    corner = np.array([left, top], np.float64)
    crop = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    labels, count = ndimage.label(crop)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for ring, is_outer in _rings(crop):
        x, y = ring[0]
        label = int(labels[int(y), int(x)])
        if is_outer:
            outer[label] = ring + corner
        else:
            holes.setdefault(label, []).append(ring + corner)
    found = [Part(ring, holes.get(label, []), int(areas[label])) for label, ring in outer.items()]
    return sorted(found, key=lambda part: -part.area)


def joined(rings: list[Ring]) -> Ring:
    """Return one ring that runs along all of them, joined by bridges there and back between their closest corners."""
    whole = rings[0]
    for ring in rings[1:MAX_RINGS]:
        distance = ((whole[:, None, :] - ring[None, :, :]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(distance.argmin()), distance.shape)
        whole = np.concatenate([whole[: here + 1], ring[there:], ring[: there + 1], whole[here:]])
    return whole


def filled(ring: Ring, height: int, width: int) -> Mask:
    """Return the mask that a reader draws from a ring: coordinates cut to whole pixels, the border filled as well."""
    canvas = Image.new("1", (width, height))
    points = np.floor(ring).astype(int)
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in points], fill=1, outline=1)
    return np.array(canvas, dtype=bool)


# The pixel that a corner belongs to, as the place of it in (NW, NE, SW, SE): which way its edges run from the corner.
_LEFTWARD, _UPWARD = np.array([True, False, True, False]), np.array([True, True, False, False])


def _rings(mask: Mask) -> list[tuple[Ring, bool]]:
    """Return each ring, beginning at its topmost corner, and whether it is an outer one."""
    y, x, pixel, convex = _corners(mask)
    leftward, upward = _LEFTWARD[pixel], _UPWARD[pixel]
    # Along a line of cracks edges begin and end in turns; where two meet, the one that ends there comes first.
    beside = _partners(np.lexsort((~leftward, x, y)))
    above = _partners(np.lexsort((~upward, y, x)))
    inward = np.where(convex, -1, 1) * INSET
    points: Ring = np.stack([x + np.where(leftward, inward, -inward), y + np.where(upward, inward, -inward)], axis=1)
    rings: list[tuple[Ring, bool]] = []
    seen = bytearray(len(x))
    for first in range(len(x)):
        if seen[first]:
            continue
        path, corner = [], first
        while not seen[corner]:
            other = beside[corner]
            seen[corner] = seen[other] = 1
            path += [corner, other]
            corner = above[other]
        rings.append((points[path], bool(convex[first])))
    return rings


def _corners(
    mask: Mask,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return row, column, pixel and whether convex of every corner, sorted by row and column.

    A corner is convex where one of the four pixels around it is set, and concave where one is missing; where two that
    face each other are set, it is two convex corners.
    """
    around = np.pad(mask, 1).view(np.uint8)
    four = (around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:])
    code = four[0] | four[1] << 1 | four[2] << 2 | four[3] << 3
    y, x = np.nonzero(_TURNS[code])
    set_here = (code[y, x][:, None] >> np.arange(4)) & 1
    count = set_here.sum(axis=1)
    place, pixel = np.nonzero(set_here == np.where(count == 3, 0, 1)[:, None])
    return y[place], x[place], pixel, count[place] != 3


# Of the 16 ways in which the four pixels around a corner can be set: where outlines turn.
_TURNS: Final = np.array([way.bit_count() in (1, 3) or way in (0b1001, 0b0110) for way in range(16)])


def _partners(order: npt.NDArray[np.int64]) -> list[int]:
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return [int(one) for one in partner]
