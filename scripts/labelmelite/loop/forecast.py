"""How many questions remain: the policy is replayed on possible truths that the answers so far leave open."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies import make_policy
from segloop.annotation.policies.base import AUDIT, known_answers
from segloop.annotation.recorded import Reached
from segloop.annotation.verdicts import ACCEPTED
from segloop.annotation.world import World
from segloop.simulation.pilot import possible_truths

_WORLDS: Final = 5
_LEAST: Final = 20
"""Before so many answers nothing is forecast."""


@dataclass(frozen=True)
class Forecast:
    """What is to be expected until the policy has no more questions.

    Attributes
    ----------
    questions, low, high
        Answers that are still needed: the mean over possible worlds, the fewest and the most of them.
    masks
        Masks that will have been accepted, on average.
    answers
        Answers that this was told from.
    """

    questions: float
    low: int
    high: int
    masks: float
    answers: int


def forecast(world: World, reached: Reached, iteration: int, seed: int, go_on: Callable[[], bool]) -> Forecast | None:
    """Return what is to be expected; None while too little is known, or when `go_on` says that nobody waits for it.

    Parameters
    ----------
    reached
        What the answers so far have led to.
    seed
        Of the policy's draws, as in the session.
    """
    known = known_answers(world, reached.answers)
    rows = np.flatnonzero(known.answered & (known.reply != OTHER))
    good = known.reply[rows] == YES
    if len(rows) < _LEAST or good.all() or not good.any():
        return None
    needed, masks = [], []
    for truth in possible_truths(world, rows, good, _WORLDS, seed):
        policy, log, more = make_policy(reached.config, iteration), [reached.answers], 0
        while not (decision := policy.step(world, Answers.join(log), seed)).done:
            if not go_on():
                return None
            asked = decision.question_row
            reply = np.where(truth[asked], YES, NO).astype(np.int8)
            votes = np.where(decision.question_purpose == AUDIT, reached.config.audit.votes, 1)
            more += int(votes.sum())
            log.append(Answers(world.prediction[asked], reply, decision.question_node, decision.question_purpose))
        needed.append(more)
        masks.append(int(np.count_nonzero(decision.verdict == ACCEPTED)))
    return Forecast(float(np.mean(needed)), min(needed), max(needed), float(np.mean(masks)), len(reached.answers))
