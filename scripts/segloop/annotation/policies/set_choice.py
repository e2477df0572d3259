"""Which set to audit, and how: the prefix of masks by P(good) that is worth most after its audit."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from segloop.annotation.policies.quality_model import Posterior
from segloop.annotation.sequential import Design, design

Rows = npt.NDArray[np.int64]

_LEAST: Final = 40
"""Masks of a set that is worth an audit."""
_POSSIBLE: Final = 0.3
"""Masks below this P(good) are never in a set."""
_SHORT_OF_TARGET: Final = 0.03
"""A set may be expected to miss the target by this much, because its known bad masks are dropped."""
_STEP: Final = 1.3
"""Ratio of the sizes that are tried, and of nested sets."""
_PATIENCE: Final = 3
"""Sizes without a gain after which the search ends."""
_POINTS: Final = 12
"""Values that stand for the belief about the number of bad masks."""
_THINNED: Final = 20_000
"""Beyond so many masks every k-th stands for k."""
_MOST_QUESTIONS: Final = 1700
_BREADTH: Final = 1.3
"""A set with twice the masks at the same masks per question is worth 2^1.3 times as much: worth is masks^(1 + breadth)
over questions, so that a few sure masks do not win over a large set."""
EQUAL_WORTH: Final = _STEP ** (1 + _BREADTH)
"""With this many times the questions a set of the next size is worth as much."""


@dataclass(frozen=True)
class Setting:
    """What an audit would begin with."""

    known_good: int
    asked: int
    """Questions so far."""
    left: int
    """Questions that may still be asked."""
    target: float
    delta: float
    price: float
    """Masks that a question has to bring."""
    salvage: float
    """What a set that fails is still worth, as a share of its masks."""
    start: int | None
    """Where the search for the length of the audit begins."""
    held: float = 0.0
    """Good masks to be expected in what is accepted already, beside the known ones."""


@dataclass(frozen=True)
class Choice:
    """A set and its audit."""

    rows: Rows
    """Unanswered masks in falling order of P(good), [M]."""
    design: Design
    price: float
    """Masks per question that this choice promises at the margin."""
    worth: float

    @property
    def masks(self) -> float:
        """Good masks to be expected in all."""
        return self.design.masks

    @property
    def cost(self) -> float:
        """Questions of the audit to be expected."""
        return self.design.cost


def worth(masks: float, questions: float) -> float:
    """Return what so many good masks for so many questions are worth."""
    return float(masks ** (1 + _BREADTH) / max(questions, 1.0))


def choose_set(
    belief: Posterior,
    answered: npt.NDArray[np.bool_],
    setting: Setting,
    random: np.random.Generator,
    *,
    exact: bool = False,
) -> Choice | None:
    """Return the best set and its audit, None where no set can be expected to pass.

    Parameters
    ----------
    answered
        Masks that are known already: they are never in the set, and good ones are accepted besides.
    exact
        Check the audit's error against every possible number of bad masks; without it the design is good to within the
        points that stand for them, enough to compare sets.
    """
    search = _Search.of(belief, answered, setting, random)
    best = None if search is None else search.run()
    return best if search is None or best is None or not exact else search.value(len(best.rows), exact=True)


class NestedSets:
    """The tops of one ranking, each some masks larger than the one before, and an audit of each.

    All of it is fixed by the arguments, if sets are taken from the first on, so that no answer of an audit has a part
    in what is audited next. What is asked about a set lies in the set before with a probability of 1 / 1.3: most of it
    is known when that one has passed.

    Parameters
    ----------
    planned
        The set that would be audited if there were one only, chosen with the same other arguments. It is the first;
        the last one is the largest that may reach the target.

    Others as in `choose_set`.

    Raises
    ------
    ValueError
        If `planned` is larger than anything that may reach the target.
    """

    def __init__(
        self,
        belief: Posterior,
        answered: npt.NDArray[np.bool_],
        setting: Setting,
        random: np.random.Generator,
        planned: Choice,
    ):
        search = _Search.of(belief, answered, setting, random)
        if search is None or len(planned.rows) > len(search.ranked):
            raise ValueError("the planned set was not chosen with the same arguments")
        self._search = search
        self._most = planned.design.most_questions
        self._sizes = [len(planned.rows)]
        while (larger := int(self._sizes[-1] * _STEP)) <= len(search.ranked):
            self._sizes.append(larger)

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def rows(self) -> Rows:
        """Return the largest set, in falling order of P(good)."""
        return self._search.ranked[: self._sizes[-1]]

    def choice(self, number: int) -> Choice | None:
        """Return a set and its audit, whose error is exact; None where no audit can pass.

        The first audit is the planned one. Later ones may ask as many questions as that, and do not give up because of
        their price: they would be charged for answers that are known already.
        """
        return self._search.value(self._sizes[number], exact=True, most=self._most if number else None)


def _largest(probability: npt.NDArray[np.float32], setting: Setting) -> int:
    """Return the size of the largest prefix that may reach the target."""
    count = np.arange(1, len(probability) + 1)
    expected = (np.cumsum(probability, dtype=np.float64) + setting.known_good) / (count + setting.known_good)
    enough = np.flatnonzero(expected >= setting.target - _SHORT_OF_TARGET)
    return int(enough[-1]) + 1 if len(enough) else 0


class _Search:
    """Sizes from large to small, each with its best audit."""

    def __init__(self, belief: Posterior, ranked: Rows, setting: Setting, random: np.random.Generator):
        self.ranked, self._setting, self._start = ranked, setting, setting.start
        self._thin = max(1, len(ranked) // _THINNED)
        probability = belief.sample(ranked[:: self._thin]).astype(np.float64)
        self._bad = np.cumsum(1 - probability, axis=0) * self._thin
        self._spread = np.sqrt(np.cumsum(probability * (1 - probability), axis=0) * self._thin)
        self._noise = random.standard_normal(probability.shape[1])

    @classmethod
    def of(
        cls, belief: Posterior, answered: npt.NDArray[np.bool_], setting: Setting, random: np.random.Generator
    ) -> Self | None:
        """Return the search among unanswered masks, None where too few of them may reach the target."""
        candidates = np.flatnonzero(~answered & (belief.probability > _POSSIBLE))
        ranked = candidates[np.argsort(-belief.probability[candidates], kind="stable")]
        top = _largest(belief.probability[ranked], setting)
        return cls(belief, ranked[:top], setting, random) if top >= _LEAST else None

    def run(self) -> Choice | None:
        best: Choice | None = None
        without_gain, size = 0, len(self.ranked)
        while size >= _LEAST and without_gain < _PATIENCE:
            found = self.value(size)
            if found is not None and (best is None or found.worth > best.worth):
                best, without_gain = found, 0
            elif best is not None:
                without_gain += 1
            size = int(size / _STEP)
        return None if best is None else self._refined(best)

    def _refined(self, best: Choice) -> Choice:
        for factor in (_STEP**-0.5, _STEP**0.5):
            size = int(len(best.rows) * factor)
            if _LEAST <= size < len(self.ranked):
                found = self.value(size)
                if found is not None and found.worth > best.worth:
                    return found
        return best

    def value(self, size: int, *, exact: bool = False, most: int | None = None) -> Choice | None:
        """Return a prefix and its audit; with `most`, one of about so many questions whatever they cost."""
        setting = self._setting
        limit = min(setting.left, _MOST_QUESTIONS if most is None else most)
        bad, weight = self._belief(size)
        found = design(
            size,
            setting.known_good,
            setting.target,
            setting.delta,
            belief=bad,
            weight=weight,
            price=setting.price if most is None else 0.0,
            n_max=limit,
            salvage=max(setting.held, setting.salvage * size) if most is None else 0.0,
            start=self._start,
            exact=exact,
        )
        if found is None:
            return None
        self._start = found.index
        questions = setting.asked + found.cost
        price = found.masks / questions * _BREADTH / (1 + _BREADTH)
        return Choice(self.ranked[:size], found, price, worth(found.masks, questions))

    def _belief(self, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return numbers of bad masks in the prefix and their probabilities, from the draws of the posterior."""
        place = (size - 1) // self._thin
        drawn = np.clip(self._bad[place] + self._spread[place] * self._noise, 0, size)
        levels = (np.arange(_POINTS) + 0.5) / _POINTS
        points, count = np.unique(np.round(np.quantile(drawn, levels)).astype(np.int64), return_counts=True)
        return points, count / count.sum()
