"""What clustering can be expected to do, measured before any question is asked.

A policy saves questions only as far as good and bad masks lie apart in the embedding. Where some truth is known, the
share of good masks among the nearest neighbours of a mask says how far they do; the shape of the tree says the rest.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import COUNTED_PURPOSES
from segloop.annotation.oracle import Matching, good, read_truth_match
from segloop.annotation.people import read_records
from segloop.clustering.distances import unit_rows
from segloop.clustering.embeddings import ShardSource, unit_or_zero
from segloop.clustering.near_duplicates import count_near_duplicates
from segloop.clustering.neighbours import Rows, Slabs, nearest
from segloop.clustering.numerics import numerical_threads
from segloop.clustering.partition import PARTS, stored_embeddings
from segloop.clustering.shape import summary_of_sizes, tree_shape
from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.randomness import generator
from segloop.store.index import read_index_attributes, read_index_columns
from segloop.store.partitions import Partitions
from segloop.store.predictions import PredictionShard

SCHEMA_VERSION: Final = 1

NEIGHBOURS: Final = 30
HELD: Final = 100_000
"""At most so many masks whose truth is known are held: 400 MB at 1024 dimensions."""
QUERIES: Final = 5000
"""At most so many of them are judged by their neighbours: the AUC is then known to about 0.01."""

_LARGEST = 20
"""Categories that are reported one by one."""
_FEWEST = 10
"""An AUC needs so many good and so many bad masks."""
_SHARES = 10
"""Bars of the table of good masks by the share of good neighbours."""
_BLOCK = 16_384
_QUERY_BLOCK = 512

Booleans = npt.NDArray[np.bool_]


def measure_separability(
    *,
    partitions: Path,
    tree: Path,
    index: Path,
    predictions: list[Path],
    output: Path,
    t_iou: float,
    matching: Matching,
    duplicates_iou: float,
    threads: int,
    seed: int,
    truth_match: Path | None = None,
    recorded_answers: Path | None = None,
) -> None:
    """Write how well good and bad masks are separated, and what the tree looks like.

    Parameters
    ----------
    partitions, tree, index
        Of the iteration.
    predictions
        Its stores, one a shard, in shard order.
    output
        `separability.json`: `predictions` (counts), `known` (where truth comes from, and how much was used), `auc`,
        `by_share` (good masks by the share of good neighbours), `categories`, `partitions`, `tree`, and `how` it was
        clustered. Where the stores hold several embeddings also `embeddings`: the AUC of each as it was predicted, by
        the words of `clustering.embedding`. What is not known is null, with a reason beside it.
    t_iou, matching
        What a good mask is, as in `segloop.annotation.oracle.good`.
    duplicates_iou
        Mask IoU from which a prediction nearly repeats an earlier one of its image and category.
    threads
        Threads of the matrix products.
    seed
        Seed of the samples of known masks and of queries.
    truth_match
        How the predictions agree with the truth, in simulations.
    recorded_answers
        People's answers so far, one JSON object a line, matched by mask key; not read where `truth_match` is given.

    Raises
    ------
    SegloopError
        If an input is missing or damaged, or inputs do not belong together.

    Notes
    -----
    Memory: the known masks (`HELD`), one shard's masks, and some 60 bytes a prediction of the index.
    """
    source = Partitions(partitions)
    rows = _Indexed.read(index, source)
    known = (
        _from_truth(rows, index, truth_match, t_iou, matching)
        if truth_match is not None
        else _from_people(rows, index, recorded_answers)
    )
    with numerical_threads(threads):
        separation = _separation(rows, known, source, _scores(index, predictions), seed)
        others = _auc_of_stored(rows, known, index, predictions, seed)
    near = count_near_duplicates(rows.prediction[rows.asked], predictions, duplicates_iou)
    write_json(
        output,
        {
            "schema_version": SCHEMA_VERSION,
            "iteration": read_index_attributes(index).get("iteration"),
            "predictions": rows.counts() | {"near_duplicates": near, "near_duplicate_iou": duplicates_iou},
            **separation,
            **({"embeddings": others} if others else {}),
            "partitions": summary_of_sizes(np.diff(source.part_offset)),
            **tree_shape(tree),
        },
    )


@dataclass(frozen=True)
class _Indexed:
    """Predictions of the index, ascending, and where they lie among the embeddings, [N]."""

    prediction: npt.NDArray[np.uint64]
    category: npt.NDArray[np.int32]
    repeats: Booleans
    """Repeats a prediction of an earlier iteration, whose verdict it inherits."""
    copies: Booleans
    """Has the very mask of a prediction before it in this iteration."""
    leaf: Rows
    """Row of the partitions, -1 for predictions that were not clustered."""

    @classmethod
    def read(cls, index: Path, source: Partitions) -> "_Indexed":
        names = ("prediction", "category", "duplicate_of", "inherited")
        prediction, category, duplicate_of, inherited = read_index_columns(index, *names)
        repeats, copies = (duplicate_of != 0) & (inherited != 0), (duplicate_of != 0) & (inherited == 0)
        clustered = np.sort(np.concatenate([source.row_id, source.null_id]))
        if not np.array_equal(clustered, prediction[~repeats & ~copies]):
            raise SegloopError(
                f"{source.path} and {index} do not hold the same predictions. "
                "Make the partitions of this iteration again."
            )
        leaf = np.full(len(prediction), -1, np.int64)
        leaf[np.searchsorted(prediction, source.row_id)] = np.arange(source.rows)
        return cls(prediction, category, repeats, copies, leaf)

    @property
    def asked(self) -> Booleans:
        """Predictions that questions are about."""
        return ~self.repeats & ~self.copies

    def counts(self) -> dict[str, int]:
        return {
            "indexed": len(self.prediction),
            "repeat_earlier_iterations": int(self.repeats.sum()),
            "copies": int(self.copies.sum()),
            "without_embedding": int((self.asked & (self.leaf < 0)).sum()),
            "clustered": int((self.leaf >= 0).sum()),
        }


def _scores(index: Path, predictions: list[Path]) -> dict[str, npt.NDArray[np.float32]]:
    """What the detector itself says about a mask, by name, [N] each."""
    names = ["score"]
    if any(PredictionShard.open(path).predicted_iou is not None for path in predictions[:1]):
        names.append("predicted_iou")
    return dict(zip(names, read_index_columns(index, *names), strict=True))


# --- what is known ---


@dataclass(frozen=True)
class _Known:
    """What is known of the predictions of the index before anybody is asked."""

    source: str | None
    """`truth`, `answers`, or None."""
    reason: str | None
    """Why nothing is known."""
    known: Booleans
    """[N]."""
    good: Booleans
    """[N]; meaningless where nothing is known."""


def _from_truth(rows: _Indexed, index: Path, truth_match: Path, t_iou: float, matching: Matching) -> _Known:
    match = read_truth_match(truth_match)
    if not np.array_equal(match.prediction, rows.prediction):
        raise SegloopError(f"{truth_match} is not about the predictions of {index}. Run match_truth again.")
    return _Known("truth", None, rows.leaf >= 0, good(match, t_iou, matching))


def _from_people(rows: _Indexed, index: Path, recorded: Path | None) -> _Known:
    nothing = np.zeros(len(rows.prediction), np.bool_)
    if recorded is None or not recorded.exists():
        return _Known(None, "neither the truth nor any answer is known yet", nothing, nothing)
    known, is_good = _answers(index, recorded)
    known &= rows.leaf >= 0
    if not known.any():
        return _Known(None, f"no answer in {recorded.name} is about a mask of this iteration", nothing, nothing)
    return _Known("answers", None, known, is_good)


def _answers(index: Path, recorded: Path) -> tuple[Booleans, Booleans]:
    """Return which masks people have said yes or no to, and which of them yes, [N] each; the last answer counts."""
    replies = {
        record["mask_key"]: record["reply"]
        for record in read_records(recorded)
        if record["purpose"] in COUNTED_PURPOSES
    }
    (keys,) = read_index_columns(index, "mask_key")
    known, is_good = np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.bool_)
    # The first eight bytes leave few candidates, so that millions of keys need not become Python objects.
    heads = np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel()
    answered = np.array([int.from_bytes(key[:8], "little") for key in replies], np.uint64)
    for row in np.flatnonzero(np.isin(heads, answered.astype("<u8"))).tolist():
        reply = replies.get(keys[row].tobytes())
        known[row], is_good[row] = reply in ("yes", "no"), reply == "yes"
    return known, is_good


# --- how far good and bad lie apart ---


def auc(values: npt.NDArray[np.floating[Any]], is_good: Booleans) -> float | None:
    """Return the probability that a good mask has a larger value than a bad one, ties counted half.

    The Mann-Whitney statistic divided by the number of pairs; None where there are no pairs.
    """
    goods, bads = int(is_good.sum()), int((~is_good).sum())
    if not goods or not bads:
        return None
    # Imported when needed: it takes a second.
    from scipy.stats import rankdata

    return float((rankdata(values)[is_good].sum() - goods * (goods + 1) / 2) / (goods * bads))


def standard_error(area: float, goods: int, bads: int) -> float:
    """Return the standard error of an AUC.

    J. A. Hanley and B. J. McNeil, The meaning and use of the area under a ROC curve, Radiology 143, 1982.
    """
    above, below = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (goods - 1) * (above - area**2) + (bads - 1) * (below - area**2)
    return math.sqrt(max(variance, 0.0) / (goods * bads))


@dataclass(frozen=True)
class _Judged:
    """Queries, and the share of good masks among their neighbours."""

    row: Rows
    """Rows of the index, ascending, [Q]."""
    good: Booleans
    """[Q]."""
    share: npt.NDArray[np.float64]
    """Share of good ones among the nearest known masks but themselves, [Q]."""


def _separation(
    rows: _Indexed, known: _Known, source: Partitions, scores: dict[str, npt.NDArray[np.float32]], seed: int
) -> dict[str, Any]:
    held = _sample(np.flatnonzero(known.known), HELD, "separability known", seed)
    judged = _judge(held, rows, known, source, seed)
    enough, reason = _enough(judged.good, known)
    area = auc(judged.share, judged.good) if enough else None
    return {
        "known": {
            "source": known.source,
            "masks": int(known.known.sum()),
            "good_share": _share(known.good[known.known]),
            "held": len(held),
            "queries": len(judged.row),
            "neighbours": min(NEIGHBOURS, max(len(held) - 1, 0)),
        },
        "auc": {
            "neighbours": _rounded(area),
            "standard_error": _rounded(_error(area, judged.good)),
            **{name: _rounded(_auc_of(values, judged, enough)) for name, values in scores.items()},
            "reason": reason,
        },
        "by_share": _by_share(judged),
        "categories": _categories(rows, known, judged),
    }


def _sample(rows: Rows, most: int, what: str, seed: int) -> Rows:
    """Draw rows of the index, ascending: what is drawn does not depend on the clustering."""
    return rows if len(rows) <= most else np.sort(generator(what, seed).choice(rows, most, replace=False))


def _judge(held: Rows, rows: _Indexed, known: _Known, source: Partitions, seed: int) -> _Judged:
    queries = _sample(held, QUERIES, "separability queries", seed)
    if len(held) < 2:
        return _Judged(held[:0], np.zeros(0, np.bool_), np.zeros(0))
    held = held[np.argsort(rows.leaf[held])]
    unit, is_good = _embeddings(source, rows.leaf[held]), known.good[held]
    own = np.searchsorted(rows.leaf[held], rows.leaf[queries])
    return _Judged(queries, known.good[queries], _shares(unit, is_good, own))


def _shares(unit: npt.NDArray[np.float32], is_good: Booleans, queries: Rows) -> npt.NDArray[np.float64]:
    """Return the share of good ones among the nearest neighbours of queries, which are rows of `unit`, [Q]."""
    share = np.empty(len(queries))
    for start in range(0, len(queries), _QUERY_BLOCK):
        some = queries[start : start + _QUERY_BLOCK]
        found, _ = nearest(unit[some], _in_memory(unit), min(NEIGHBOURS, len(unit) - 1), some)
        share[start : start + _QUERY_BLOCK] = is_good[found].mean(axis=1)
    return share


def _auc_of_stored(
    rows: _Indexed, known: _Known, index: Path, predictions: list[Path], seed: int
) -> dict[str, float | None]:
    """Return the AUC of each embedding that the stores hold, if there are several.

    Known masks and queries are those of the embedding that is clustered. One embedding is in memory at a time.
    """
    names = stored_embeddings(predictions)
    held = _sample(np.flatnonzero(known.known), HELD, "separability known", seed)
    queries = _sample(held, QUERIES, "separability queries", seed)
    if len(names) < 2 or len(held) < 2:
        return {}
    found: dict[str, float | None] = {}
    for name in names:
        source = ShardSource(rows.prediction[held], predictions, index, PARTS[name])
        unit = unit_or_zero(source.read(np.arange(len(held))))
        share = _shares(unit, known.good[held], np.searchsorted(held, queries))
        enough, _ = _enough(known.good[queries], known)
        found[name] = _rounded(auc(share, known.good[queries])) if enough else None
    return found


def _embeddings(source: Partitions, leaf: Rows) -> npt.NDArray[np.float32]:
    """Return ascending rows of the store with length 1, float32 [n, D]."""
    unit = np.empty((len(leaf), source.dim), np.float32)
    for start in range(0, source.rows, _BLOCK):
        stop = min(start + _BLOCK, source.rows)
        first, last = np.searchsorted(leaf, [start, stop])
        if first < last:
            own = leaf[first:last] - start
            unit[first:last] = unit_rows(source.embeddings(start, stop)[own], source.lengths(start, stop)[own])
    return unit


def _in_memory(unit: npt.NDArray[np.float32]) -> Slabs:
    for start in range(0, len(unit), _BLOCK):
        yield start, unit[start : start + _BLOCK]


def _enough(is_good: Booleans, known: _Known) -> tuple[bool, str | None]:
    goods, bads = int(is_good.sum()), int((~is_good).sum())
    if known.reason is not None:
        return False, known.reason
    if min(goods, bads) < _FEWEST:
        return False, f"of {goods + bads} known masks {goods} are good and {bads} bad; {_FEWEST} of each are needed"
    return True, None


def _error(area: float | None, is_good: Booleans) -> float | None:
    return None if area is None else standard_error(area, int(is_good.sum()), int((~is_good).sum()))


def _auc_of(values: npt.NDArray[np.float32], judged: _Judged, enough: bool) -> float | None:
    return auc(values[judged.row], judged.good) if enough else None


def _by_share(judged: _Judged) -> list[dict[str, Any]]:
    # 3 of 30 belong to the bar that begins at 0.1, whichever way the last bit fell.
    bar = np.minimum((judged.share * _SHARES + 1e-9).astype(np.int64), _SHARES - 1)
    masks, goods = np.bincount(bar, minlength=_SHARES), np.bincount(bar[judged.good], minlength=_SHARES)
    mean = np.bincount(bar, judged.share, minlength=_SHARES) / np.maximum(masks, 1)
    return [
        {"from": number / _SHARES, "masks": int(count), "good": int(well), "mean_share": round(float(centre), 4)}
        for number, (count, well, centre) in enumerate(zip(masks, goods, mean, strict=True))
        if count
    ]


def _categories(rows: _Indexed, known: _Known, judged: _Judged) -> dict[str, Any]:
    ids, sizes = np.unique(rows.category[rows.asked], return_counts=True)
    largest = np.lexsort((ids, -sizes))[:_LARGEST]
    each = [_category(int(ids[place]), int(sizes[place]), rows, known, judged) for place in largest]
    return summary_of_sizes(sizes) | {"of_the_largest": each}


def _category(category: int, size: int, rows: _Indexed, known: _Known, judged: _Judged) -> dict[str, Any]:
    own = known.known & (rows.category == category)
    queries = rows.category[judged.row] == category
    is_good = judged.good[queries]
    enough = min(int(is_good.sum()), int((~is_good).sum())) >= _FEWEST
    return {
        "category": category,
        "predictions": size,
        "known": int(own.sum()),
        "good_share": _share(known.good[own]),
        "queries": len(is_good),
        "auc": _rounded(auc(judged.share[queries], is_good)) if enough else None,
    }


def _share(is_good: Booleans) -> float | None:
    return _rounded(float(is_good.mean())) if len(is_good) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
