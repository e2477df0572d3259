"""Every mask is asked by itself: the cost that all other policies are measured against."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import Answers
from segloop.annotation.policies.base import OUTSIDE, Decision, known_answers, override_by_answers
from segloop.annotation.world import World
from segloop.randomness import generator


@dataclass(frozen=True)
class PerMask:
    """Ask every mask until there are enough answers, and accept the masks whose answer is yes.

    In random order this is iteration 1 of the thesis: 82,306 questions, 21,034 masks (Table 3.1).

    Parameters
    ----------
    questions
        At most this many; None: every mask is asked.
    order
        `random`, or `score` (descending; ties by prediction id).
    """

    questions: int | None = None
    order: Literal["random", "score"] = "random"

    def units(self, world: World) -> npt.NDArray[np.int64]:
        """Return the one unit: all masks, outside any node."""
        return np.full(1, OUTSIDE, np.int64)

    def step(self, world: World, answers: Answers, seed: int, units: npt.NDArray[np.int64] | None = None) -> Decision:
        """Return the questions to ask now and the verdicts so far (see `Policy.step`)."""
        known = known_answers(world, answers)
        queue = self._queue(world, seed)[: self.questions]
        if units is not None and OUTSIDE not in units:
            queue = queue[:0]
        draws = np.flatnonzero(~known.answered[queue])
        verdict, reason = np.zeros(len(world), np.int8), np.zeros(len(world), np.int8)
        node = np.full(len(world), -1, np.int64)
        override_by_answers(known, verdict, reason, node)
        return Decision(
            question_row=queue[draws],
            question_node=np.full(len(draws), -1, np.int64),
            question_draw=draws.astype(np.int64),
            waiting=np.full(min(1, len(draws)), OUTSIDE, np.int64),
            verdict=verdict,
            reason=reason,
            node=node,
            counted_node=np.zeros(0, np.int64),
            counted_row=np.zeros(0, np.int64),
        )

    def _queue(self, world: World, seed: int) -> npt.NDArray[np.int64]:
        rows = world.by_prediction
        if self.order == "score":
            return rows[np.argsort(-world.score[rows], kind="stable")]
        return rows[generator("per_mask", seed).permutation(len(rows))]
