"""How often annotators err, estimated from answers of several of them to the same masks."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, betaln, expit, log_expit, xlog1py, xlogy

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_PRIOR_WRONG: Final = 1.0
_PRIOR_RIGHT: Final = 9.0
"""What is believed of an annotator before any answer: as much as ten answers, one of them wrong."""
_CONFIDENCE: Final = 0.95
_MOST_ROUNDS: Final = 200
_SMALL_STEP: Final = 1e-6


@dataclass(frozen=True)
class Estimate:
    """A probability with an interval that holds it with 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DawidSkene:
    """Estimates of annotators' errors and of the truth, from answers alone.

    Attributes
    ----------
    false_yes, false_no
        Of each annotator.
    good : float64 [I]
        Probability of each mask that it is good.
    share
        Share of good masks among those of unknown truth.
    log_posterior
        After each round of the estimation, up to a constant; it never falls.
    """

    false_yes: tuple[Estimate, ...]
    false_no: tuple[Estimate, ...]
    good: Floats
    share: float
    log_posterior: tuple[float, ...]


def dawid_skene(
    mask: Integers, annotator: Integers, yes: npt.NDArray[np.bool_], truth: Floats, people: int
) -> DawidSkene:
    """Estimate annotators' errors by expectation maximisation from binary answers to the same masks.

    Each annotator answers yes about a bad mask and no about a good one with probabilities of their own, independently
    of the others given the truth. Beta priors worth ten answers, one of them wrong, keep few answers from giving
    extremes, and say which of the two labels is which; the estimates maximise the posterior. The intervals take the
    expected counts for counts and so leave aside that the truth is estimated, too.

    Parameters
    ----------
    mask, annotator : int64 [V]
        Numbers 0..I-1 and 0..people-1.
    yes : bool [V]
    truth : float64 [I]
        1 for masks known to be good, 0 for bad ones, NaN for those that are not known.
    people
        Number of annotators.

    References
    ----------
    A. P. Dawid and A. M. Skene, Applied Statistics 28(1), 1979.
    """
    votes = _Votes(mask, annotator, yes, truth, people)
    good = np.where(votes.known, truth, votes.share_of_yes())
    trace: list[float] = []
    while True:
        rates = votes.maximise(good)
        good, value = votes.expect(rates)
        trace.append(value)
        if len(trace) > 1 and (trace[-1] - trace[-2] < _SMALL_STEP or len(trace) >= _MOST_ROUNDS):
            break
    false_yes, false_no = (
        tuple(_estimate(wrong, asked) for wrong, asked in zip(*counts, strict=True)) for counts in votes.counts(good)
    )
    return DawidSkene(false_yes, false_no, good, rates.share, tuple(trace))


@dataclass(frozen=True)
class _Rates:
    false_yes: Floats
    false_no: Floats
    share: float


@dataclass(frozen=True)
class _Votes:
    """Answers, as `dawid_skene` takes them."""

    mask: Integers
    annotator: Integers
    yes: npt.NDArray[np.bool_]
    truth: Floats
    people: int

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.truth)

    def share_of_yes(self) -> Floats:
        masks = len(self.truth)
        votes = np.bincount(self.mask, minlength=masks)
        return np.asarray((np.bincount(self.mask[self.yes], minlength=masks) + 0.5) / (votes + 1), np.float64)

    def counts(self, good: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Return, of each annotator, expected wrong and all answers about bad masks, and the same about good ones."""
        is_good = good[self.mask]

        def total(weight: Floats) -> Floats:
            return np.bincount(self.annotator, weight, self.people).astype(np.float64)

        bad = total((1 - is_good) * self.yes), total(1 - is_good)
        return bad, (total(is_good * ~self.yes), total(is_good))

    def maximise(self, good: Floats) -> _Rates:
        """Return the rates that are most probable if `good` were the truth."""
        rates = [(wrong + _PRIOR_WRONG) / (asked + _PRIOR_WRONG + _PRIOR_RIGHT) for wrong, asked in self.counts(good)]
        unknown = good[~self.known]
        return _Rates(rates[0], rates[1], (unknown.sum() + 1) / (len(unknown) + 2))

    def expect(self, rates: _Rates) -> tuple[Floats, float]:
        """Return how probably each mask is good under these rates, and the logarithm of their posterior density."""
        false_yes, false_no = rates.false_yes[self.annotator], rates.false_no[self.annotator]
        if_good = self._by_mask(np.where(self.yes, 1 - false_no, false_no))
        if_bad = self._by_mask(np.where(self.yes, false_yes, 1 - false_yes))
        odds = if_good - if_bad + np.log(rates.share) - np.log1p(-rates.share)
        known = self.known
        good = np.where(known, self.truth, expit(odds))
        # log(a + b) = log a - log(a / (a + b)), a the part of good.
        likelihood = np.where(
            known,
            np.where(self.truth == 1, if_good, if_bad),
            if_good + np.log(rates.share) - log_expit(odds),
        )
        prior = sum(
            float(np.sum(xlogy(_PRIOR_WRONG, rate) + xlog1py(_PRIOR_RIGHT, -rate)))
            for rate in (rates.false_yes, rates.false_no)
        )
        prior += float(np.log(rates.share) + np.log1p(-rates.share))
        constant = 2 * self.people * betaln(_PRIOR_WRONG + 1, _PRIOR_RIGHT + 1) + betaln(2, 2)
        return good, float(likelihood.sum()) + prior - float(constant)

    def _by_mask(self, probability: Floats) -> Floats:
        return np.bincount(self.mask, np.log(probability), len(self.truth)).astype(np.float64)


def _estimate(wrong: float, asked: float) -> Estimate:
    """Return the most probable rate under the prior, and the central interval of its posterior."""
    a, b = wrong + _PRIOR_WRONG, asked - wrong + _PRIOR_RIGHT
    low, high = betaincinv(a + 1, b + 1, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Estimate(float(a / (a + b)), float(low), float(high))
