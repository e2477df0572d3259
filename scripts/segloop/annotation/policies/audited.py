"""An audit after a policy: fresh questions about what it accepted, and a certificate, by category if wanted."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import YES, Answers
from segloop.annotation.certificates import Certificate, delta_of_iteration, fixed_certificate
from segloop.annotation.policies.base import (
    AUDIT,
    OUTSIDE,
    Decision,
    Known,
    Policy,
    SelfAudited,
    known_answers,
    override_by_answers,
)
from segloop.annotation.verdicts import ACCEPTED, NO_REASON, UNDECIDED
from segloop.annotation.world import World
from segloop.config import AuditConfig
from segloop.randomness import generator

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Audited:
    """Let a policy decide, then ask about a random sample of the masks that it accepted without an answer.

    The policy never sees what the audit was told, so that audited masks say something about the rest. What is claimed
    is precision_lower(...) of the accepted set after its known bad masks were dropped; only `yes` counts as good.

    Parameters
    ----------
    inner
        The policy that decides.
    audit
        `questions` (at least 1) are asked in all, in a fixed random order. With `categories` = K the K largest
        categories of the accepted set are audited each by itself, the others together; they share delta equally and
        the questions in proportion to the square root of their unanswered masks. With `enforce` the masks that nobody
        answered stay undecided where the target precision was not shown. A policy that audited itself keeps the claim
        that it made about everything, and that of a category stands beside it; with `enforce` those of the categories
        take its place.
    iteration
        Decides what may be spent of delta, and names the certificates.
    """

    inner: Policy
    audit: AuditConfig
    iteration: int = 0

    def units(self, world: World) -> Rows:
        """Return the units of the policy that decides."""
        return self.inner.units(world)

    def step(self, world: World, answers: Answers, seed: int, units: Rows | None = None) -> Decision:
        """Return the policy's questions while it has some, then those of the audit (see `Policy.step`)."""
        decision, seen = self._decide(world, answers, seed, units)
        known = known_answers(world, answers)
        if units is not None:
            return _judged(decision, known)
        before = known_answers(world, seen)
        unanswered = (decision.verdict == ACCEPTED) & ~before.answered
        if not decision.done:
            return _judged(decision, known, dropped=unanswered & self.audit.enforce)
        sets = self._sets(world, decision, before, known)
        return self._audited(decision, known, unanswered, _sampled(world, sets, self.audit.questions, seed))

    def _decide(self, world: World, answers: Answers, seed: int, units: Rows | None) -> tuple[Decision, Answers]:
        """Return what the policy makes of the answers that are not the audit's, and these answers.

        A mask that the policy itself wants to ask about is none that it accepted unasked: should an answer of the audit
        on it be there already, the policy gets it.
        """
        rows = world.rows_of(answers.prediction)
        hidden = answers.purpose == AUDIT
        if isinstance(self.inner, SelfAudited):
            decision = self.inner.step(world, answers, seed, units)
            if units is not None or not decision.done:
                return decision, answers
            decision, used = self.inner.ended(world, answers, seed)
            return decision, answers.select(~hidden | np.isin(rows, used))
        while True:
            seen = answers.select(~hidden)
            decision = self.inner.step(world, seen, seed, units)
            wanted = hidden & np.isin(rows, decision.question_row)
            if not wanted.any():
                return decision, seen
            hidden &= ~wanted

    def _sets(self, world: World, decision: Decision, before: Known, known: Known) -> "list[_Set]":
        """Return what is audited by itself; nothing where nothing was accepted."""
        accepted = np.flatnonzero(decision.verdict == ACCEPTED)
        # A mask that was answered twice and turned out bad is out before the audit begins.
        accepted = accepted[~before.answered[accepted] | (known.reply[accepted] == YES)]
        kinds, place, count = np.unique(world.category[accepted], return_inverse=True, return_counts=True)
        largest = np.lexsort((kinds, -count))[: self.audit.categories]
        parts: list[tuple[str, int | None, Rows]] = [
            (f"category={kinds[kind]}", int(kinds[kind]), accepted[place == kind]) for kind in largest.tolist()
        ]
        rest = accepted[~np.isin(place, largest)]
        parts += [("rest" if parts else "all", None, rest)] if len(rest) else []
        delta = delta_of_iteration(self.audit.delta, self.iteration) / max(1, len(parts))
        return [
            _Set(f"{self.iteration}:{name}", category, delta, rows[~before.answered[rows]], rows[before.answered[rows]])
            for name, category, rows in parts
        ]

    def _audited(self, decision: Decision, known: Known, unanswered: Flags, sets: "list[_Sampled]") -> Decision:
        """Return the audit's questions, or the certificates of the sets whose questions were all answered."""
        missing = [sampled.sample[~known.answered[sampled.sample]] for sampled in sets]
        # What a policy showed of everything it accepted remains true unless some of that is dropped.
        whole = isinstance(self.inner, SelfAudited) and not self.audit.enforce
        place = decision.certificate.copy() if whole else np.full(len(known.answered), -1, np.int16)
        dropped = unanswered.copy() if self.audit.enforce else np.zeros(len(unanswered), np.bool_)
        certificates: list[Certificate] = list(decision.certificates)
        for sampled, left in zip(sets, missing, strict=True):
            if len(left):
                continue
            certificate = sampled.certificate(known, self.audit.precision)
            if certificate.passed or not self.audit.enforce:
                dropped[sampled.of.unknown] = False
            if (certificate.passed or not self.audit.enforce) and not whole:
                place[sampled.of.unknown] = place[sampled.of.known_good] = len(certificates)
            certificates.append(certificate)
        judged = _judged(decision, known, dropped)
        place[judged.verdict != ACCEPTED] = -1
        judged = replace(judged, certificates=tuple(certificates), certificate=place)
        return _asking(judged, sets, known)


