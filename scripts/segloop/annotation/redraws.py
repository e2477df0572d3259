"""The quality audit: a random sample of the accepted masks is redrawn, and their mean IoU is stated with its interval.

Two means are stated. The mean IoU of all accepted masks counts a mask where nobody finds an object with 0. The
segmentation quality (SQ; A. Kirillov et al., Panoptic Segmentation, CVPR 2019) is the mean over those alone whose IoU
with what was redrawn is above 1/2, that is over the masks that found an object: it says how well they are drawn.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import logsumexp

from segloop.annotation.edits import edited_rles, read_edited
from segloop.annotation.oracle import read_truth_match
from segloop.annotation.people import Record, check_spent, read_line, read_log
from segloop.annotation.verdicts import ACCEPTED, DUPLICATE, read_verdicts
from segloop.config import AnnotationConfig
from segloop.data import masks
from segloop.data.masks import MaskError, Rle
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.ids import unpack_prediction_ids
from segloop.randomness import generator
from segloop.store.index import Index, read_index
from segloop.store.predictions import PredictionShard

logger = logging.getLogger("segloop.annotation")

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

QUALITY_SCHEMA: Final = 1
CONFIDENCE: Final = 0.95
"""Of each interval by itself: they are measurements, and spend nothing of `annotation.audit.delta`."""
MATCHED: Final = 0.5
"""A mask with a larger IoU has found the object; of masks that do not overlap only one can."""

_BETS: Final = np.sin(np.pi / 2 * np.arange(1, 64) / 64) ** 2
"""Shares of the capital that are bet, close together near 0 and 1."""


def measure_quality(
    *,
    index: Path,
    predictions: list[Path],
    verdicts: Path,
    seed_set: Path,
    output: Path,
    sample: Path,
    annotation: AnnotationConfig,
    iteration: int,
    seed: int,
    truth_match: Path | None = None,
    recorded: Path | None = None,
    edited: Path | None = None,
) -> None:
    """Draw the masks that are to be redrawn, and compare them with what was redrawn.

    Parameters
    ----------
    index, predictions, verdicts
        Of the iteration.
    seed_set
        Canonical COCO file, for the names of categories.
    output
        quality.json: {"schema", "accepted", "sample", "redrawn", "confidence", "mean_iou", "interval", "matched", "sq",
        "sq_interval", "by_category": {name: the same}, "masks": [{"prediction", "category_id", "iou"}], "redraws":
        [{"prediction", "annotator", "seconds", "price"}]}. Means and intervals are null until all of the sample is
        redrawn: who leaves out hard masks would bias them. `redraws` holds everything that was drawn and is to be paid.
    sample
        quality_sample.json: what people are to redraw, in random order.
    truth_match
        The truth redraws in a simulation: with the mask of the same category that overlaps most.
    recorded
        People's redraws, see `read_redraws`; None while there are none.
    edited
        edited.json: what was mended is compared as it was drawn; None where nobody edits.

    Raises
    ------
    SegloopError
        If a file is missing or damaged, or a mask was drawn on an image of another size.
    """
    rows, judged = read_index(index), read_verdicts(verdicts)
    if not np.array_equal(judged.prediction, rows.prediction):
        raise SegloopError(f"{verdicts} and {index} hold different predictions. Annotate this iteration again.")
    accepted = np.flatnonzero((judged.verdict == ACCEPTED) & (judged.reason != DUPLICATE))
    drawn = draw_sample(accepted, annotation.audit.redraws, seed, iteration)
    names = {int(kind["id"]): str(kind["name"]) for kind in read_json(seed_set)["categories"]}
    write_json(sample, _wanted(rows, drawn, names, iteration))
    if truth_match is not None:
        found = _from_truth(rows, drawn, truth_match, annotation)
    else:
        found = _from_people(rows, drawn, predictions, recorded, annotation, edited)
    write_json(output, _quality(rows, accepted, drawn, found, names))


def draw_sample(accepted: Rows, count: int, seed: int, iteration: int) -> Rows:
    """Draw masks uniformly without replacement, in random order; a larger count adds to a smaller one's masks."""
    return generator("redraws", seed, iteration).permutation(accepted)[:count]


