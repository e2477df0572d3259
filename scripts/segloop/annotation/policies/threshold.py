"""Baselines that ask nobody: accept what some number says is good."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from segloop.annotation.answers import Answers
from segloop.annotation.policies.base import Decision, Judgement, known_answers
from segloop.annotation.verdicts import ACCEPTED, PREFIX
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Threshold(ABC):
    """Accept the masks whose number is at least `threshold`; the others stay undecided, and answers stand above both.

    Parameters
    ----------
    threshold
        0 to 1.
    """

    threshold: float = 0.9

    @classmethod
    def of(cls, config: AnnotationConfig, iteration: int) -> Self:
        """Return the policy that a configuration describes."""
        return cls(config.threshold)

    def units(self, world: World) -> npt.NDArray[np.int64]:
        """Return none: there is nothing to work on."""
        return np.zeros(0, np.int64)

    def step(self, world: World, answers: Answers, seed: int, units: npt.NDArray[np.int64] | None = None) -> Decision:
        """Return no questions, and the verdicts (see `Policy.step`).

        Raises
        ------
        SegloopError
            If the world does not have the number.
        """
        judgement = Judgement.none(len(world))
        # Compared in the precision of the columns, so that a score of 0.9 reaches a threshold of 0.9.
        accepted = self._values(world) >= np.float32(self.threshold)
        judgement.verdict[accepted] = ACCEPTED
        judgement.reason[accepted] = PREFIX
        return judgement.decision(known_answers(world, answers))

    @abstractmethod
    def _values(self, world: World) -> Values:
        """Return the number of each mask, [N]; NaN is below any threshold."""


@dataclass(frozen=True)
class ScoreThreshold(_Threshold):
    """Accept the masks of which the detector is sure."""

    def _values(self, world: World) -> Values:
        return world.score


@dataclass(frozen=True)
class IouThreshold(_Threshold):
    """Accept the masks whose predicted IoU is high (Z. Huang et al., Mask Scoring R-CNN, CVPR 2019)."""

    def _values(self, world: World) -> Values:
        if world.predicted_iou is None:
            raise SegloopError(
                "annotation.policy: iou_threshold needs a detector that predicts the IoU of its masks, and this one "
                "does not. Use annotation.policy: score_threshold, or another detector."
            )
        return world.predicted_iou


@dataclass(frozen=True)
class Verifier(_Threshold):
    """Accept the masks that some model outside the loop takes for good."""

    def _values(self, world: World) -> Values:
        if world.probability is None:
            raise SegloopError(
                "annotation.policy: verifier accepts by a model's probabilities, and there are none. Set "
                "annotation.probability_file to a .npy file of one for each prediction of the index, in its order."
            )
        return world.probability


@dataclass(frozen=True)
class Distillation(_Threshold):
    """Accept the masks that the detector finds again in transformed copies of the image.

    Data distillation: I. Radosavovic et al., Data Distillation: Towards Omni-Supervised Learning, CVPR 2018.
    """

    def _values(self, world: World) -> Values:
        if world.probability is None:
            raise SegloopError(
                "annotation.policy: distillation accepts by how far predictions of transformed images agree, and that "
                "was not measured. Make results/iter_{iteration}/agreement.npy: one number in 0..1 for each "
                "prediction of the index, in its order."
            )
        return world.probability
