"""The default policy: learn a little, choose set and audit together by what they are worth, and audit exactly.

1. A pilot, then rounds of questions about clusters whose side of the threshold is open, and about masks near the top.
2. After each round a model of P(good) says which set would be audited now, and what that is expected to give. When more
   answers no longer make it better, learning ends.
3. The set is audited by a sequential test whose error is exact (segloop.annotation.sequential). The model learns from
   the audit. If the set passed, it is accepted, and a larger one is audited next as long as that is worth its
   questions; if it failed, a smaller share of delta is spent on another set.

The claim depends on audits alone: a bad model costs questions, not truth. What is accepted in the end is false with
probability delta at most, although a set that passes costs no delta: as long as all audited sets are what is claimed
there is no error to be made, and the first one that is not either passes, with a probability of at most its share of
delta, or fails or is given up, and the next one has another share (a fixed sequence of hypotheses, W. Maurer, L.
Hothorn and W. Lehmacher, in Biometrie in der chemisch-pharmazeutischen Industrie 6, 1995, once for each share).
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from segloop.annotation.answers import COUNTED_PURPOSES, OTHER, PURPOSES, YES, Answers
from segloop.annotation.certificates import Certificate, delta_of_iteration, sequential_certificate
from segloop.annotation.policies.base import AUDIT, DECIDE, PILOT, Decision, Judgement, Known
from segloop.annotation.policies.levels import cluster_levels
from segloop.annotation.policies.quality_model import Features, Posterior, QualityModel, dense_features, posterior
from segloop.annotation.policies.set_choice import EQUAL_WORTH, Choice, NestedSets, Setting, choose_set, worth
from segloop.annotation.sequential import follow, next_look
from segloop.annotation.verdicts import ACCEPTED, PREFIX
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.randomness import generator

Rows = npt.NDArray[np.int64]

_LARGE: Final = 20_000
"""From so many masks on there are enough answers for more components, and too many masks for many draws."""
_COMPONENTS: Final = (8, 32)
_DRAWS: Final = (400, 32)
_PILOT: Final = 20
_GROWTH, _FEWEST, _MOST = 0.25, 20, 300
"""A round of learning asks this share of the answers so far, within these limits."""
_SHARES: Final = (0.7, 0.2, 0.1)
"""Of delta, for the audits until one fails, and for those after a first and a second failure."""
_SALVAGE: Final = 0.4
"""What a rejected set is still worth to later audits, as a share of its masks."""
_GAIN, _POWER = 1.1, 0.5
"""Learning goes on while worth grows by this factor in a round, or with this power of the number of answers."""
_LAST: Final = 4
"""Rounds that are looked at for that; a lucky guess long ago is forgotten."""
_LEARNING: Final = (0.1, 0.75)
"""Shares of the budget that learning takes: at least (on a large pool, whose model has that much more to learn), and at
most."""
_FIRST_PRICE: Final = 2.0
"""Masks that a question has to bring, before anything is known."""
_TO_CLUSTERS: Final = 0.6
"""Share of a round's questions that clusters choose."""
_REACH, _REACH_WITHOUT_CLUSTERS = 2.5, 1.5
"""How far beyond the set the other questions go, in sizes of the set."""