def _wanted(index: Index, drawn: Rows, names: Mapping[int, str], iteration: int) -> dict[str, Any]:
    """Return what a person needs to redraw a mask without being shown it."""
    records = [
        {
            # As text, because it exceeds the integers of JSON readers.
            "prediction": str(index.prediction[row]),
            "mask_key": index.mask_key[row].tobytes().hex(),
            "image_id": int(index.image_id[row]),
            "category_id": int(index.category[row]),
            "category": names.get(int(index.category[row])),
            "box": index.box[row].tolist(),
        }
        for row in drawn.tolist()
    ]
    return {"schema": QUALITY_SCHEMA, "iteration": iteration, "masks": records}


# --- what was redrawn -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Redrawn:
    """What came of the sample.

    Attributes
    ----------
    iou : float64 [n]
        Of each mask of the sample; NaN where it is not redrawn yet.
    redraws
        A record each, for the ledger.
    """

    iou: Floats
    redraws: list[dict[str, Any]]


def _from_truth(index: Index, drawn: Rows, path: Path, config: AnnotationConfig) -> _Redrawn:
    match = read_truth_match(path)
    if not np.array_equal(match.prediction, index.prediction):
        raise SegloopError(f"{path} holds other predictions than the index. Run match_truth again.")
    seconds = config.oracle.redraw_seconds
    redraws = [_spent(index.prediction[row], "oracle", seconds, None, config) for row in drawn.tolist()]
    return _Redrawn(match.iou[drawn].astype(np.float64), redraws)


def _spent(
    prediction: np.uint64 | int, annotator: str, seconds: float | None, price: float | None, config: AnnotationConfig
) -> dict[str, Any]:
    if price is None and seconds is not None:
        price = seconds / 3600 * config.hourly_wage
    return {"prediction": str(prediction), "annotator": annotator, "seconds": seconds, "price": price}


def _from_people(
    index: Index,
    drawn: Rows,
    predictions: list[Path],
    recorded: Path | None,
    config: AnnotationConfig,
    edited: Path | None,
) -> _Redrawn:
    """Return the IoU with what people drew; several people's IoUs with one mask are averaged."""
    records = [] if recorded is None else read_redraws(recorded)
    known = _rows_of({one["mask_key"] for one in records}, index)
    place = {index.mask_key[row].tobytes(): number for number, row in enumerate(drawn.tolist())}
    _warn(records, set(known), set(place))
    for one in records:
        if one["mask_key"] in known:
            one["prediction"] = int(index.prediction[known[one["mask_key"]]])
    redraws = [_spent(one["prediction"], one["annotator"], one["seconds"], one["price"], config) for one in records]
    # The last drawing of each annotator counts.
    latest = {(place[one["mask_key"]], one["annotator"]): one for one in records if one["mask_key"] in place}
    names = index.prediction[drawn].tolist()
    shown = edited_rles(_rles(index, drawn, predictions), names, read_edited(edited), "the predictions")
    ious: list[list[float]] = [[] for _ in range(len(drawn))]
    for (number, _), one in latest.items():
        ious[number].append(_iou(shown[number], one))
    return _Redrawn(np.array([np.mean(each) if each else np.nan for each in ious], np.float64), redraws)


def _rows_of(keys: set[bytes], index: Index) -> dict[bytes, int]:
    """Return the row of each key that the index has; of equal masks the first."""
    # The first eight bytes of all keys are compared at once, the rest of the few that agree.
    heads = np.array([np.frombuffer(key, np.uint64)[0] for key in keys], np.uint64)
    candidates = np.flatnonzero(np.isin(np.ascontiguousarray(index.mask_key[:, :8]).view(np.uint64)[:, 0], heads))
    found = {index.mask_key[row].tobytes(): row for row in candidates[::-1].tolist()}
    return {key: row for key, row in found.items() if key in keys}


