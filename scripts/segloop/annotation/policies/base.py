"""What every policy offers and returns."""

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import COUNTED_PURPOSES, OTHER, PURPOSES, Answers
from segloop.annotation.certificates import Certificate
from segloop.annotation.verdicts import ANSWERED, NO_REASON
from segloop.annotation.world import World

DECIDE: Final = PURPOSES.index("decide")
PILOT: Final = PURPOSES.index("pilot")
AUDIT: Final = PURPOSES.index("audit")

OUTSIDE: Final = -1
"""The unit of the predictions that are asked one by one, outside any node."""


@dataclass(frozen=True)
class Decision:
    """What a policy makes of the answers so far.

    Attributes
    ----------
    question_row, question_node, question_draw : int64 [Q]
        What to ask now: the row, the node that asks (-1: none) and the number of the draw in that node.
    question_purpose : int8 [Q]
        What it is asked for, a position in `PURPOSES`.
    waiting : int64 [K]
        Units that cannot be decided before these questions are answered (nodes, or `OUTSIDE`). Another step that
        starts at them, and nowhere else, goes on where this one stopped.
    verdict, reason : int8 [N]
        `ACCEPTED`, `REJECTED` or `UNDECIDED` a row, and the position in `REASONS`.
    node : int64 [N]
        The node that gave the verdict, -1 for none.
    counted_node, counted_row : int64 [C]
        Pairs: the node's decision counted the answer on this row.
    certificates
        What audits have shown so far, whether or not they reached their target.
    certificate : int16 [N]
        The position in `certificates` of the set that a row was accepted with, -1 for none.
    """

    question_row: npt.NDArray[np.int64]
    question_node: npt.NDArray[np.int64]
    question_draw: npt.NDArray[np.int64]
    question_purpose: npt.NDArray[np.int8]
    waiting: npt.NDArray[np.int64]
    verdict: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int8]
    node: npt.NDArray[np.int64]
    counted_node: npt.NDArray[np.int64]
    counted_row: npt.NDArray[np.int64]
    certificates: tuple[Certificate, ...]
    certificate: npt.NDArray[np.int16]

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask."""
        return len(self.question_row) == 0


class Policy(Protocol):
    """Decides which question comes next and what is accepted.

    A policy is a pure function of the world, the answers so far and the seed: a killed run, a new round and a replay
    are the same call. It never asks about a mask whose answer is known.
    """

    def units(self, world: World) -> npt.NDArray[np.int64]:
        """Return the units that can be worked on independently: start nodes, and `OUTSIDE`; their order is fixed.

        A policy whose every question depends on all answers returns none. What remains when all units are decided,
        such as an audit, is asked by steps with `units=None`.
        """

    def step(self, world: World, answers: Answers, seed: int, units: npt.NDArray[np.int64] | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far.

        Parameters
        ----------
        answers
            Everything known. Answers on predictions that the world does not hold are left aside.
        seed
            Draws depend on it and on what is drawn, not on who draws.
        units
            Work on these only (start nodes, or nodes a step was `waiting` for), and leave aside what concerns all of
            them together; None: on everything.
        """


@runtime_checkable
class SelfAudited(Policy, Protocol):
    """A policy that audits what it accepts before it ends."""

    def ended(self, world: World, answers: Answers, seed: int) -> tuple[Decision, npt.NDArray[np.int64]]:
        """Return what it decided when its last audit ended, and the rows whose answers it had used by then, [U].

        Only for answers after which `step` asks nothing. Those on other rows came later: they say something fresh about
        what it accepted.
        """


@dataclass(frozen=True)
class Known:
    """The last answer on each row.

    Attributes
    ----------
    answered : bool [N]
    reply : int8 [N]
        `YES`, `NO` or `OTHER`; meaningless where nothing is known.
    node : int64 [N]
        The node that asked, -1 for none.
    """

    answered: npt.NDArray[np.bool_]
    reply: npt.NDArray[np.int8]
    node: npt.NDArray[np.int64]

    @staticmethod
    def none(count: int) -> "Known":
        """Return that nothing is known of so many rows."""
        return Known(np.zeros(count, np.bool_), np.zeros(count, np.int8), np.full(count, -1, np.int64))


def known_answers(world: World, answers: Answers) -> Known:
    """Return what is known of each row: the last answer wins, and answers that measure annotators do not count."""
    rows = world.rows_of(answers.prediction)
    counts = np.isin(answers.purpose, [PURPOSES.index(purpose) for purpose in COUNTED_PURPOSES]) & (rows >= 0)
    rows = rows[counts]
    known = Known.none(len(world))
    # Of several answers on a row the last one counts; numpy leaves open which of several assignments wins.
    kept, last = np.unique(rows[::-1], return_index=True)
    chosen = np.flatnonzero(counts)[len(rows) - 1 - last]
    known.answered[kept] = True
    known.reply[kept] = answers.reply[chosen]
    known.node[kept] = answers.node[chosen]
    return known


def override_by_answers(
    known: Known,
    verdict: npt.NDArray[np.int8],
    reason: npt.NDArray[np.int8],
    node: npt.NDArray[np.int64],
) -> None:
    """Let what is known of a mask stand above what was decided for its cluster, in place.

    A mask that an annotator called "not part of this cluster" stays undecided.
    """
    rows = known.answered
    verdict[rows] = known.reply[rows]
    reason[rows] = np.where(known.reply[rows] == OTHER, NO_REASON, ANSWERED)
    node[rows] = known.node[rows]


@dataclass
class Judgement:
    """Verdicts while a policy makes them, one row each; see `Decision`."""

    verdict: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int8]
    node: npt.NDArray[np.int64]

    @staticmethod
    def none(count: int) -> "Judgement":
        """Return a judgement that leaves everything undecided."""
        return Judgement(np.zeros(count, np.int8), np.zeros(count, np.int8), np.full(count, -1, np.int64))

    def decision(
        self,
        known: Known,
        *,
        question_row: npt.NDArray[np.int64] | None = None,
        purpose: int = DECIDE,
        certificates: tuple[Certificate, ...] = (),
        certificate: npt.NDArray[np.int16] | None = None,
    ) -> Decision:
        """Return the decision of a policy that asks outside any node; answers override verdicts.

        Parameters
        ----------
        question_row
            What to ask now, in the order of asking.
        """
        override_by_answers(known, self.verdict, self.reason, self.node)
        nothing = np.zeros(0, np.int64)
        rows = nothing if question_row is None else np.asarray(question_row, np.int64)
        return Decision(
            question_row=rows,
            question_node=np.full(len(rows), -1, np.int64),
            question_draw=np.arange(len(rows), dtype=np.int64),
            question_purpose=np.full(len(rows), purpose, np.int8),
            waiting=np.full(min(1, len(rows)), OUTSIDE, np.int64),
            verdict=self.verdict,
            reason=self.reason,
            node=self.node,
            counted_node=nothing,
            counted_row=nothing,
            certificates=certificates,
            certificate=np.full(len(self.verdict), -1, np.int16) if certificate is None else certificate,
        )
