"""A policy replayed on a world whose truth is known: what it cost, what it brought, and how both grew."""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segloop.annotation.annotators import Annotators
from segloop.annotation.answers import YES
from segloop.annotation.certificates import Certificate, delta_of_iteration
from segloop.annotation.driver import Asked, ask_the_rest, ask_until_done
from segloop.annotation.policies import Decision, make_policy
from segloop.annotation.quality import GOLD_SHARE, claimed_precision, gold_bound, majority
from segloop.annotation.recorded import policy_seed
from segloop.annotation.verdicts import ACCEPTED, NO_REASON
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.simulation.worlds import KnownWorld

Rows = npt.NDArray[np.int64]

ITERATION: Final = 0
"""A replay stands outside any loop: its audits may spend the whole delta."""
_NOT_SETTINGS: Final = ("annotator", "answers_root", "policy", "probability_file", "workers")


@dataclass(frozen=True)
class Curve:
    """What would be accepted if a run ended here, after each of P numbers of questions.

    Attributes
    ----------
    questions : int64 [P]
        Never falls.
    accepted, correct, confirmed : int64 [P]
        Accepted masks; those of them that are good; those of them that were answered with yes.
    """

    questions: Rows
    accepted: Rows
    correct: Rows
    confirmed: Rows

    def __len__(self) -> int:
        return len(self.questions)

    def thinned(self, a_decade: int = 24) -> "Curve":
        """Return the last point of each of some equal steps a decade: what a logarithmic axis can show."""
        cell = np.floor(a_decade * np.log10(np.maximum(self.questions, 0.5)))
        kept = np.append(cell[1:] != cell[:-1], True)
        return Curve(*(getattr(self, name)[kept] for name in ("questions", "accepted", "correct", "confirmed")))


@dataclass(frozen=True)
class Result:
    """The outcome of one replay.

    Attributes
    ----------
    world, n
        Name of the world and its number of predictions.
    seed
        Of the questions.
    policy, settings
        The policy, and those of its settings that are not the defaults.
    questions
        Every answer, whatever it was asked for: each vote, gold questions and repeats among them.
    accepted, correct, confirmed
        Accepted masks; those of them that are good; those of them that were answered with yes.
    good
        Good masks of the world.
    certified
        The precision that audits have shown for the whole accepted set, less what the annotators' errors take from it;
        None where they have not.
    certified_count
        Accepted masks that a passed audit speaks for.
    seconds
        Time of all answers.
    slowest
        Seconds of the longest decision.
    """

    world: str
    n: int
    seed: int
    policy: str
    settings: dict[str, Any]
    questions: int
    accepted: int
    correct: int
    confirmed: int
    good: int
    certified: float | None
    certified_count: int
    seconds: float
    slowest: float
    curve: Curve = field(repr=False)

    @property
    def masks_per_question(self) -> float | None:
        """Good accepted masks for each answer; None where nobody was asked."""
        return self.correct / self.questions if self.questions else None

    @property
    def precision(self) -> float | None:
        """Share of good ones among the accepted masks; None where none was accepted."""
        return self.correct / self.accepted if self.accepted else None

    @property
    def recall(self) -> float | None:
        """Share of the good masks that was accepted; None where there are none."""
        return self.correct / self.good if self.good else None

    @property
    def answered_throughout(self) -> bool:
        """Whether every accepted mask was answered with yes, so that nothing has to be certified."""
        return self.confirmed == self.accepted

    def record(self) -> dict[str, Any]:
        """Return the record of this run, plain values for JSON; what is not known is None."""
        return {
            "world": self.world,
            "n": self.n,
            "seed": self.seed,
            "policy": self.policy,
            "questions": self.questions,
            "masks_per_question": self.masks_per_question,
            "precision": self.precision,
            "recall": self.recall,
            "certified": self.certified,
        }


def settings_of(config: AnnotationConfig) -> dict[str, Any]:
    """Return the settings of a policy that are not the defaults, nested keys joined by dots."""
    return _differences(config.model_dump(mode="json"), AnnotationConfig().model_dump(mode="json"))