def _warn(records: list[Record], known: set[bytes], wanted: set[bytes]) -> None:
    stale = sum(one["mask_key"] not in known for one in records)
    beside = sum(one["mask_key"] in known - wanted for one in records)
    if stale:
        logger.warning("%d of %d redraws are stale: no mask of this iteration has their key", stale, len(records))
    if beside:
        logger.warning("%d of %d redraws are of masks outside the sample; they do not count", beside, len(records))


def _rles(index: Index, drawn: Rows, predictions: list[Path]) -> list[Rle]:
    _, shard_of, row_of = unpack_prediction_ids(index.prediction[drawn])
    found: dict[int, Rle] = {}
    for shard in np.unique(shard_of).tolist():
        own = np.flatnonzero(shard_of == shard)
        rles = PredictionShard.open(predictions[shard]).rles(row_of[own])
        found |= dict(zip(own.tolist(), rles, strict=True))
    return [found[number] for number in range(len(drawn))]


def _iou(shown: Rle, redraw: Record) -> float:
    drawn = redraw["segmentation"]
    if drawn is None:
        return 0.0
    if drawn["size"] != shown["size"]:
        raise SegloopError(
            f"redraw {redraw['redraw_id']} has size {drawn['size']} (height, width), its image {shown['size']}. "
            "Draw it again on the image itself."
        )
    return float(masks.iou([shown], [drawn])[0, 0])


_REQUIRED: Final = ("redraw_id", "prediction", "mask_key", "annotator")


def read_redraws(path: Path) -> list[Record]:
    """Read what people drew, one JSON object a line; the file is left as it is.

    The keys are `redraw_id` (any text that is unique), `prediction`, `mask_key` (64 hexadecimal digits), `annotator`,
    `segmentation` (COCO RLE of the image's size, null where there is no object of the category), and, if known,
    `seconds`, `price`, `time`. A last line that was cut off is left aside; a record that stands there twice counts
    once.

    Raises
    ------
    SegloopError
        If a line is no valid record, or two have one id; the message names file and line.
    """
    return read_log(path, _redraw, "redraw_id")


def _redraw(line: bytes, where: str) -> Record:
    given = read_line(line, where, _REQUIRED)
    record = {name: given.get(name) for name in (*_REQUIRED, "segmentation", "seconds", "price", "time")}
    if "segmentation" not in given:
        raise SegloopError(f"{where} lacks segmentation: a mask, or null for no object. Mend or remove that line.")
    try:
        record["redraw_id"], record["annotator"] = str(given["redraw_id"]), str(given["annotator"])
        # Half a character cannot be written again.
        f"{record['redraw_id']}{record['annotator']}".encode()
        record["prediction"] = int(given["prediction"])
        key = bytes.fromhex(given["mask_key"])
        if len(key) != 32:
            raise ValueError("its mask_key has other than 64 digits")
        record["mask_key"] = key
        check_spent(record, where)
        if record["segmentation"] is not None:
            record["segmentation"] = masks.check(record["segmentation"])
    except (MaskError, ValueError, TypeError, OverflowError) as error:
        raise SegloopError(f"{where} is no redraw ({error}). Mend or remove that line.") from None
    return record


# --- what it shows ----------------------------------------------------------------------------------------------------


def _quality(index: Index, accepted: Rows, drawn: Rows, found: _Redrawn, names: Mapping[int, str]) -> dict[str, Any]:
    kinds = index.category[drawn]
    of_accepted = index.category[accepted]
    by_category = {
        names.get(kind, str(kind)): stated(found.iou[kinds == kind], int((of_accepted == kind).sum()))
        for kind in np.unique(kinds).tolist()
    }
    ious = [None if np.isnan(iou) else iou for iou in found.iou.tolist()]
    ids = index.prediction[drawn].tolist()
    return {
        "schema": QUALITY_SCHEMA,
        "accepted": len(accepted),
        "confidence": CONFIDENCE,
        **stated(found.iou, len(accepted)),
        "by_category": by_category,
        "masks": [
            {"prediction": str(name), "category_id": kind, "iou": iou}
            for name, kind, iou in zip(ids, kinds.tolist(), ious, strict=True)
        ],
        "redraws": found.redraws,
    }


