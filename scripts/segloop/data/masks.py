"""Masks as COCO run lengths (RLE): checked on entry, the same from end to end.

Pixels run down the columns; runs alternate between zeros and ones and begin with zeros. In the compressed form each run
(from the fourth on: its difference to the run two before) is written in groups of five bits, low group first, as
characters 48..111. pycocotools' C code trusts what it is given, so nothing unchecked may reach it: `check` is the gate.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segloop.errors import SegloopError


class Rle(TypedDict):
    """A checked mask: `size` is [height, width] in pixels, `counts` the compressed run lengths."""

    size: list[int]
    counts: bytes


class MaskError(SegloopError):
    """A mask that cannot be used; the message says what is wrong with it."""


def encode(mask: npt.NDArray[np.bool_]) -> Rle:
    """Return the run lengths of a mask of shape (height, width)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # Most masks are small: their own part of a large image is gone through several times faster than all of it.
    if len(rows) and (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0]) * 2 < mask.size:
        return _encode_part(mask, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"]}


def _encode_part(mask: npt.NDArray[np.bool_], rows: slice, columns: slice) -> Rle:
    """Return the run lengths of a mask that is 0 outside some rows and columns."""
    height, width = mask.shape
    part = mask[rows, columns]
    # A column after the other, each with a 0 at its end, so that no run leaves its column.
    lines = np.zeros((part.shape[1], part.shape[0] + 1), bool)
    lines[:, :-1] = part.T
    flat = lines.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], edges)) if flat[0] else edges
    place = (edges // lines.shape[1] + columns.start) * height + edges % lines.shape[1] + rows.start
    starts, ends = place[::2], place[1::2]
    # Runs down to the last row go on in the next column.
    apart = ends[:-1] != starts[1:]
    starts, ends = starts[np.concatenate(([True], apart))], ends[np.concatenate((apart, [True]))]
    return _from_intervals(starts, ends, height, width)


def decode(rle: Rle) -> npt.NDArray[np.bool_]:
    """Return the mask of shape (height, width)."""
    # Done here, because pycocotools 2.0.11 decodes in a way that NumPy 2 has deprecated.
    height, width = rle["size"]
    runs = _parse(rle["counts"])
    colours = np.arange(len(runs)) % 2 == 1
    return np.repeat(colours, runs).reshape(width, height).T


def check(segmentation: Any, size: tuple[int, int] | None = None) -> Rle:
    """Validate run lengths from outside and return them compressed in canonical form.

    Parameters
    ----------
    segmentation
        A mapping with `size` [height, width] and `counts`: a list of runs (uncompressed), text or bytes (compressed).
    size
        The height and width of the image, which the mask's must equal.

    Raises
    ------
    MaskError
        If anything is missing or of another type, if the size is not the image's, or if the runs are negative or do
        not sum to height times width.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise MaskError("is no run-length mask: it needs size and counts")
    height, width = _checked_size(segmentation["size"])
    if size is not None and (height, width) != size:
        hint = "; height and width are swapped" if (width, height) == size else ""
        raise MaskError(f"has size {height} x {width}, the image has {size[0]} x {size[1]}{hint}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        runs = _checked_runs(counts)
    elif isinstance(counts, str | bytes):
        runs = _parse(counts)
    else:
        raise MaskError(f"has counts of type {type(counts).__name__}; text or a list is needed")
    if len(runs) and int(runs.min()) < 0:
        raise MaskError("has a negative run")
    total = int(runs.sum())
    if total != height * width:
        raise MaskError(f"has runs that sum to {total}, its size is {height} x {width} = {height * width} pixels")
    canonical = coco_mask.frPyObjects({"size": [height, width], "counts": _canonical(runs).tolist()}, height, width)
    return {"size": [height, width], "counts": canonical["counts"]}


# Beyond this number of pixels a size is a mistake or an attack: 2^30 pixels decode to a gigabyte.
MAX_PIXELS = 1 << 30


def _checked_size(size: Any) -> tuple[int, int]:
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise MaskError(f"has size {size!r}; [height, width] is needed")
    for side in size:
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
            raise MaskError(f"has size {list(size)!r}; two positive whole numbers are needed")
    height, width = int(size[0]), int(size[1])
    if height * width > MAX_PIXELS:
        raise MaskError(f"has size {height} x {width}, more than {MAX_PIXELS} pixels")
    return height, width


def _checked_runs(counts: list[Any]) -> npt.NDArray[np.int64]:
    if set(map(type, counts)) == {int} and all(-MAX_PIXELS <= run <= MAX_PIXELS for run in (min(counts), max(counts))):
        return np.array(counts, dtype=np.int64)
    for run in counts:
        if isinstance(run, bool) or not isinstance(run, int | np.integer) or not -MAX_PIXELS <= run <= MAX_PIXELS:
            raise MaskError(f"has a run {run!r}; whole numbers of pixels are needed")
    return np.asarray(counts, dtype=np.int64)


def _parse(counts: str | bytes) -> npt.NDArray[np.int64]:
    """Return the runs of compressed counts."""
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        raise MaskError("has counts with characters outside ASCII") from None
    groups = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if len(groups) == 0:
        return np.zeros(0, np.int64)
    if groups.min() < 0 or groups.max() > 63:
        raise MaskError("has counts with characters outside the RLE alphabet")
    last = (groups & 0x20) == 0
    if not last[-1]:
        raise MaskError("has counts that end in the middle of a number")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    # Seven groups hold 35 bits, more than any size that passes; longer numbers are mistakes.
    if place.max() > 6:
        raise MaskError("has a number of more than seven groups in its counts")
    values = np.add.reduceat((groups & 0x1F) << (5 * place), starts)
    negative = (groups[ends] & 0x10) != 0
    values -= np.where(negative, np.int64(1) << (5 * (place[ends] + 1)), 0)
    return _undo_differences(values)


def _undo_differences(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    # Runs 0, 1 and 2 stand as they are; from 3 on a number is the difference to the run two before. So the odd runs
    # are a running sum from run 1, the even ones from run 2.
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs


def _canonical(runs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Join runs of one colour that a zero run separates, and drop empty runs at the end."""
    if len(runs) < 2 or runs[1:].min() > 0:
        return runs
    colour = np.arange(len(runs)) % 2
    kept = runs > 0
    runs, colour = runs[kept], colour[kept]
    starts = np.flatnonzero(np.concatenate(([True], colour[1:] != colour[:-1])))
    joined = np.add.reduceat(runs, starts)
    return np.concatenate(([0], joined)) if colour[0] == 1 else joined


def from_polygons(polygons: Any, height: int, width: int) -> Rle:
    """Return the mask of COCO polygons, whose parts are united.

    Parameters
    ----------
    polygons
        A list of parts, each a flat list x0, y0, x1, y1, ... of at least three points, in pixels.

    Raises
    ------
    MaskError
        If `check_polygons` refuses them.
    """
    checked = check_polygons(polygons, height, width)
    parts = coco_mask.frPyObjects([part.tolist() for part in checked], int(height), int(width))
    merged = coco_mask.merge(parts)
    return {"size": [int(height), int(width)], "counts": merged["counts"]}


def check_polygons(polygons: Any, height: int, width: int) -> list[npt.NDArray[np.float64]]:
    """Validate COCO polygons without rasterising them; return the coordinates of each part.

    Raises
    ------
    MaskError
        If a part has fewer than six numbers, an odd number of them, one that is no finite number near the image, or
        an outline of absurd length; or if the image has no pixel or too many.
    """
    height, width = _checked_size([height, width])
    if not isinstance(polygons, list) or not polygons:
        raise MaskError("has no polygon")
    return [_checked_part(part, number, limit=_FAR * (height + width)) for number, part in enumerate(polygons)]


# The rasteriser walks along every edge, so that coordinates far outside the image cost time and memory for nothing.
_FAR = 10


# It holds some 40 bytes for each pixel of the outline, and does not notice when memory ends.
_MAX_OUTLINE = 4_000_000


def _checked_part(part: Any, number: int, limit: float) -> npt.NDArray[np.float64]:
    if not isinstance(part, list) or len(part) < 6:
        raise MaskError(f"has a polygon (part {number}) of fewer than three points")
    if len(part) % 2:
        raise MaskError(f"has a polygon (part {number}) with an odd number of coordinates")
    try:
        values = np.array(part, dtype=np.float64) if set(map(type, part)) <= {int, float} else None
    except OverflowError:
        values = None
    # Written so that NaN fails, too.
    if values is None or not np.abs(values).max() <= limit:
        wrong = next(value for value in part if type(value) not in (int, float) or not abs(value) <= limit)
        raise MaskError(f"has a polygon (part {number}) with the coordinate {wrong!r}")
    # No edge of few and near points can make an outline that is too long.
    if len(part) * limit > _MAX_OUTLINE:
        points = values.reshape(-1, 2)
        outline = float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
        if outline > _MAX_OUTLINE:
            raise MaskError(f"has a polygon (part {number}) whose outline is {outline:.0f} pixels long")
    return values


def from_label_map(labels: npt.NDArray[np.integer[Any]]) -> dict[int, Rle]:
    """Return the mask of each label other than 0, in one pass over the pixels.

    Parameters
    ----------
    labels
        Whole numbers of shape (height, width).

    Returns
    -------
    Masks by label, in ascending order.
    """
    height, width = labels.shape
    flat = labels.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1)) if len(flat) else np.zeros(0, np.int64)
    ends = np.concatenate((starts[1:], [len(flat)]))
    label = flat[starts]
    order = np.argsort(label, kind="stable")
    found, first = np.unique(label[order], return_index=True)
    last = np.concatenate((first[1:], [len(order)]))
    return {
        int(one): _from_intervals(starts[order[a:b]], ends[order[a:b]], height, width)
        for one, a, b in zip(found, first, last, strict=True)
        if one != 0
    }


