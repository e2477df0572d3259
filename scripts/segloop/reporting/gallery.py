"""Contact sheets of accepted, rejected and undecided masks of an iteration."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segloop.annotation.oracle import Matching, good, read_truth_match
from segloop.annotation.verdicts import ACCEPTED, DUPLICATE, REJECTED, UNDECIDED, WORDS, Verdicts, read_verdicts
from segloop.errors import SegloopError
from segloop.randomness import generator
from segloop.reporting.sheets import Sheet, Tile, draw_sheet
from segloop.reporting.shown import ShownMask, category_names, draw_shown, look_up

COLUMNS, SIDE = 6, 160


@dataclass(frozen=True)
class _Truth:
    """IoU with the truth of each shown prediction, whether it is good, and above which IoU it is."""

    iou: dict[int, float]
    good: dict[int, bool]
    t_iou: float


def plot_galleries(
    *,
    predictions: list[Path],
    verdicts: Path,
    shards: list[Path],
    seed_set: Path,
    truth_match: Path | None,
    matching: Matching,
    accepted: Path,
    rejected: Path,
    undecided: Path,
    iteration: int,
    masks: int,
    seed: int,
) -> None:
    """Draw one contact sheet a verdict, of masks drawn at random without the duplicates of earlier iterations.

    Parameters
    ----------
    predictions, shards
        The iteration's prediction stores and the pool's Parquet files, each in shard order.
    verdicts
        verdicts.parquet of the iteration.
    seed_set
        The canonical seed set, for the names of the categories.
    truth_match
        truth_match.parquet where the truth is known: each mask then shows its IoU, and masks whose verdict the truth
        contradicts are framed.
    matching
        Whether a truth serves several masks.
    accepted, rejected, undecided
        PNG files.
    masks
        Masks on a sheet.

    Raises
    ------
    SegloopError
        If an input is missing or damaged, or verdicts and truth hold different predictions.
    """
    judged = read_verdicts(verdicts)
    names = category_names(seed_set)
    for verdict, png in ((ACCEPTED, accepted), (REJECTED, rejected), (UNDECIDED, undecided)):
        candidates = np.flatnonzero((judged.verdict == verdict) & (judged.reason != DUPLICATE))
        chosen = _draw(candidates, masks, ("gallery", seed, iteration, WORDS[verdict]))
        shown = look_up(judged.prediction[chosen], predictions, shards)
        truth = _truth(truth_match, matching, judged, chosen, verdicts)
        sheet = _sheet(verdict, iteration, len(candidates), _sorted(shown), names, truth)
        draw_sheet(sheet, png, side=SIDE)


def _draw(rows: npt.NDArray[np.int64], count: int, key: tuple[str | int, ...]) -> npt.NDArray[np.int64]:
    return np.sort(generator(*key).choice(rows, min(count, len(rows)), replace=False)) if len(rows) else rows


def _truth(
    path: Path | None, matching: Matching, judged: Verdicts, chosen: npt.NDArray[np.int64], verdicts: Path
) -> _Truth | None:
    if path is None:
        return None
    match = read_truth_match(path)
    if not np.array_equal(match.prediction, judged.prediction):
        raise SegloopError(f"{verdicts} and {path} hold different predictions. Run match_truth again.")
    ids, is_good = judged.prediction[chosen].tolist(), good(match, match.t_iou, matching)[chosen]
    return _Truth(
        dict(zip(ids, match.iou[chosen].tolist(), strict=True)),
        dict(zip(ids, is_good.tolist(), strict=True)),
        match.t_iou,
    )


def _sorted(shown: list[ShownMask]) -> list[ShownMask]:
    return sorted(shown, key=lambda mask: (mask.category, -mask.score, mask.prediction))


def _sheet(
    verdict: int, iteration: int, total: int, shown: list[ShownMask], names: dict[int, str], truth: _Truth | None
) -> Sheet:
    word = WORDS[verdict]
    tiles = [_tile(mask, names, verdict, truth) for mask in shown]
    title = f"Iteration {iteration}: {word} masks"
    if not total:
        return Sheet(title, message=f"No mask of iteration {iteration} is {word}.")
    if not shown:
        return Sheet(title, message=f"{total:,} masks; none is shown, because report.gallery is 0.")
    drawn = f"{len(shown)} of {total:,}, drawn at random" if len(shown) < total else f"All {total:,}"
    note = f"{drawn}; sorted by category, then by score."
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return Sheet(title, (note, *_agreement(verdict, shown, truth)), rows)


def _tile(mask: ShownMask, names: dict[int, str], verdict: int, truth: _Truth | None) -> Tile:
    name = names.get(mask.category, f"category {mask.category}")
    score = f"score {mask.score:.2f}"
    if truth is None:
        return Tile(draw_shown(mask, SIDE), (name, score))
    iou = truth.iou[mask.prediction]
    wrong = verdict == (REJECTED if truth.good[mask.prediction] else ACCEPTED)
    return Tile(draw_shown(mask, SIDE), (name, score, f"{'✗ ' if wrong else ''}true IoU {iou:.2f}"), wrong)


def _agreement(verdict: int, shown: list[ShownMask], truth: _Truth | None) -> tuple[str, ...]:
    if truth is None:
        return ()
    count = sum(truth.good[mask.prediction] for mask in shown)
    share = f"{count} of these {len(shown)} are good: IoU with the truth of their category above {truth.t_iou:g}."
    return (share if verdict == UNDECIDED else f"{share} Framed and ✗: the truth contradicts the verdict.",)