def _differences(given: dict[str, Any], default: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        known = default.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            found |= _differences(value, known, f"{prefix}{key}.")
        elif prefix + key not in _NOT_SETTINGS and value != known:
            found[prefix + key] = value
    return found


def simulate(known: KnownWorld, config: AnnotationConfig, seed: int) -> Result:
    """Replay a policy; equal arguments give equal results but for `slowest`.

    Parameters
    ----------
    config
        Names the policy, holds its settings, and says who answers: by default somebody who knows the truth.
    seed
        Of everything that the policy and those who answer draw.

    Raises
    ------
    SegloopError
        If the policy needs something that the world does not have.
    """
    world, key = _seen_by(config.policy, known), policy_seed(seed, ITERATION)
    people = Annotators.of(config, seed, world.prediction, known.good)
    course, policy = _Course(people), make_policy(config, ITERATION)
    asked = ask_until_done(policy, world, key, course.answer, policy.units(world), course.decided_in_part)
    asked, decision = ask_the_rest(policy, world, key, course.answer, asked, course.decided)
    accepted, answered = decision.verdict == ACCEPTED, np.zeros(len(world), np.bool_)
    answered[asked.row] = True
    shown, certified_count = certified_precision(decision, answered)
    measured = _measured(people, asked, config)
    certified = None if shown is None else claimed_precision(shown, measured.false_yes)
    return Result(
        world=known.name,
        n=len(world),
        seed=seed,
        policy=config.policy,
        settings=settings_of(config),
        questions=course.asked + measured.answers,
        accepted=int(accepted.sum()),
        correct=int((accepted & known.good).sum()),
        confirmed=int((accepted & answered).sum()),
        good=int(known.good.sum()),
        certified=certified or None,
        certified_count=certified_count,
        seconds=course.seconds + measured.seconds,
        slowest=course.slowest,
        curve=course.curve().thinned(),
    )


@dataclass(frozen=True)
class _Measured:
    """Questions that measure those who answer."""

    answers: int
    seconds: float
    false_yes: float
    """At most this share of the bad masks is answered with yes; 0 where nobody was measured."""


def _measured(people: Annotators, asked: Asked, config: AnnotationConfig) -> _Measured:
    """Ask gold questions and repeats, as many as the configuration wants beside those that were asked."""
    parts, false_yes = [], 0.0
    if config.gold is not None:
        rows, given = people.gold(len(asked.row) // config.gold, ITERATION)
        bad = ~people.truth[rows]
        wrong = bad & (majority(given.question, given.reply, len(rows)) == YES)
        if len(rows):
            delta = GOLD_SHARE * delta_of_iteration(config.audit.delta, ITERATION)
            false_yes = gold_bound(int(bad.sum()), int(wrong.sum()), delta).upper
        parts.append(given)
    if config.repeats is not None:
        before = people.ask(asked.row, asked.purpose)
        parts.append(people.repeats(asked.row, before, len(asked.row) // config.repeats, ITERATION)[1])
    return _Measured(sum(len(one) for one in parts), float(sum(one.seconds.sum() for one in parts)), false_yes)


def _seen_by(policy: str, known: KnownWorld) -> World:
    """Return the world with the probabilities that the policy reads, if there are any."""
    probability = known.probability.get(policy)
    return known.world if probability is None else replace(known.world, probability=probability)


def certified_precision(decision: Decision, answered: npt.NDArray[np.bool_]) -> tuple[float | None, int]:
    """Return the precision shown for the whole accepted set, None if it was not, and the masks that audits speak for.

    The whole set is shown only where every accepted mask that nobody answered lies in a set whose audit passed. Of
    several such sets, the bounds are averaged by size: they hold together, because they share delta.

    Parameters
    ----------
    answered : bool [N]
        Rows with an answer.
    """
    accepted = decision.verdict == ACCEPTED
    passed = np.array([one.passed for one in decision.certificates] + [False])
    # Place -1, "none", is the False at the end.
    shown = accepted & passed[decision.certificate]
    used: list[Certificate] = [
        decision.certificates[place] for place in np.unique(decision.certificate[shown]).tolist()
    ]
    if not used or bool((accepted & ~answered & ~shown).any()):
        return None, int(shown.sum())
    mean = sum(one.lower * one.size for one in used) / max(1, sum(one.size for one in used))
    # Rounding must not bring a bound below all of those it was made of.
    return max(mean, min(one.lower for one in used)), int(shown.sum())


class _Course:
    """Passes questions on to those who answer, and writes down after each what would be accepted.

    Between two decisions of a policy an answer changes the verdict of its own mask alone, as answers override verdicts.
    """

    def __init__(self, people: Annotators):
        self._people, self._good = people, people.truth
        self._accepted = np.zeros(len(self._good), np.bool_)
        self._answered = np.zeros(len(self._good), np.bool_)
        self._purpose = np.zeros(0, np.int8)
        self._points: list[npt.NDArray[np.int64]] = []
        self._clock = time.perf_counter()
        self.asked = 0
        self.seconds = 0.0
        self.slowest = 0.0

    def decided_in_part(self, decision: Decision) -> None:
        """Take a decision about some units; what it says nothing of stays as it was."""
        told = decision.reason != NO_REASON
        self._take(decision, np.where(told, decision.verdict == ACCEPTED, self._accepted))

    def decided(self, decision: Decision) -> None:
        """Take a decision about everything."""
        self._take(decision, decision.verdict == ACCEPTED)

    def _take(self, decision: Decision, accepted: npt.NDArray[np.bool_]) -> None:
        self.slowest = max(self.slowest, time.perf_counter() - self._clock)
        self._accepted, self._purpose = accepted, decision.question_purpose
        self._points.append(np.array([[self.asked, *self._counts()]], np.int64))
        self._clock = time.perf_counter()

    def _counts(self) -> tuple[int, int, int]:
        confirmed = self._accepted & self._answered
        return int(self._accepted.sum()), int((self._accepted & self._good).sum()), int(confirmed.sum())

    def answer(self, rows: Rows) -> npt.NDArray[np.int8]:
        """Return the reply to each question of the decision that was taken last."""
        given = self._people.ask(rows, self._purpose)
        reply = majority(given.question, given.reply, len(rows))
        yes, votes = reply == YES, np.bincount(given.question, minlength=len(rows))
        change = yes.astype(np.int64) - self._accepted[rows]
        steps = np.stack([votes, change, change * self._good[rows], yes], axis=1).astype(np.int64)
        self._points.append(np.array([self.asked, *self._counts()]) + np.cumsum(steps, axis=0))
        self._accepted[rows], self._answered[rows] = yes, True
        self.asked += len(given)
        self.seconds += float(given.seconds.sum())
        self._clock = time.perf_counter()
        return reply

    def curve(self) -> Curve:
        """Return what was written down, one point a question and one a decision."""
        points = np.concatenate(self._points)
        return Curve(points[:, 0], points[:, 1], points[:, 2], points[:, 3])
