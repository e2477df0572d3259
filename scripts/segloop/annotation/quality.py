"""How far answers can be trusted: votes, gold questions, repeats, and what errors leave of a certificate."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segloop.annotation.answers import COUNTED_PURPOSES, NO, OTHER, PURPOSES, YES
from segloop.annotation.certificates import Certificate, clopper_pearson_lower
from segloop.annotation.dawid_skene import dawid_skene
from segloop.config import AnnotationConfig

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_GOLD: Final = PURPOSES.index("gold")
_REPEAT: Final = PURPOSES.index("repeat")
_COUNTED: Final = tuple(PURPOSES.index(word) for word in COUNTED_PURPOSES)

GOLD_SHARE: Final = 0.2
"""Share of delta that bounds the annotators' errors where gold questions are asked; audits spend the rest."""


def majority(question: Integers, reply: npt.NDArray[np.int8], questions: int) -> npt.NDArray[np.int8]:
    """Return what more than half of the votes on each question say; `OTHER` where neither yes nor no has so many.

    A contradiction thus leaves a mask undecided, and in an audit it does not count as good.

    Parameters
    ----------
    question : int64 [V]
        The question of each vote, 0..questions-1.
    reply : int8 [V]

    Returns
    -------
    int8 [questions]
    """
    votes = np.bincount(question, minlength=questions)
    yes = np.bincount(question[reply == YES], minlength=questions)
    no = np.bincount(question[reply == NO], minlength=questions)
    return np.where(2 * yes > votes, YES, np.where(2 * no > votes, NO, OTHER)).astype(np.int8)


def combine_votes(
    question: Integers, annotator: Integers, reply: npt.NDArray[np.int8], needed: Integers
) -> tuple[Integers, npt.NDArray[np.int8]]:
    """Return one reply for each question that has enough votes; each annotator's last answer counts.

    Parameters
    ----------
    question, annotator : int64 [V]
        Questions are numbered 0..Q-1, annotators from 0.
    reply : int8 [V]
    needed : int64 [Q]
        Votes of different annotators that a question needs.

    Returns
    -------
    int64 [K], int8 [K]: the place of the last vote on each question, ascending, and the reply.
    """
    if not len(question):
        return np.zeros(0, np.int64), np.zeros(0, np.int8)
    latest = last_of_each(question * (int(annotator.max()) + 1) + annotator)
    enough = np.bincount(question[latest], minlength=len(needed)) >= needed
    replies = majority(question[latest], reply[latest], len(needed))
    place = np.sort(last_of_each(question))
    place = place[enough[question[place]]]
    return place, replies[question[place]]


def last_of_each(group: Integers) -> Integers:
    """Return the place of the last row of each group, ascending by group."""
    _, place = np.unique(group[::-1], return_index=True)
    return np.asarray(len(group) - 1 - place, np.int64)


# --- what is claimed --------------------------------------------------------------------------------------------------


def claimed_precision(lower: float, false_yes: float) -> float:
    """Return the precision that a share of yes of at least `lower` shows when bad masks can be answered with yes.

    Of M masks let a share pi be good, and of the bad ones at most a share f be answered with yes. However many of the
    good ones are, the share of yes is at most pi + (1 - pi) f. So if it is at least L, then

        L <= pi + (1 - pi) f,   that is   pi >= (L - f) / (1 - f).

    Answers of no about good masks only raise pi further.

    Parameters
    ----------
    lower
        L, which an audit shows.
    false_yes
        f; 1 leaves nothing to claim.

    Returns
    -------
    0 where nothing is shown.
    """
    return max(0.0, (lower - false_yes) / (1 - false_yes)) if false_yes < 1 else 0.0


def claim(certificates: tuple[Certificate, ...], false_yes: float) -> tuple[Certificate, ...]:
    """Return certificates with what they claim where the annotators' share of false yes is at most `false_yes`."""
    return tuple(
        replace(one, false_yes=false_yes, claimed=claimed_precision(one.lower, false_yes)) for one in certificates
    )


def without_gold_share(config: AnnotationConfig) -> AnnotationConfig:
    """Return a configuration whose audits leave of delta what bounds the annotators' errors, if gold is asked."""
    if config.gold is None:
        return config
    audit = config.audit.model_copy(update={"delta": (1 - GOLD_SHARE) * config.audit.delta})
    return config.model_copy(update={"audit": audit})


@dataclass(frozen=True)
class Gold:
    """What gold questions about bad masks show of those who answer."""

    asked: int
    """Bad masks that were shown."""
    wrong: int
    """Those of them that were answered with yes, by the majority where there are several votes."""
    delta: float
    """Probability that the share of false yes is above `upper`."""
    upper: float
    """Clopper-Pearson's upper bound on it; 1 if no bad mask was shown."""


def gold_bound(asked: int, wrong: int, delta: float) -> Gold:
    """Return the bound that so many wrong answers about so many bad masks give."""
    return Gold(asked, wrong, delta, 1 - clopper_pearson_lower(asked - wrong, asked, delta))


# --- what the answers of an iteration say of those who gave them ------------------------------------------------------


