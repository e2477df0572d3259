"""Do score and predicted IoU mean what they say? Drawn against the truth, or against the answers of audits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from scipy.special import betaincinv

from segloop.annotation.answers import REPLIES, YES, read_answers
from segloop.annotation.oracle import Matching, good, read_truth_match
from segloop.errors import SegloopError
from segloop.reporting.numbers import write_csv
from segloop.reporting.style import BLUE, GREY, INK, ORANGE, new_figure, save, say_missing, style
from segloop.store.index import Index, read_index

BINS: Final = 10
CONFIDENCE: Final = 0.95
UNIFORM_PURPOSES: Final = ("audit", "calibrate")
"""Answers drawn at random; those that decided were drawn because of what they were about."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Masks of like score: how many, their mean score, how many of them are good, and the share with its interval."""

    count: int
    mean: float
    good: int
    iou: float | None

    @property
    def share(self) -> float:
        """Share of good masks."""
        return self.good / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson's interval of the share."""
        tail = (1 - CONFIDENCE) / 2
        low = float(betaincinv(self.good, self.count - self.good + 1, tail)) if self.good else 0.0
        high = float(betaincinv(self.good + 1, self.count - self.good, 1 - tail)) if self.good < self.count else 1.0
        return low, high


def plot_calibration(
    *,
    index: Path,
    answers: Path,
    truth_match: Path | None,
    t_iou: float,
    matching: Matching,
    svg: Path,
    png: Path,
    table: Path,
) -> None:
    """Draw the share of good masks against the score and, where the detector predicts it, the predicted IoU.

    Parameters
    ----------
    index, answers
        Of the iteration.
    truth_match
        None where the truth of the pool is not known: then answers of audits and calibrations stand for it.
    t_iou, matching
        A mask is good above this IoU; whether a truth serves several masks.
    svg, png, table
        The figure, and CSV of its numbers: number, bin, masks, mean, good, share, low, high, mean_iou.

    Raises
    ------
    SegloopError
        If an input is missing or damaged.
    """
    rows = read_index(index)
    place, is_good, iou = _known(rows, index, answers, truth_match, matching)
    panels = {"score": rows.score.astype(np.float64)[place]}
    if rows.predicted_iou is not None:
        panels["predicted IoU"] = rows.predicted_iou.astype(np.float64)[place]
    source = "truth" if truth_match is not None else "answers of audits"
    with style():
        figure = new_figure(5.2 * len(panels) + 0.6, 4.8)
        each = figure.subplots(1, len(panels), squeeze=False)[0]
        found = {name: binned(values, is_good, iou) for name, values in panels.items()}
        for axes, (name, bins) in zip(each, found.items(), strict=True):
            _panel(axes, name, bins, source, t_iou)
        save(figure, svg, png)
    head = ("number", "bin", "masks", "mean", "good", "share", "low", "high", "mean_iou")
    write_csv(table, head, [row for name, bins in found.items() for row in _lines(name, bins)])


def _known(
    rows: Index, index: Path, answers: Path, truth_match: Path | None, matching: Matching
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Floats | None]:
    """Return the rows whose truth is known, whether each is good, and its IoU where that is known."""
    if truth_match is not None:
        match = read_truth_match(truth_match)
        if not np.array_equal(match.prediction, rows.prediction):
            raise SegloopError(f"{index} and {truth_match} hold different predictions. Run match_truth again.")
        new = np.flatnonzero(rows.duplicate_of == 0)
        return new, good(match, match.t_iou, matching)[new], match.iou[new].astype(np.float64)
    table = read_answers(answers)
    about = table.column("prediction").to_numpy().astype(np.uint64)
    place = np.minimum(np.searchsorted(rows.prediction, about), max(len(rows) - 1, 0))
    columns = zip(table.column("purpose").to_pylist(), table.column("mask_key").to_pylist(), strict=True)
    fresh = [
        len(rows) > 0 and purpose in UNIFORM_PURPOSES and rows.mask_key[row].tobytes() == key
        for (purpose, key), row in zip(columns, place.tolist(), strict=True)
    ]
    kept = np.array(fresh, np.bool_)
    said_yes = np.array([reply == REPLIES[YES] for reply in table.column("reply").to_pylist()], np.bool_)
    return place[kept].astype(np.int64), said_yes[kept], None


def binned(values: Floats, is_good: npt.NDArray[np.bool_], iou: Floats | None) -> list[Bin]:
    """Return equal ranges of 0..1 that hold any mask."""
    number = np.clip((values * BINS).astype(np.int64), 0, BINS - 1)
    found = []
    for one in range(BINS):
        here = number == one
        if here.any():
            mean_iou = None if iou is None else float(iou[here].mean())
            found.append(Bin(int(here.sum()), float(values[here].mean()), int(is_good[here].sum()), mean_iou))
    return found


def _panel(axes: Axes, name: str, bins: list[Bin], source: str, t_iou: float) -> None:
    axes.set_title(f"What a {name} means")
    if not bins:
        say_missing(axes, "Neither truth nor answers of an audit\nare known of this iteration.")
        return
    means, shares = [one.mean for one in bins], [one.share for one in bins]
    ranges = np.array([one.interval for one in bins])
    errors = np.stack([np.array(shares) - ranges[:, 0], ranges[:, 1] - np.array(shares)])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="as it says")
    axes.errorbar(means, shares, errors, color=BLUE, marker="o", capsize=3, label=f"IoU above {t_iou:g} ({source})")
    known = [(one.mean, one.iou) for one in bins if one.iou is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=ORANGE, linestyle=":", marker="s", label="mean true IoU")
    for one in bins:
        axes.annotate(f"{one.count:,}", (one.mean, 0), (0, 3), textcoords="offset points", ha="center", fontsize=7.5,
                      color=INK, rotation=90 if len(bins) > 6 else 0)  # fmt: skip
    axes.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel=f"{name} (number of masks at the foot)", ylabel="share of masks, or IoU"
    )
    axes.legend(loc="best")


def _lines(name: str, bins: Sequence[Bin]) -> list[Sequence[object]]:
    return [
        (name, number, one.count, one.mean, one.good, one.share, *one.interval, one.iou)
        for number, one in enumerate(bins, start=1)
    ]
