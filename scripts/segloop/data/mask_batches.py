"""Many compressed masks at a time: checked as `masks.check` does, with areas and boxes, and without pycocotools.

The strings of some hundred masks are laid end to end and every step is one operation on arrays: characters become
numbers, numbers become runs (a number from the fourth on is the difference to the run two before), runs become places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segloop.data.masks import MAX_PIXELS

Ints = npt.NDArray[np.int64]
# Masks of one step: few enough that its arrays stay in a processor's cache.
_STEP = 256
# Seven groups of five bits hold more than any size that passes.
_MAX_GROUPS = 7
_NO_PROBLEM, _SIZE, _CHARACTER, _CUT, _LONG, _NEGATIVE, _UNEQUAL = range(7)
_REASONS = {
    _SIZE: "has size {height} x {width}; two positive whole numbers, of at most {limit} pixels, are needed",
    _CHARACTER: "has counts with characters outside the RLE alphabet",
    _CUT: "has counts that end in the middle of a number",
    _LONG: "has a number of more than seven groups in its counts",
    _NEGATIVE: "has a negative run",
    _UNEQUAL: "has runs that sum to {total}, its size is {height} x {width} = {pixels} pixels",
}


@dataclass(frozen=True)
class MaskColumns:
    """What is known of n masks.

    Attributes
    ----------
    area
        Pixels, int64 of shape (n,); 0 where there is a problem.
    box
        x, y, width, height in pixels, int64 of shape (n, 4); zeros where the mask is empty or has a problem.
    problems
        By place, what is wrong with a mask.
    """

    area: Ints
    box: Ints
    problems: dict[int, str]


def check_batch(counts: Sequence[bytes], sizes: npt.ArrayLike) -> MaskColumns:
    """Validate compressed run lengths, and return areas and boxes.

    Parameters
    ----------
    counts
        The strings of n masks.
    sizes
        Heights and widths in pixels, shape (n, 2).
    """
    size = np.asarray(sizes, np.int64).reshape(-1, 2)
    if len(size) != len(counts):
        raise ValueError(f"{len(counts)} masks have {len(size)} sizes")
    area, box = np.zeros(len(counts), np.int64), np.zeros((len(counts), 4), np.int64)
    problems: dict[int, str] = {}
    for first in range(0, len(counts), _STEP):
        last = first + _STEP
        areas, boxes, problem, total = _step(counts[first:last], size[first:last])
        good = problem == _NO_PROBLEM
        area[first:last][good], box[first:last][good] = areas[good], boxes[good]
        for place in np.flatnonzero(~good).tolist():
            height, width = size[first + place].tolist()
            known = {"height": height, "width": width, "pixels": height * width, "total": total[place]}
            problems[first + place] = _REASONS[int(problem[place])].format(limit=MAX_PIXELS, **known)
    return MaskColumns(area, box, problems)


def _step(counts: Sequence[bytes], size: Ints) -> tuple[Ints, Ints, npt.NDArray[np.int8], Ints]:
    """Return area, box, problem and sum of the runs of each of some masks."""
    height, width = size.T
    problem = np.zeros(len(counts), np.int8)
    # Each side by itself first, so that the product cannot leave 64 bits.
    problem[(size < 1).any(axis=1) | (size > MAX_PIXELS).any(axis=1)] = _SIZE
    problem[(problem == 0) & (np.where(problem == 0, height, 0) * width > MAX_PIXELS)] = _SIZE
    # A character stands in where there is none, which makes one run of no pixel.
    strings = [string or b"0" for string in counts]
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    values, first = _numbers(np.frombuffer(b"".join(strings), np.uint8), lengths, problem)
    runs, rows = _runs(values, first)
    # A row holds a run of zeros and the run of ones after it.
    sums = runs.sum(axis=1)
    total = np.add.reduceat(sums, rows)
    _mark(problem, np.minimum.reduceat(runs.min(axis=1), rows) < 0, _NEGATIVE)
    _mark(problem, total != np.where(problem == _SIZE, 0, height) * width, _UNEQUAL)
    return np.add.reduceat(runs[:, 1], rows), _boxes(runs, sums, rows, np.maximum(height, 1)), problem, total


def _mark(problem: npt.NDArray[np.int8], found: npt.NDArray[np.bool_], reason: int) -> None:
    """Write down a problem of masks that have none yet."""
    problem[found & (problem == _NO_PROBLEM)] = reason


def _numbers(raw: npt.NDArray[np.uint8], lengths: Ints, problem: npt.NDArray[np.int8]) -> tuple[Ints, Ints]:
    """Return the numbers of all strings, and of each string the place of its first number."""
    starts = np.cumsum(lengths) - lengths
    groups = raw - np.uint8(48)
    if groups.max() > 63:
        _mark(problem, np.maximum.reduceat(groups, starts) > 63, _CHARACTER)
    final = (groups & 0x20) == 0
    # A string that ends in the middle of a number must not run on into the next one.
    ends_of_strings = starts + lengths - 1
    _mark(problem, ~final[ends_of_strings], _CUT)
    final[ends_of_strings] = True
    ends = np.flatnonzero(final)
    begins = np.concatenate(([0], ends[:-1] + 1))
    first = np.searchsorted(ends, starts)
    size = ends - begins + 1
    longest = int(size.max())
    if longest > _MAX_GROUPS:
        _mark(problem, np.maximum.reduceat(size, first) > _MAX_GROUPS, _LONG)
        size = np.minimum(size, _MAX_GROUPS)
    values = (groups[begins] & 0x1F).astype(np.int64)
    for place in range(1, min(longest, _MAX_GROUPS)):
        longer = np.flatnonzero(size > place)
        values[longer] |= (groups[begins[longer] + place] & 0x1F).astype(np.int64) << (5 * place)
    # The sign bit is the highest of the last group.
    negative = np.flatnonzero(groups[begins + size - 1] & 0x10)
    values[negative] -= np.int64(1) << (5 * size[negative])
    return values, first


def _runs(values: Ints, first: Ints) -> tuple[Ints, Ints]:
    """Return runs of zeros and ones, shape (rows, 2), and of each mask the place of its first row.

    From the fourth number on each is a difference to the one two before: in rows, a running sum down each column, but
    for the first run of zeros, which stands alone.
    """
    count = np.diff(first, append=len(values))
    row_count = (count + 1) // 2
    rows = np.cumsum(row_count) - row_count
    laid = np.zeros((int(row_count.sum()), 2), np.int64)
    laid.reshape(-1)[np.arange(len(values)) + np.repeat(2 * rows - first, count)] = values
    alone = laid[rows, 0]
    laid[rows, 0] = 0
    runs = np.cumsum(laid, axis=0)
    runs -= np.repeat(runs[rows] - laid[rows], row_count, axis=0)
    runs[rows, 0] = alone
    # With an odd number of runs the last row has no ones.
    odd = count % 2 == 1
    runs[(rows + row_count - 1)[odd], 1] = 0
    return runs, rows


def _boxes(runs: Ints, sums: Ints, rows: Ints, height: Ints) -> Ints:
    """Return the box of each mask: x, y, width, height."""
    ones = runs[:, 1]
    row_count = np.diff(rows, append=len(runs))
    ends = np.cumsum(sums)
    ends -= np.repeat(ends[rows] - sums[rows], row_count)
    starts = ends - ones
    some = ones > 0
    none = ~np.logical_or.reduceat(some, rows)
    far = np.iinfo(np.int64).max
    left = np.minimum.reduceat(np.where(some, starts, far), rows) // height
    right = (np.maximum.reduceat(np.where(some, ends, 0), rows) - 1) // height
    # Runs that go on into another column reach from the first row of the image to its last.
    high = np.repeat(height, row_count)
    top = starts % high
    bottom = top + ones
    wraps = bottom > high
    top[wraps] = 0
    bottom[wraps] = high[wraps]
    up = np.minimum.reduceat(np.where(some, top, far), rows)
    down = np.maximum.reduceat(np.where(some, bottom, 0), rows)
    box = np.stack((left, up, right - left + 1, down - up), axis=1)
    box[none] = 0
    return box
