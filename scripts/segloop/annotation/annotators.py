"""Who answers in simulations: people who know the truth, err at their own rates, and take their time."""

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtri

from segloop.annotation.answers import NO, NO_REASONS, OTHER, PURPOSES, YES
from segloop.annotation.quality import majority
from segloop.config import AnnotationConfig, OracleConfig
from segloop.randomness import generator, uniforms

Rows = npt.NDArray[np.int64]

_AUDIT: Final = PURPOSES.index("audit")
_GOLD: Final = PURPOSES.index("gold")
_REPEAT: Final = PURPOSES.index("repeat")

UNSAID: Final = -1
"""No reason was given."""


@dataclass(frozen=True)
class Given:
    """Answers of simulated annotators, one row each.

    Attributes
    ----------
    question : int64 [V]
        Place of the question in what was asked.
    annotator : int64 [V]
        Number of the annotator.
    reply : int8 [V]
        `YES`, `NO` or `OTHER`.
    reason : int8 [V]
        Position in `NO_REASONS`, `UNSAID` for none.
    seconds : float64 [V]
    """

    question: Rows
    annotator: Rows
    reply: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int8]
    seconds: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.question)

    def take(self, rows: Rows) -> "Given":
        """Return some of the answers."""
        return Given(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True)
class Annotators:
    """Simulated people, none of whom is asked twice about a mask for one purpose.

    Every answer is a function of (seed, annotator, prediction, purpose), so that a replay, or another number of
    workers, gives the same answers.

    Attributes
    ----------
    config
        How they answer.
    votes
        Answers to each question of an audit and to each gold question, from different annotators.
    seed
        The run's seed: people stay the same over the iterations.
    prediction : uint64 [N]
        Ids of what can be asked about.
    truth : bool [N]
        Which of it is good.
    false_yes, false_no : float64 [K]
        Each one's probability of yes about a bad mask, and of no about a good one.
    """

    config: OracleConfig
    votes: int
    seed: int
    prediction: npt.NDArray[np.uint64]
    truth: npt.NDArray[np.bool_]
    false_yes: npt.NDArray[np.float64]
    false_no: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, config: AnnotationConfig, seed: int, prediction: npt.NDArray[np.uint64], truth: npt.NDArray[np.bool_]
    ) -> Self:
        """Return the people that a configuration describes."""
        oracle = config.oracle
        rates = [_rates(oracle, seed, name) for name in ("false_yes", "false_no")]
        return cls(oracle, config.audit.votes, seed, prediction, truth, *rates)

    @property
    def names(self) -> list[str]:
        """Ids of the annotators: `oracle`, or `oracle_0`, `oracle_1`, ... where there are several."""
        count = len(self.false_yes)
        return ["oracle"] if count == 1 else [f"oracle_{number}" for number in range(count)]

    def reply(self, rows: Rows, purpose: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Return what each question gets for an answer: the majority of its votes."""
        given = self.ask(rows, purpose)
        return majority(given.question, given.reply, len(rows))

    def ask(self, rows: Rows, purpose: npt.NDArray[np.int8]) -> Given:
        """Return the answers to questions, those to one question side by side.

        Parameters
        ----------
        rows : int64 [Q]
            What is asked about.
        purpose : int8 [Q]
            What it is asked for, positions in `PURPOSES`.
        """
        votes = np.where(np.isin(purpose, (_AUDIT, _GOLD)), self.votes, 1)
        question = np.repeat(np.arange(len(rows), dtype=np.int64), votes)
        vote = np.arange(len(question)) - np.repeat(np.cumsum(votes) - votes, votes)
        # Whom a question comes to first is drawn; further votes go to the next ones, who are others.
        first = np.floor(self._uniforms("who", rows, purpose) * len(self.false_yes)).astype(np.int64)
        annotator = (first[question] + vote) % len(self.false_yes)
        return self._answers(question, annotator, rows[question], purpose[question])

    def gold(self, count: int, iteration: int) -> tuple[Rows, Given]:
        """Return questions about masks whose truth is known, drawn uniformly without replacement, and their answers.

        Parameters
        ----------
        count
            How many; at most one a mask.
        """
        drawn = generator("gold", self.seed, iteration).permutation(len(self.prediction))[:count]
        rows = np.argsort(self.prediction, kind="stable")[drawn].astype(np.int64)
        return rows, self.ask(rows, np.full(len(rows), _GOLD, np.int8))

    def repeats(self, rows: Rows, before: Given, count: int, iteration: int) -> tuple[Rows, Given]:
        """Return questions that some annotators answered before, drawn uniformly, and what they answer now.

        Parameters
        ----------
        rows : int64 [Q]
            What was asked about.
        before
            Answers to these questions.
        count
            How many are asked again.
        """
        drawn = np.sort(generator("repeat", self.seed, iteration).permutation(len(before))[:count])
        again = before.take(drawn)
        asked = rows[again.question]
        number = np.arange(len(asked), dtype=np.int64)
        return asked, self._answers(number, again.annotator, asked, np.full(len(asked), _REPEAT, np.int8))

    def _answers(self, question: Rows, annotator: Rows, rows: Rows, purpose: npt.NDArray[np.int8]) -> Given:
        good = self.truth[rows]
        wrong = self._uniforms("wrong", rows, purpose, annotator) < np.where(
            good, self.false_no[annotator], self.false_yes[annotator]
        )
        reply = np.where(good != wrong, YES, NO).astype(np.int8)
        reply[self._uniforms("other", rows, purpose, annotator) < self.config.other_rate] = OTHER
        return Given(
            question=question,
            annotator=annotator,
            reply=reply,
            reason=self._reasons(reply, self._uniforms("reason", rows, purpose, annotator)),
            seconds=self._seconds(self._uniforms("seconds", rows, purpose, annotator)),
        )

    def _reasons(self, reply: npt.NDArray[np.int8], uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        weights = np.array([self.config.reasons.get(name, 0.0) for name in NO_REASONS])  # type: ignore[call-overload]
        if not weights.any():
            return np.full(len(reply), UNSAID, np.int8)
        drawn = np.searchsorted(np.cumsum(weights) / weights.sum(), uniform, side="right")
        return np.where(reply == NO, drawn, UNSAID).astype(np.int8)

    def _seconds(self, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        spread = self.config.seconds_spread
        if spread == 0:
            return np.full(len(uniform), self.config.seconds)
        # The second term keeps the mean of the lognormal law where the configuration puts it.
        return self.config.seconds * np.asarray(np.exp(spread * ndtri(uniform) - spread**2 / 2), np.float64)

    def _uniforms(
        self, what: str, rows: Rows, purpose: npt.NDArray[np.int8], annotator: Rows | None = None
    ) -> npt.NDArray[np.float64]:
        """Return one number for each question, and of each annotator where one is given."""
        who = np.zeros(len(rows), np.int64) if annotator is None else annotator
        kind = who * len(PURPOSES) + purpose
        drawn = np.empty(len(rows))
        for one in np.unique(kind).tolist():
            same = kind == one
            key = (one // len(PURPOSES), PURPOSES[one % len(PURPOSES)])
            drawn[same] = uniforms(self.prediction[rows[same]], "annotators", what, self.seed, *key)
        return drawn


def _rates(config: OracleConfig, seed: int, name: str) -> npt.NDArray[np.float64]:
    """Return each annotator's error rate, float64 [K]; they differ by `bias` in log odds."""
    if config.error_rate == 0:
        return np.zeros(config.annotators)
    normal = ndtri(uniforms(np.arange(config.annotators, dtype=np.uint64), "annotators", name, seed))
    return np.asarray(expit(logit(config.error_rate) + config.bias * normal), np.float64)