def _from_intervals(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], height: int, width: int) -> Rle:
    """Return the mask of pixels from each start up to each end, in column order."""
    borders = np.stack((starts, ends), axis=1).ravel()
    runs = np.diff(borders, prepend=0, append=height * width)
    runs = runs[:-1] if runs[-1] == 0 else runs
    made = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return {"size": [height, width], "counts": made["counts"]}


def area(rles: Sequence[Rle]) -> npt.NDArray[np.int64]:
    """Return the areas in pixels, int64 of shape (n,)."""
    # pycocotools 2.0.11 counts the masks of a call in eight bits and fails beyond 255 of them with NumPy 2.
    parts = [coco_mask.area(list(rles[first : first + 255])) for first in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def boxes(rles: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """Return the boxes (x, y, width, height) in pixels, float64 of shape (n, 4)."""
    if not rles:
        return np.zeros((0, 4))
    return np.asarray(coco_mask.toBbox(list(rles)), dtype=np.float64)


def iou(a: Sequence[Rle], b: Sequence[Rle], crowd: Sequence[bool] | None = None) -> npt.NDArray[np.float64]:
    """Return the intersection over union of each pair, float64 of shape (len(a), len(b)).

    Parameters
    ----------
    crowd
        For each of `b`: whether it is a crowd, whose union is the area of `a` alone (COCO's rule).
    """
    if not a or not b:
        return np.zeros((len(a), len(b)))
    flags = [int(flag) for flag in crowd] if crowd is not None else [0] * len(b)
    return np.asarray(coco_mask.iou(list(a), list(b), flags), dtype=np.float64)


def union(rles: Sequence[Rle]) -> Rle:
    """Return the union of masks of one size."""
    if not rles:
        raise MaskError("the union of no masks has no size")
    if any(list(rle["size"]) != list(rles[0]["size"]) for rle in rles):
        raise MaskError("masks of different sizes have no union")
    merged = coco_mask.merge(list(rles))
    return {"size": list(rles[0]["size"]), "counts": merged["counts"]}


def to_json(rle: Rle) -> dict[str, Any]:
    """Return the mask as JSON holds it: counts as text."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def from_json(value: dict[str, Any]) -> Rle:
    """Return a mask that segloop itself wrote; masks from elsewhere go through `check`."""
    return {"size": value["size"], "counts": value["counts"].encode("ascii")}
