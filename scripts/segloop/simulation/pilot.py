"""What questions will buy, told from a few answers.

The answers are fitted by the model of P(good) that `certified` uses. From its posterior whole truths are drawn that the
answers leave possible, and the policy is replayed on each: how its results scatter is the forecast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segloop.annotation.policies.levels import cluster_levels
from segloop.annotation.policies.quality_model import Features, QualityModel, dense_features, posterior
from segloop.annotation.world import World
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.randomness import generator
from segloop.simulation.replay import Result, simulate
from segloop.simulation.tables import markdown
from segloop.simulation.worlds import KnownWorld

Rows = npt.NDArray[np.int64]
Truth = npt.NDArray[np.bool_]

ANSWERS: Final = 200
WORLDS: Final = 20
CONFIDENCE: Final = 0.9
_FEW: Final = 20_000
"""Masks from which on there are answers enough for more components."""
_COMPONENTS: Final = (8, 32)
_BLOCK: Final = 65_536


@dataclass(frozen=True)
class Interval:
    """Mean over possible worlds, and the range of the middle nine tenths of them."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Interval | None":
        """Return the interval of some values, None if there are none.

        The quantiles are those that a further value of the same kind exceeds with the right probability, as far as
        there are values enough; else the least and the largest.
        """
        if not len(values):
            return None
        low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="weibull")
        return Interval(float(np.mean(values)), float(low), float(high))

    def holds(self, value: float) -> bool:
        """Return whether a value lies in the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Forecast:
    """What a policy will bring.

    Attributes
    ----------
    config
        The policy and its settings.
    answers, worlds
        Answers that it was told from; possible worlds that the policy was replayed on.
    questions, masks, recall, precision
        Answers that the policy will need; accepted masks that are good; their share of all good ones; share of good
        ones among the accepted, None where it accepted nothing in any world.
    hours, dollars
        Of a person, at the configured seconds an answer and wage.
    certified
        Share of the worlds in which the precision of the whole accepted set was certified.
    """

    config: AnnotationConfig
    answers: int
    worlds: int
    questions: Interval
    masks: Interval
    recall: Interval | None
    precision: Interval | None
    hours: Interval
    dollars: Interval
    certified: float


def forecasts(
    known: KnownWorld, configs: Sequence[AnnotationConfig], *, answers: int, worlds: int, seed: int
) -> list[Forecast]:
    """Ask a few masks, drawn uniformly, and forecast what each configuration will bring.

    Parameters
    ----------
    known
        Its truth answers these few questions and nothing else.
    answers
        How many masks are asked.
    worlds
        Possible worlds that each policy is replayed on.
    seed
        Of all draws.

    Raises
    ------
    SegloopError
        If there are fewer masks than answers, or a policy needs something that the world does not have.
    """
    if not 0 < answers <= len(known):
        raise SegloopError(f"{known.name} has {len(known)} predictions; a pilot cannot ask {answers}. Ask fewer.")
    drawn = generator("forecast", seed, "answers").choice(len(known), answers, replace=False)
    rows = np.sort(known.world.by_prediction[drawn])
    truths = possible_truths(known.world, rows, known.good[rows], worlds, seed)
    return [_forecast(known, truths, config, answers, seed) for config in configs]


def possible_truths(world: World, rows: Rows, good: Truth, count: int, seed: int) -> list[Truth]:
    """Draw truths of all masks that the answers leave possible.

    Parameters
    ----------
    rows, good : [A]
        Masks with an answer, ascending, and the answers.
    count
        How many truths.

    Returns
    -------
    `count` arrays, bool [N]; each agrees with the answers.
    """
    components = _COMPONENTS[len(world) >= _FEW]
    dense = dense_features(world.score, world.embedding, components)
    levels = np.zeros((len(world), 0), np.int32) if world.tree is None else cluster_levels(world.tree, len(world))
    fit = QualityModel(Features(dense, levels)).tune(rows, good)
    belief = posterior(fit, generator("forecast", seed, "posterior"), count)
    chance = generator("forecast", seed, "truth")
    truths = [np.zeros(len(world), np.bool_) for _ in range(count)]
    for start in range(0, len(world), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(world)))
        probability = belief.sample(block)
        for number, truth in enumerate(truths):
            truth[block] = chance.random(len(block)) < probability[:, number]
    for truth in truths:
        truth[rows] = good
    return truths


def _forecast(
    known: KnownWorld, truths: Sequence[Truth], config: AnnotationConfig, answers: int, seed: int
) -> Forecast:
    runs = [
        simulate(KnownWorld(known.name, known.world, truth, known.probability), config, seed + number)
        for number, truth in enumerate(truths)
    ]
    hours = [run.seconds / 3600 for run in runs]
    return Forecast(
        config=config,
        answers=answers,
        worlds=len(runs),
        questions=_interval(runs, "questions"),
        masks=_interval(runs, "correct"),
        recall=Interval.of([run.recall for run in runs if run.recall is not None]),
        precision=Interval.of([run.precision for run in runs if run.precision is not None]),
        hours=_known(Interval.of(hours)),
        dollars=_known(Interval.of([config.hourly_wage * value for value in hours])),
        certified=sum(run.certified is not None for run in runs) / len(runs),
    )


def _interval(runs: Sequence[Result], name: str) -> Interval:
    return _known(Interval.of([getattr(run, name) for run in runs]))


def _known(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


def forecast_record(one: Forecast) -> dict[str, Any]:
    """Return a forecast as plain values for JSON; intervals are [mean, low, high]."""
    values = {
        name: None if (found := getattr(one, name)) is None else [found.mean, found.low, found.high]
        for name in ("questions", "masks", "recall", "precision", "hours", "dollars")
    }
    return {
        "policy": one.config.policy,
        "at_most": one.config.questions,
        "target": one.config.audit.precision,
        "answers": one.answers,
        "worlds": one.worlds,
        **values,
        "certified": one.certified,
    }


def forecast_lines(known: KnownWorld, found: Sequence[Forecast]) -> list[str]:
    """Return forecasts as a table with what it rests on."""
    header = ["policy", "at most", "target", "questions", "masks", "precision", "certified", "hours", "dollars"]
    rows = [
        [
            one.config.policy,
            "-" if one.config.questions is None else f"{one.config.questions:,}",
            f"{one.config.audit.precision:g}",
            _words(one.questions, ",.0f"),
            _words(one.masks, ",.0f"),
            _words(one.precision, ".3f"),
            f"{one.certified:.0%}",
            _words(one.hours, ".2f"),
            _words(one.dollars, ",.2f"),
        ]
        for one in found
    ]
    first = found[0]
    return [
        f"{known.name}: {len(known):,} predictions, judged from {first.answers} answers on masks drawn at random.",
        "",
        *markdown(header, rows),
        "",
        f"Mean over {first.worlds} worlds that these answers leave possible, and in brackets the range of the middle",
        f"{CONFIDENCE:.0%}. Masks: accepted ones that are good. Certified: in this share of the worlds the precision",
        f"of the accepted set was shown. Hours at {first.config.oracle.seconds:g} s an answer, dollars at "
        f"{first.config.hourly_wage:g} an hour. The {first.answers} answers are not counted.",
    ]


def _words(one: Interval | None, form: str) -> str:
    return "-" if one is None else f"{one.mean:{form}} ({one.low:{form}} to {one.high:{form}})"