def stated(iou: Floats, population: int) -> dict[str, Any]:
    """Return what the IoUs of a sample show of the accepted masks that it was drawn from.

    Parameters
    ----------
    iou : float64 [n]
        NaN where a mask was not redrawn; then there are counts only.
    population
        Masks that the sample was drawn from.
    """
    redrawn = int(np.count_nonzero(~np.isnan(iou)))
    found: dict[str, Any] = {"sample": len(iou), "redrawn": redrawn}
    found |= dict.fromkeys(("mean_iou", "interval", "matched", "sq", "sq_interval"))
    if redrawn < len(iou) or not redrawn:
        return found
    delta = 1 - CONFIDENCE
    found |= {"mean_iou": float(iou.mean()), "interval": list(mean_interval(iou, delta, population))}
    served = iou[iou > MATCHED]
    found["matched"] = len(served)
    if len(served):
        # How many of all accepted masks match is known only once all of them are redrawn.
        size = len(served) if len(iou) == population else None
        low, high = mean_interval((served - MATCHED) / (1 - MATCHED), delta, size)
        found |= {"sq": float(served.mean())}
        found["sq_interval"] = [MATCHED + (1 - MATCHED) * low, MATCHED + (1 - MATCHED) * high]
    return found


def mean_interval(values: npt.ArrayLike, delta: float, population: int | None = None) -> tuple[float, float]:
    """Return an interval that holds the mean of a population of numbers in 0..1 with probability 1 - delta or more.

    Nothing is assumed about their distribution, whatever the size of the sample. The usual interval, mean and Student's
    quantile, fails for a few masks that are mostly well drawn: one in thirty that lies beside its object pulls the mean
    down, and most samples do not have it. Hoeffding's inequality ignores how little IoUs vary, and the empirical
    Bernstein bound pays for learning it.

    Parameters
    ----------
    values : [n]
        Drawn uniformly, with or without replacement.
    delta
        Half of it for each side.
    population
        Size of the population, where the draw was without replacement; None: not known.

    Notes
    -----
    If the mean is mu, somebody who starts with 1 and bets the share b that the values are above mu ends with
    prod(1 - b + b x / mu), which is 1 on average, and less than that without replacement, where draws are negatively
    associated (K. Joag-Dev and F. Proschan, Annals of Statistics 11(1), 1983). So the mean over several b exceeds
    2 / delta with probability delta / 2 at most (Markov), and a mu for which it does is ruled out. The upper limit is
    the lower one of 1 - x. What was not drawn lies in 0..1, too, which decides once little is left.

    References
    ----------
    I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by betting, Journal of the Royal
    Statistical Society B 86(1), 2024.
    """
    x = np.asarray(values, np.float64)
    low, high = _mean_lower(x, delta / 2), 1 - _mean_lower(1 - x, delta / 2)
    if population is not None:
        low, high = max(low, x.sum() / population), min(high, (x.sum() + population - len(x)) / population)
    # The mean itself is never ruled out; this is about last bits.
    return min(low, float(x.mean())), max(high, float(x.mean()))


def _mean_lower(x: Floats, level: float) -> float:
    """Return the smallest mean that is not ruled out at a level: from there on the capital stays below 1 / level."""

    def excess(mean: float) -> float:
        capital = np.log1p(_BETS[:, None] * (x / mean - 1)).sum(axis=1)
        return float(logsumexp(capital) - np.log(len(_BETS)) + np.log(level))

    # The capital falls with the mean that is tried, and is at most 1 at that of the sample.
    top, bottom = float(x.mean()), 1e-9
    if top <= bottom or excess(bottom) <= 0:
        return 0.0
    return float(brentq(excess, bottom, top, xtol=1e-12))
