from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.simulation.pilot import Interval, forecast_record, forecasts, possible_truths
from segloop.simulation.replay import simulate
from segloop.simulation.worlds import KnownWorld, world_of_arrays

PER_MASK = AnnotationConfig(policy="per_mask", questions=200)


@pytest.fixture(scope="module")
def rows(known: KnownWorld) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.sort(np.random.default_rng(3).choice(len(known), 150, replace=False))


def test_possible_truths_agree_with_the_answers_and_differ_elsewhere(
    known: KnownWorld, rows: np.ndarray[Any, np.dtype[np.int64]]
) -> None:
    truths = possible_truths(known.world, rows, known.good[rows], 8, 1)
    assert len(truths) == 8
    for truth in truths:
        assert np.array_equal(truth[rows], known.good[rows])
    assert len({truth.tobytes() for truth in truths}) == 8
    again = possible_truths(known.world, rows, known.good[rows], 8, 1)
    assert all(np.array_equal(one, two) for one, two in zip(truths, again, strict=True))


def test_possible_truths_follow_what_the_answers_say(
    known: KnownWorld, rows: np.ndarray[Any, np.dtype[np.int64]]
) -> None:
    chance = np.mean(possible_truths(known.world, rows, known.good[rows], 20, 1), axis=0)
    others = np.setdiff1d(np.arange(len(known)), rows)
    # Clusters are nearly pure, so that answers elsewhere in the cluster say much about a mask.
    assert chance[others][known.good[others]].mean() > 0.7
    assert chance[others][~known.good[others]].mean() < 0.3


def test_without_a_difference_in_the_answers_all_truths_are_alike(known: KnownWorld) -> None:
    rows = np.arange(0, 400, 4)
    truths = possible_truths(known.world, rows, np.zeros(len(rows), np.bool_), 5, 0)
    assert max(truth.mean() for truth in truths) < 0.3


def test_a_forecast_of_asking_every_mask_is_right(make_arrays: Callable[..., Any]) -> None:
    arrays = make_arrays(n=1500, seed=4)
    known = world_of_arrays(arrays, arrays["good"], "w")
    (found,) = forecasts(known, [PER_MASK], answers=200, worlds=20, seed=0)
    assert found.questions == Interval(200, 200, 200)
    assert found.precision == Interval(1, 1, 1)
    assert found.masks.low < found.masks.mean < found.masks.high
    assert found.masks.mean == pytest.approx(200 * known.good.mean(), rel=0.15)
    realised = [simulate(known, PER_MASK, seed).correct for seed in range(10)]
    assert sum(found.masks.holds(value) for value in realised) >= 6


def test_forecasts_repeat_and_depend_on_the_answers(known: KnownWorld) -> None:
    one, two, other = (
        forecast_record(forecasts(known, [PER_MASK], answers=50, worlds=4, seed=seed)[0]) for seed in (0, 0, 1)
    )
    assert one == two != other
    assert one["certified"] == 0


@pytest.mark.parametrize("answers", [0, 401])
def test_more_answers_than_masks_are_refused(known: KnownWorld, answers: int) -> None:
    with pytest.raises(SegloopError, match=f"cannot ask {answers}"):
        forecasts(known, [PER_MASK], answers=answers, worlds=2, seed=0)


def test_an_interval_is_left_by_one_further_value_in_ten() -> None:
    interval = Interval.of([1.0, 2.0, 3.0])
    assert interval is not None
    assert (interval.mean, interval.low, interval.high) == (2, 1, 3)
    assert interval.holds(1.0) and not interval.holds(3.01)
    assert Interval.of([]) is None
    random = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        *seen, further = random.standard_normal(21).tolist()
        interval = Interval.of(seen)
        assert interval is not None
        held += interval.holds(further)
    assert 0.88 < held / 2000 < 0.92
