"""Accepted, rejected and borderline masks of each category side by side."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from segloop.annotation.verdicts import ACCEPTED, DUPLICATE, REJECTED, Verdicts, read_verdicts
from segloop.errors import SegloopError
from segloop.randomness import generator
from segloop.reporting.sheets import Sheet, Tile, draw_sheet
from segloop.reporting.shown import category_names, draw_shown, look_up
from segloop.store.index import read_index_columns

SIDE: Final = 104
EACH: Final = 4
"""Masks of a kind and category."""
MOST_CATEGORIES: Final = 12

Rows = npt.NDArray[np.int64]


def plot_category_gallery(
    *,
    index: Path,
    verdicts: Path,
    predictions: list[Path],
    shards: list[Path],
    seed_set: Path,
    png: Path,
    iteration: int,
    seed: int,
) -> None:
    """Draw a row a category: accepted and rejected masks at random, and those on the border between them.

    On the border are the accepted masks with the lowest scores and the rejected ones with the highest: where the
    verdict and the detector differ most.

    Parameters
    ----------
    index, verdicts
        Of the iteration.
    predictions, shards
        The iteration's prediction stores and the pool's Parquet files, each in shard order.
    seed_set
        The canonical seed set, for the names of categories.
    png
        The picture.

    Raises
    ------
    SegloopError
        If an input is missing or damaged, or index and verdicts hold different predictions.
    """
    judged = read_verdicts(verdicts)
    prediction, category, score = read_index_columns(index, "prediction", "category", "score")
    if not np.array_equal(prediction, judged.prediction):
        raise SegloopError(f"{verdicts} and {index} hold different predictions. Annotate this iteration again.")
    names = category_names(seed_set)
    rows = []
    for number in _largest(category, judged):
        own = np.flatnonzero((category == number) & (judged.reason != DUPLICATE))
        picked = _pick(own, judged, score, (seed, iteration, number))
        shown = look_up(judged.prediction[np.concatenate(picked)], predictions, shards)
        tiles = [Tile(draw_shown(mask, SIDE), (f"{mask.score:.2f}",)) for mask in shown]
        rows.append(_row(names.get(number, f"category {number}"), tiles, [len(part) for part in picked]))
    title = f"Iteration {iteration}: accepted, rejected and borderline masks by category"
    note = (
        f"Below each mask its score. {EACH} accepted and {EACH} rejected masks at random; then the accepted ones with "
        "the lowest and the rejected ones with the highest scores."
    )
    headings = [""] * (4 * EACH)
    for place, word in enumerate(("accepted", "rejected", "accepted, lowest score", "rejected, highest score")):
        headings[place * EACH] = word
    sheet = Sheet(title, (note,), rows, tuple(headings), message="No mask of this iteration was accepted or rejected.")
    draw_sheet(sheet, png, side=SIDE)


def _largest(category: npt.NDArray[np.int32], judged: Verdicts) -> list[int]:
    """Return the categories with most judged masks, largest first."""
    known = (judged.verdict != 0) & (judged.reason != DUPLICATE)
    numbers, counts = np.unique(category[known], return_counts=True)
    order = np.lexsort((numbers, -counts))[:MOST_CATEGORIES]
    return [int(number) for number in numbers[order]]


def _pick(own: Rows, judged: Verdicts, score: npt.NDArray[np.float32], key: tuple[int, ...]) -> list[Rows]:
    found = []
    for verdict in (ACCEPTED, REJECTED):
        rows = own[judged.verdict[own] == verdict]
        drawn = generator("category gallery", *key, verdict).choice(rows, min(EACH, len(rows)), replace=False)
        found.append(drawn.astype(np.int64))
    for verdict, sign in ((ACCEPTED, 1), (REJECTED, -1)):
        rows = own[judged.verdict[own] == verdict]
        found.append(rows[np.argsort(sign * score[rows], kind="stable")[:EACH]])
    return found


def _row(name: str, tiles: list[Tile], counts: list[int]) -> list[Tile]:
    """Return a row in which each kind begins at its own column."""
    row, start = [], 0
    for count in counts:
        part = tiles[start : start + count]
        row += [*part, *[Tile(None, ("",), empty=True)] * (EACH - count)]
        start += count
    first = row[0]
    return [replace(first, lines=(f"{name} {first.lines[0]}".strip(),)), *row[1:]]