def measure_annotators(
    answers: pa.Table, gold: Mapping[bytes, bool], votes: int, delta: float
) -> tuple[Gold | None, dict[str, dict[str, Any]]]:
    """Measure annotators by gold questions, by repeats, and by how they agree with each other.

    Parameters
    ----------
    answers
        With the columns of `ANSWER_SCHEMA`.
    gold
        Mask keys of known truth: whether the mask is good.
    votes
        Answers that a gold question needs before it counts in the bound.
    delta
        Level of that bound.

    Returns
    -------
    What gold questions show, None where none was answered; and by annotator: `answers`, `gold` and `repeats` (how many,
    how many wrong or different), and `false_yes` and `false_no` as Dawid and Skene estimate them, None of an annotator
    of whose masks nobody else was asked and nothing is known.
    """
    log = _Log.of(answers, gold)
    shown = log.select((log.purpose == _GOLD) & ~np.isnan(log.truth[log.mask]))
    bound = _bound(shown, votes, delta) if len(shown.mask) else None
    estimates = _estimates(log)
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(log.names):
        own = log.annotator == number
        mine = shown.select(shown.annotator == number)
        found[name] = {
            "answers": int(own.sum()),
            "gold": {"asked": len(mine.mask), "wrong": int((mine.yes != (mine.truth[mine.mask] == 1)).sum())},
            "repeats": _repeats(log, number),
            **estimates.get(number, {"false_yes": None, "false_no": None}),
        }
    return bound, found


@dataclass(frozen=True)
class _Log:
    """Answers as numbers; `truth` is one a mask, NaN where it is not known."""

    mask: Integers
    annotator: Integers
    reply: npt.NDArray[np.int8]
    purpose: npt.NDArray[np.int8]
    truth: Floats
    names: tuple[str, ...]

    @staticmethod
    def of(answers: pa.Table, gold: Mapping[bytes, bool]) -> "_Log":
        keys = answers.column("mask_key").combine_chunks().dictionary_encode()
        people = answers.column("annotator").combine_chunks().dictionary_encode()
        replies = {"yes": YES, "no": NO, "other": OTHER}
        truth = [float(gold[key]) if key in gold else np.nan for key in keys.dictionary.to_pylist()]
        return _Log(
            mask=keys.indices.to_numpy().astype(np.int64),
            annotator=people.indices.to_numpy().astype(np.int64),
            reply=np.array([replies[word] for word in answers.column("reply").to_pylist()], np.int8),
            purpose=np.array([PURPOSES.index(word) for word in answers.column("purpose").to_pylist()], np.int8),
            truth=np.array(truth, np.float64),
            names=tuple(people.dictionary.to_pylist()),
        )

    @property
    def yes(self) -> npt.NDArray[np.bool_]:
        return np.equal(self.reply, YES)

    def select(self, rows: npt.NDArray[np.bool_]) -> "_Log":
        return replace(
            self,
            mask=self.mask[rows],
            annotator=self.annotator[rows],
            reply=self.reply[rows],
            purpose=self.purpose[rows],
        )

    def latest(self) -> "_Log":
        """Return the last answer of each annotator on each mask."""
        kept = np.zeros(len(self.mask), np.bool_)
        kept[last_of_each(self.mask * len(self.names) + self.annotator)] = True
        return self.select(kept)


def _bound(shown: _Log, votes: int, delta: float) -> Gold:
    latest = shown.latest()
    enough = np.bincount(latest.mask, minlength=len(latest.truth)) >= votes
    yes = majority(latest.mask, latest.reply, len(latest.truth)) == YES
    bad = enough & (latest.truth == 0)
    return gold_bound(int(bad.sum()), int((bad & yes).sum()), delta)


def _estimates(log: _Log) -> dict[int, dict[str, Any]]:
    """Return the estimates of those whose answers can be compared with the truth or with another's."""
    latest = log.select(np.isin(log.purpose, (*_COUNTED, _GOLD)) & (log.reply != OTHER)).latest()
    votes = np.bincount(latest.mask, minlength=len(latest.truth))
    comparable = latest.select(((votes > 1) | ~np.isnan(latest.truth))[latest.mask])
    if not len(comparable.mask):
        return {}
    masks, mask = np.unique(comparable.mask, return_inverse=True)
    fit = dawid_skene(mask, comparable.annotator, comparable.yes, comparable.truth[masks], len(log.names))
    return {
        number: {"false_yes": asdict(fit.false_yes[number]), "false_no": asdict(fit.false_no[number])}
        for number in np.unique(comparable.annotator).tolist()
    }


def _repeats(log: _Log, annotator: int) -> dict[str, int]:
    """Return how many questions an annotator was asked again, and how many got another answer than before."""
    own = log.select(log.annotator == annotator)
    again = own.select(own.purpose == _REPEAT)
    before = own.select(np.isin(own.purpose, _COUNTED) & np.isin(own.mask, again.mask)).latest()
    first = dict(zip(before.mask.tolist(), before.reply.tolist(), strict=True))
    pairs = [
        (first[mask], reply)
        for mask, reply in zip(again.mask.tolist(), again.reply.tolist(), strict=True)
        if mask in first
    ]
    return {"asked": len(pairs), "different": sum(one != other for one, other in pairs)}