@dataclass(frozen=True)
class Certified:
    """Accept the largest worthwhile set whose precision can be shown.

    Parameters
    ----------
    precision
        The precision to be shown.
    delta
        Probability that a claim is false.
    questions
        At most so many; None: 20 sqrt(N), after which the search for a set that can be certified ends.
    iteration
        Names the certificates.
    """

    precision: float = 0.9
    delta: float = 0.05
    questions: int | None = None
    iteration: int = 0
    _memory: "dict[str, Any]" = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        delta = delta_of_iteration(config.audit.delta, iteration)
        return cls(config.audit.precision, delta, config.questions, iteration)

    def units(self, world: World) -> Rows:
        """Return none: every question depends on all answers."""
        return np.zeros(0, np.int64)

    def step(self, world: World, answers: Answers, seed: int, units: Rows | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far (see `Policy.step`).

        Notes
        -----
        Answers are taken in their order. What was worked out from the first of them is kept, so that the next call,
        which has some more, goes on from there; any other call starts from the beginning and ends the same.
        """
        if units is not None:
            return Judgement.none(len(world)).decision(Known.none(len(world)))
        return self._run(world, answers, seed).decision()

    def ended(self, world: World, answers: Answers, seed: int) -> tuple[Decision, Rows]:
        """Return what was decided when the last audit ended, and by which rows (see `SelfAudited.ended`)."""
        run = self._run(world, answers, seed)
        return run.decision(run.used), run.used

    def _run(self, world: World, answers: Answers, seed: int) -> "_Run":
        rows = world.rows_of(answers.prediction)
        counted = np.isin(answers.purpose, [PURPOSES.index(purpose) for purpose in COUNTED_PURPOSES]) & (rows >= 0)
        rows, replies = rows[counted], answers.reply[counted]
        seen = self._memory
        taken = seen.get("taken", 0)
        same = seen.get("world") is world and seen.get("seed") == seed and taken <= len(rows)
        if not same or seen["digest"] != _digest(rows[:taken], replies[:taken]):
            seen.clear()
            seen |= {"world": world, "seed": seed, "run": _Run(self, world, seed)}
            taken = 0
        run: _Run = seen["run"]
        for row, reply in zip(rows[taken:].tolist(), replies[taken:].tolist(), strict=True):
            run.take(row, reply)
        seen |= {"taken": len(rows), "digest": _digest(rows, replies)}
        return run


def _digest(rows: Rows, replies: npt.NDArray[np.int8]) -> bytes:
    return hashlib.sha256(rows.tobytes() + replies.tobytes()).digest()


def _features(world: World) -> Features:
    few = len(world) < _LARGE
    dense = dense_features(world.score, world.embedding, _COMPONENTS[0] if few else _COMPONENTS[1])
    if world.tree is None:
        return Features(dense, np.zeros((len(world), 0), np.int32))
    return Features(dense, cluster_levels(world.tree, len(world)))


def _usual_budget(masks: int) -> int:
    return int(20 * np.sqrt(masks))


class _Run:
    """One pass through the answers, in their order: what is known, and what is being asked."""

    def __init__(self, policy: Certified, world: World, seed: int):
        self._policy, self._world, self._seed = policy, world, seed
        self._n = len(world)
        self._budget = policy.questions if policy.questions is not None else _usual_budget(self._n)
        self._known = Known.none(self._n)
        self._pending: Rows = np.zeros(0, np.int64)
        self._open: set[int] = set()
        self._purpose = PILOT
        self._asked = 0
        self._round = 0
        self._learning = _Learning()
        self._audit: _Audit | None = None
        self._certificates: list[Certificate] = []
        self._accepted: _Accepted | None = None
        self._done = False
        self.used: Rows = np.zeros(0, np.int64)
        self._features: Features | None = None
        self._model: QualityModel | None = None
        self._ask(_pilot(world, seed, self._budget), PILOT)
        self._go_on()

    def take(self, row: int, reply: int) -> None:
        """Take one answer; the last one on a mask counts from here on."""
        self._known.answered[row] = True
        self._known.reply[row] = reply
        self._open.discard(row)
        self._go_on()

    def _go_on(self) -> None:
        while not self._open and not self._done:
            if self._audit is not None:
                self._audit_step(self._audit)
            else:
                self._learn()

    def _end(self) -> None:
        self._done, self._pending = True, np.zeros(0, np.int64)
        self.used = np.flatnonzero(self._known.answered)

    def _ask(self, rows: Rows, purpose: int) -> None:
        fresh = rows[~self._known.answered[rows]]
        self._pending, self._purpose = fresh, purpose
        self._open = set(fresh.tolist())
        self._asked += len(fresh)

    def _random(self, what: str) -> np.random.Generator:
        return generator("certified", self._seed, what, self._round)

    # --- learning ---

    def _learn(self) -> None:
        """Plan with what is known; ask a further round, or begin to audit."""
        if bool(self._known.answered.all()):
            self._end()
            return
        belief = self._belief()
        choice = self._choose(belief, 0)
        learning, answers = self._learning, int(np.count_nonzero(self._usable()))
        value = 0.0 if choice is None else choice.masks**2 / (self._asked + choice.cost)
        learning.note(answers, value, choice)
        left = self._budget - self._asked
        if left <= 0 or self._learnt(answers, value):
            self._begin_audit(0, belief, choice)
            return
        count = min(int(np.clip(_GROWTH * answers, _FEWEST, _MOST)), left)
        rows = next_questions(
            self._model_features(), belief, self._known.answered, choice, count, self._levels(), self._random("ask")
        )
        if len(rows) == 0:
            self._begin_audit(0, belief, choice)
            return
        self._round += 1
        self._ask(rows, DECIDE)

    def _learnt(self, answers: int, value: float) -> bool:
        if answers > _LEARNING[1] * self._budget or (value == 0 and answers > 0.5 * self._budget):
            return True
        enough = answers >= self._least()
        flat = self._learning.worse and (not self._levels() or self._learning.growth < _POWER)
        return bool(enough and flat)

    def _least(self) -> int:
        return 0 if self._n < _LARGE else int(_LEARNING[0] * min(self._budget, _usual_budget(self._n)))

    def _usable(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self._known.answered & (self._known.reply != OTHER))

    def _model_features(self) -> Features:
        if self._features is None:
            self._features = _features(self._world)
            self._model = QualityModel(self._features)
        return self._features

    def _levels(self) -> list[int]:
        return [] if self._model is None else self._model.tuning.levels

    def _belief(self) -> Posterior:
        self._model_features()
        assert self._model is not None
        rows = np.flatnonzero(self._usable())
        fit = self._model.tune(rows, self._known.reply[rows] == YES)
        few = self._n < _LARGE
        return posterior(fit, self._random("posterior"), _DRAWS[0] if few else _DRAWS[1])

    def _choose(self, belief: Posterior, stage: int) -> Choice | None:
        return choose_set(belief, self._known.answered, self._setting(belief, stage), self._random("plan"))

    def _setting(self, belief: Posterior, stage: int) -> Setting:
        last = stage == len(_SHARES) - 1
        return Setting(
            known_good=self._confirmed(),
            asked=self._asked,
            left=self._limit() - self._asked,
            target=self._policy.precision,
            delta=self._policy.delta * _SHARES[stage],
            price=self._learning.price,
            salvage=0.0 if last else _SALVAGE,
            start=self._learning.index,
            held=self._held(belief, self._accepted_rows()),
        )

    def _limit(self) -> int:
        """Return how many questions there may be in all: once a set is accepted, as many as the next size is worth."""
        return self._budget if self._accepted is None else min(self._budget, int(EQUAL_WORTH * self._asked))

    def _confirmed(self) -> int:
        return int(np.count_nonzero(self._known.answered & (self._known.reply == YES)))

    def _accepted_rows(self) -> Rows:
        return np.zeros(0, np.int64) if self._accepted is None else self._accepted.rows

    def _held(self, belief: Posterior, rows: Rows) -> float:
        """Return how many good masks are to be expected among those of some rows that nobody answered."""
        return float(belief.probability[rows[~self._known.answered[rows]]].sum(dtype=np.float64))

    # --- audits ---

    def _begin_audit(self, stage: int, belief: Posterior, planned: Choice | None) -> None:
        """Begin the audits of a planned set and of larger ones with a share of delta; end where there are none."""
        self._audit = None
        if planned is not None and self._asked < self._budget:
            setting = self._setting(belief, stage)
            sets = NestedSets(belief, self._known.answered, setting, self._random("plan"), planned)
            first = sets.choice(0)
            if first is not None and (
                not self._certificates or self._adds_worth(belief, first.rows, first.design.passes, first.cost)
            ):
                order = generator("certified audit", self._seed, self._round).permutation(np.sort(sets.rows))
                self._audit = _Audit(stage, sets, order, first, self._limit())
                return
        self._end()

    def _audit_another(self, stage: int, belief: Posterior) -> None:
        """Turn to other sets: larger ones after a success, those that are left after a failure."""
        if stage == len(_SHARES) or self._known.answered.all():
            self._end()
            return
        planned = self._choose(belief, stage)
        if planned is not None:
            # What a question has to bring changes with what is had, and with what can be hoped for.
            self._learning.price = planned.price
        self._begin_audit(stage, belief, planned)

    def _adds_worth(self, belief: Posterior, rows: Rows, passes: float, questions: float) -> bool:
        """Whether an audit of some rows that passes with a probability after so many questions is to add worth."""
        had, more = (self._confirmed() + self._held(belief, of) for of in (self._accepted_rows(), rows))
        after = self._asked + questions
        return passes * worth(more, after) + (1 - passes) * worth(had, after) > worth(had, self._asked)

    def _audit_step(self, audit: "_Audit") -> None:
        """Look at what the audit of a set has shown; ask on, go to the next set, or turn to others."""
        answered = self._known.answered[audit.order]
        known = audit.order if answered.all() else audit.order[: answered.argmin()]
        verdict, asked, bad = follow(audit.choice.design, self._known.reply[known] != YES)
        if verdict == "ask":
            wanted = audit.order[: next_look(audit.choice.design, asked, bad)]
            missing = int(np.count_nonzero(~self._known.answered[wanted]))
            if self._asked + missing <= audit.most:
                self._ask(wanted, AUDIT)
                return
            verdict = "reject"
        self._certificates.append(self._certificate(audit, asked, bad, verdict == "accept"))
        belief = self._belief()
        if verdict == "accept":
            self._accepted = _Accepted(audit.choice.rows, len(self._certificates) - 1)
            if audit.go_on(most=self._limit()):
                if self._adds_worth(belief, audit.choice.rows, *self._outlook(audit, belief)):
                    return
                # Some of this set's answers were looked at, so that it counts as one that failed.
                verdict = "reject"
        self._round += 1
        self._audit_another(audit.stage + (verdict == "reject"), belief)

    def _outlook(self, audit: "_Audit", belief: Posterior) -> tuple[float, float]:
        """Return the probability that an audit passes, and its further questions, from draws of the missing answers."""
        design = audit.choice.design
        rows = audit.order[: design.most_questions]
        answered = self._known.answered[rows]
        good = belief.sample(rows) > self._random("outlook").random((len(rows), 1))
        good[answered] = (self._known.reply[rows[answered]] == YES)[:, None]
        ends = [follow(design, ~drawn) for drawn in good.T]
        fresh = np.concatenate([[0], np.cumsum(~answered)])
        passes = [verdict == "accept" for verdict, _, _ in ends]
        return float(np.mean(passes)), float(np.mean([fresh[asked] for _, asked, _ in ends]))

    def _certificate(self, audit: "_Audit", asked: int, bad: int, passed: bool) -> Certificate:
        return sequential_certificate(
            certificate_id=f"{self._policy.iteration}:all:{len(self._certificates)}",
            target=self._policy.precision,
            delta=self._policy.delta * _SHARES[audit.stage],
            known_good=audit.choice.design.known_good,
            unknown=audit.choice.design.unknown,
            asked=asked,
            bad=bad,
            accepted=passed,
        )

    def decision(self, rows: Rows | None = None) -> Decision:
        """Return what to ask now, and verdicts: masks that were answered, and the set that passed.

        Parameters
        ----------
        rows
            Leave aside the answers on all other rows.
        """
        known = self._known
        if rows is not None:
            answered = np.zeros(self._n, np.bool_)
            answered[rows] = True
            known = replace(known, answered=answered)
        judgement = Judgement.none(self._n)
        if self._accepted is not None:
            judgement.verdict[self._accepted.rows] = ACCEPTED
            judgement.reason[self._accepted.rows] = PREFIX
        missing = self._pending[~self._known.answered[self._pending]]
        certificate = np.full(self._n, -1, np.int16)
        decision = judgement.decision(
            known,
            question_row=missing,
            purpose=self._purpose,
            certificates=tuple(self._certificates),
            certificate=certificate,
        )
        if self._accepted is not None:
            # The claim is about the set and all masks that were answered with yes.
            certificate[decision.verdict == ACCEPTED] = self._accepted.certificate
        return decision


class _Audit:
    """Audits under way: of nested sets, from the smallest on until one fails.

    Attributes
    ----------
    order
        The present set in the order of asking, which is that of the largest one without what is not in this one.
    most
        The present audit goes on while there are at most so many questions in all.
    """

    def __init__(self, stage: int, sets: NestedSets, order: Rows, first: Choice, most: int):
        self.stage, self.most = stage, most
        self._sets, self._number, self._whole = sets, 0, order
        self._take(first)

    def _take(self, choice: Choice) -> None:
        self.choice = choice
        inside = np.zeros(self._whole.max() + 1, np.bool_)
        inside[choice.rows] = True
        self.order = self._whole[inside[self._whole]]

    def go_on(self, most: int) -> bool:
        """Turn to the next set and return true, or return false if there is none that can pass."""
        self._number += 1
        larger = self._sets.choice(self._number) if self._number < len(self._sets) else None
        if larger is not None:
            self._take(larger)
            self.most = most
        return larger is not None


@dataclass(frozen=True)
class _Accepted:
    """The set that passed last."""

    rows: Rows
    certificate: int
    """Position of what its audit showed."""


class _Learning:
    """How what could be had now grows with the answers."""

    def __init__(self) -> None:
        self.price = _FIRST_PRICE
        self.index: int | None = None
        self.worse = False
        self._course: list[tuple[int, float]] = []

    def note(self, answers: int, worth: float, choice: Choice | None) -> None:
        """Record a round."""
        before = [point[1] for point in self._course[1 - _LAST :]]
        self.worse = 0 < worth <= _GAIN * max(before, default=0.0)
        self._course.append((max(answers, 1), worth))
        if choice is not None:
            self.price, self.index = choice.price, choice.design.index

    @property
    def growth(self) -> float:
        """With which power of the number of answers worth has grown over the last rounds."""
        last = np.array([point for point in self._course[-_LAST:] if point[1] > 0])
        if len(last) < 2 or self._course[-1][1] == 0:
            return np.inf
        answers, value = np.log(last).T - np.log(last).mean(axis=0)[:, None]
        return float(answers @ value / (answers @ answers))


def _pilot(world: World, seed: int, budget: int) -> Rows:
    """Return one random mask from each of some strata of the upper half by score."""
    rows = world.by_prediction
    upper = rows[np.argsort(-world.score[rows], kind="stable")][: (len(rows) + 1) // 2]
    random = generator("certified pilot", seed)
    strata = np.array_split(upper, max(1, min(_PILOT, budget, len(upper))))
    return np.array([stratum[random.integers(len(stratum))] for stratum in strata if len(stratum)], np.int64)


def next_questions(
    features: Features,
    belief: Posterior,
    answered: npt.NDArray[np.bool_],
    choice: Choice | None,
    count: int,
    active: list[int],
    random: np.random.Generator,
) -> Rows:
    """Return what to learn from next: masks of clusters whose side is open, and masks of every rank near the top.

    Parameters
    ----------
    choice
        The set that would be audited now, None if there is none.
    count
        Questions wanted.
    active
        Levels of clusters that the model found to carry something.
    """
    open_rows = np.flatnonzero(~answered)
    if not len(open_rows):
        return open_rows
    if choice is None:
        reach = max(1, len(features) // 6)
    else:
        reach = int((_REACH if active else _REACH_WITHOUT_CLUSTERS) * len(choice.rows))
    first = np.zeros(0, np.int64)
    if active:
        threshold = 0.5 if choice is None else float(belief.probability[choice.rows[-1]])
        wanted = int(_TO_CLUSTERS * count)
        first = _from_clusters(features, belief, open_rows, active[-1], threshold, wanted, random)
    reach = min(reach, len(open_rows))
    nearest = np.argpartition(-belief.probability[open_rows], reach - 1)[:reach]
    ranked = open_rows[nearest]
    ranked = ranked[np.lexsort((ranked, -belief.probability[ranked]))]
    ranked = ranked[~np.isin(ranked, first)]
    strata = np.array_split(ranked, max(1, count - len(first)))
    drawn = [stratum[random.integers(len(stratum))] for stratum in strata if len(stratum)]
    return np.concatenate([first, np.array(drawn, np.int64)])


def _from_clusters(
    features: Features,
    belief: Posterior,
    rows: Rows,
    level: int,
    threshold: float,
    count: int,
    random: np.random.Generator,
) -> Rows:
    """Return members of the clusters whose present side of the threshold is the costliest mistake, two each at most."""
    label = features.levels[rows, level]
    clusters = len(features.sizes[level])
    unanswered = np.bincount(label, minlength=clusters)
    mean = np.bincount(label, belief.probability[rows], minlength=clusters) / np.maximum(unanswered, 1)
    variance = np.bincount(label, belief.variance[rows], minlength=clusters) / np.maximum(unanswered, 1)
    regret = unanswered * _regret(mean, variance, threshold, random)
    taken = np.zeros(clusters, np.int64)
    left = count
    for _ in range(2):
        best = np.argsort(-regret / (1 + taken) ** 1.5, kind="stable")[: min((count + 1) // 2, left)]
        best = best[unanswered[best] > taken[best]]
        taken[best] += 1
        left -= len(best)
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(clusters))
    drawn = [
        rows[order[starts[cluster] + random.choice(unanswered[cluster], taken[cluster], replace=False)]]
        for cluster in np.flatnonzero(taken).tolist()
    ]
    return np.concatenate([np.zeros(0, np.int64), *drawn])


def _regret(
    mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64], threshold: float, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return how much a mask of a cluster is expected to lose if the cluster stays on its side of the threshold."""
    center = logit(np.clip(mean, 1e-3, 1 - 1e-3)) * np.sqrt(1 + np.pi / 8 * variance)
    q = expit(center + np.sqrt(variance) * random.standard_normal((16, 1)))
    missed, wasted = np.maximum(q - threshold, 0).mean(axis=0), np.maximum(threshold - q, 0).mean(axis=0)
    return np.asarray(np.where(mean < threshold, missed, wasted))