@dataclass(frozen=True)
class _Set:
    """What one audit is about.

    Attributes
    ----------
    unknown, known_good : int64
        Rows that were accepted without an answer, and those that were answered with yes before.
    """

    certificate_id: str
    category: int | None
    delta: float
    unknown: Rows
    known_good: Rows


@dataclass(frozen=True)
class _Sampled:
    """A set and the rows that are asked about it, in their order."""

    of: _Set
    sample: Rows

    def certificate(self, known: Known, target: float) -> Certificate:
        """Return what the answers show; all of them are known."""
        return fixed_certificate(
            certificate_id=self.of.certificate_id,
            category=self.of.category,
            target=target,
            delta=self.of.delta,
            known_good=len(self.of.known_good),
            unknown=len(self.of.unknown),
            asked=len(self.sample),
            bad=int(np.count_nonzero(known.reply[self.sample] != YES)),
        )


def _sampled(world: World, sets: list[_Set], questions: int, seed: int) -> list[_Sampled]:
    """Draw from each set uniformly without replacement."""
    shares = share_questions(questions, np.array([len(one.unknown) for one in sets], np.int64))
    # One number a prediction: who else is in the set does not change the order.
    key = np.empty(len(world))
    key[world.by_prediction] = generator("audit", seed).random(len(world))
    return [
        _Sampled(one, one.unknown[np.argsort(key[one.unknown], kind="stable")[:share]])
        for one, share in zip(sets, shares.tolist(), strict=True)
    ]


def share_questions(questions: int, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Share questions among sets in proportion to the square root of their sizes.

    A set gets at least one, so that there may be more in all, and at most its size; what it cannot use goes to others.

    Parameters
    ----------
    sizes : int64 [S]
        Masks that can be asked about.

    Returns
    -------
    int64 [S]
    """
    shares = np.zeros(len(sizes), np.int64)
    open_sets = sizes > 0
    while open_sets.any():
        left = max(0, questions - int(shares.sum()))
        wanted = left * np.sqrt(sizes) * open_sets / np.sqrt(sizes[open_sets]).sum()
        full = open_sets & (wanted >= sizes)
        if not full.any():
            shares[open_sets] = np.maximum(1, _whole(wanted[open_sets], left))
            break
        shares[full] = sizes[full]
        open_sets &= ~full
    return shares


def _whole(wanted: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Round to whole numbers with a given sum, up where most is lost."""
    whole = np.floor(wanted).astype(np.int64)
    most_lost = np.argsort(whole - wanted, kind="stable")
    whole[most_lost[: total - int(whole.sum())]] += 1
    return whole


def _judged(decision: Decision, known: Known, dropped: Flags | None = None) -> Decision:
    """Return a decision without some of the verdicts, and with every answer above them."""
    verdict, reason, node = decision.verdict.copy(), decision.reason.copy(), decision.node.copy()
    if dropped is not None:
        verdict[dropped], reason[dropped], node[dropped] = UNDECIDED, NO_REASON, -1
    override_by_answers(known, verdict, reason, node)
    return replace(decision, verdict=verdict, reason=reason, node=node)


def _asking(decision: Decision, sets: list[_Sampled], known: Known) -> Decision:
    """Return the decision with the questions of the audit that have no answer yet."""
    order = np.concatenate([np.zeros(0, np.int64), *(sampled.sample for sampled in sets)])
    draw = np.flatnonzero(~known.answered[order])
    return replace(
        decision,
        question_row=order[draw],
        question_node=np.full(len(draw), -1, np.int64),
        question_draw=draw.astype(np.int64),
        question_purpose=np.full(len(draw), AUDIT, np.int8),
        waiting=np.full(min(1, len(draw)), OUTSIDE, np.int64),
    )
