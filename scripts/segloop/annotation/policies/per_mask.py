"""Every mask is asked by itself: the cost that all other policies are measured against."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import Answers
from segloop.annotation.policies.base import OUTSIDE, Decision, Judgement, known_answers
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
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

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        return cls(questions=config.questions, order=config.order)

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
        decision = Judgement.none(len(world)).decision(known, question_row=queue[draws])
        return replace(decision, question_draw=draws.astype(np.int64))

    def _queue(self, world: World, seed: int) -> npt.NDArray[np.int64]:
        rows = world.by_prediction
        if self.order == "score":
            return rows[np.argsort(-world.score[rows], kind="stable")]
        return rows[generator("per_mask", seed).permutation(len(rows))]
