"""A prefix by score and one audit of it: what can be had without clusters and embeddings.

The baseline that a policy must beat where the score carries much and masks are few.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import OTHER, YES, Answers
from segloop.annotation.certificates import delta_of_iteration, sequential_certificate
from segloop.annotation.policies.base import AUDIT, PILOT, Decision, Judgement, Known, known_answers
from segloop.annotation.policies.quality_model import Features, QualityModel, dense_features, posterior
from segloop.annotation.policies.set_choice import Choice, Setting, choose_set
from segloop.annotation.sequential import Design, Outcome, follow, next_look
from segloop.annotation.verdicts import ACCEPTED, PREFIX
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.randomness import generator

Rows = npt.NDArray[np.int64]

_PILOT: Final = 60
_DRAWS: Final = 100
_FIRST_PRICE: Final = 2.0
"""Masks that a question has to bring, before anything is known."""
_PRICES: Final = 3
"""Plans that are made, each with the price that the one before promises; only the last one is carried out."""
_UNLIMITED: Final = 1 << 30


@dataclass(frozen=True)
class ScoreAudit:
    """Learn from a pilot how good masks of each score are, choose a prefix and its audit, accept it if it passes.

    1. Pilot: one random mask from each of some equal strata of the upper half by score.
    2. Plan: a Bayesian logistic regression on the score and its rank says how many masks of each prefix may be bad. Of
       all prefixes and sequential audits the one is taken that promises most (segloop.annotation.policies.set_choice).
    3. Audit: fresh masks of the prefix in a random order, until the audit ends. If it passes, the prefix is accepted
       without its known bad masks; if not, only masks that were answered with yes are. There is no second audit.

    The plan depends on the pilot's answers alone, and the claim on the audit's.

    Parameters
    ----------
    precision
        The precision to be shown.
    delta
        Probability that the claim is false.
    questions
        At most this many in all; None: as many as the longest audit takes.
    iteration
        Names the certificate.
    pilot
        Questions of the pilot, at most half of all.
    """

    precision: float = 0.9
    delta: float = 0.05
    questions: int | None = None
    iteration: int = 0
    pilot: int = _PILOT
    _memory: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        delta = delta_of_iteration(config.audit.delta, iteration)
        return cls(config.audit.precision, delta, config.questions, iteration)

    def units(self, world: World) -> Rows:
        """Return none: the audit depends on the whole pilot."""
        return np.zeros(0, np.int64)

    def step(self, world: World, answers: Answers, seed: int, units: Rows | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far (see `Policy.step`)."""
        if units is not None:
            return Judgement.none(len(world)).decision(Known.none(len(world)))
        known = known_answers(world, answers)
        pilot = self._pilot_rows(world, seed)
        if not known.answered[pilot].all():
            return _asking(Judgement.none(len(world)), known, pilot, PILOT)
        choice = self._plan(world, seed, pilot, known.reply[pilot])
        if choice is None:
            return Judgement.none(len(world)).decision(known)
        return self._audit(world, seed, known, pilot, choice)

    def ended(self, world: World, answers: Answers, seed: int) -> tuple[Decision, Rows]:
        """Return what the pilot and the audit led to, and their rows (see `SelfAudited.ended`)."""
        known, used = known_answers(world, answers), self._pilot_rows(world, seed)
        choice = self._plan(world, seed, used, known.reply[used])
        if choice is not None:
            order = self._order(world, seed, choice)
            _, asked, _ = _followed(choice.design, known, order)
            used = np.concatenate([used, order[:asked]])
        own = np.isin(world.rows_of(answers.prediction), used)
        return self.step(world, answers.select(own), seed), used

    def _pilot_rows(self, world: World, seed: int) -> Rows:
        memory = self._memory
        if memory.get("world") is not world or memory["seed"] != seed:
            memory.clear()
            memory |= {"world": world, "seed": seed, "pilot": self._draw_pilot(world, seed)}
        pilot: Rows = memory["pilot"]
        return pilot

    def _draw_pilot(self, world: World, seed: int) -> Rows:
        rows = world.by_prediction
        upper = rows[np.argsort(-world.score[rows], kind="stable")][: (len(rows) + 1) // 2]
        most = self.pilot if self.questions is None else min(self.pilot, (self.questions + 1) // 2)
        strata = [stratum for stratum in np.array_split(upper, max(1, most)) if len(stratum)]
        random = generator("score_audit", "pilot", seed)
        return np.array([stratum[random.integers(len(stratum))] for stratum in strata], np.int64)

    def _plan(self, world: World, seed: int, pilot: Rows, replies: npt.NDArray[np.int8]) -> Choice | None:
        """Return the prefix and its audit; a function of the pilot alone, remembered while that does not change."""
        memory = self._memory
        if memory.get("replies") != replies.tobytes():
            memory |= {"replies": replies.tobytes(), "choice": self._choose(world, seed, pilot, replies)}
        choice: Choice | None = memory["choice"]
        return choice

    def _choose(self, world: World, seed: int, pilot: Rows, replies: npt.NDArray[np.int8]) -> Choice | None:
        if not len(pilot):
            return None
        order = np.argsort(pilot)
        rows, replies = pilot[order], replies[order]
        usable = replies != OTHER
        dense = dense_features(world.score, None, 0)
        model = QualityModel(Features(dense, np.zeros((len(world), 0), np.int32)))
        fit = model.fit(rows[usable], replies[usable] == YES, model.tuning)
        belief = posterior(fit, generator("score_audit", "posterior", seed), _DRAWS, calibrated=False)
        answered = np.zeros(len(world), np.bool_)
        answered[pilot] = True
        choice: Choice | None = None
        for number in range(_PRICES):
            setting = self._setting(replies, choice)
            random = generator("score_audit", "plan", seed)
            choice = choose_set(belief, answered, setting, random, exact=number == _PRICES - 1)
            if choice is None:
                return None
        return choice

    def _setting(self, replies: npt.NDArray[np.int8], before: Choice | None) -> Setting:
        return Setting(
            known_good=int(np.count_nonzero(replies == YES)),
            asked=len(replies),
            left=_UNLIMITED if self.questions is None else self.questions - len(replies),
            target=self.precision,
            delta=self.delta,
            price=_FIRST_PRICE if before is None else before.price,
            salvage=0.0,
            start=None if before is None else before.design.index,
        )

    def _audit(self, world: World, seed: int, known: Known, pilot: Rows, choice: Choice) -> Decision:
        """Return the next questions of the audit, or what it has shown."""
        design, order = choice.design, self._order(world, seed, choice)
        outcome, asked, bad = _followed(design, known, order)
        judgement = Judgement.none(len(world))
        if outcome == "ask":
            return _asking(judgement, known, order[: next_look(design, asked, bad)], AUDIT)
        certificate = sequential_certificate(
            certificate_id=f"{self.iteration}:all",
            target=self.precision,
            delta=self.delta,
            known_good=design.known_good,
            unknown=design.unknown,
            asked=asked,
            bad=bad,
            accepted=outcome == "accept",
        )
        place = np.full(len(world), -1, np.int16)
        if certificate.passed:
            judgement.verdict[choice.rows], judgement.reason[choice.rows] = ACCEPTED, PREFIX
            place[choice.rows] = place[pilot] = 0
        decision = judgement.decision(known, certificates=(certificate,), certificate=place)
        place[decision.verdict != ACCEPTED] = -1
        return decision

    def _order(self, world: World, seed: int, choice: Choice) -> Rows:
        """Return the masks of the prefix in the order in which they are asked."""
        prefix = choice.rows[np.argsort(world.prediction[choice.rows])]
        return generator("score_audit", "audit", seed).permutation(prefix)[: choice.design.most_questions]


def _followed(design: Design, known: Known, order: Rows) -> tuple[Outcome, int, int]:
    """Return how the audit stands, and its questions and bad masks up to there."""
    open_questions = ~known.answered[order]
    first_open = int(open_questions.argmax()) if open_questions.any() else len(order)
    # Answers behind an open question wait for it: the audit is about the order of the draw.
    return follow(design, known.reply[order[:first_open]] != YES)


def _asking(judgement: Judgement, known: Known, order: Rows, purpose: int) -> Decision:
    """Return the decision to ask what has no answer yet; draws are numbered by their place in the order."""
    draw = np.flatnonzero(~known.answered[order])
    decision = judgement.decision(known, question_row=order[draw], purpose=purpose)
    return replace(decision, question_draw=draw.astype(np.int64))
