import time

import pytest

from labelmelite.loop.forecast import forecast
from labelmelite.loop.progress import progress
from segloop.annotation.recorded import policy_seed


def after(served, answers):
    while len(served.session.records()) < answers:
        served.work("ann", served.task())
    return served.session.thinking.reached


def test_what_is_certain_is_forecast_exactly(serve):
    served = serve({"forecast": 1000}, policy="per_mask", questions=60)
    after(served, 35)
    end = time.monotonic() + 30
    while served.session.thinking.expected is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    told = progress(served.session, owner=False)
    left = 60 - told["answered"]
    assert told["remaining"] == left == told["open"]
    assert told["remaining_range"] == [left, left]
    after(served, 50)
    assert progress(served.session, owner=False)["remaining"] == 60 - len(served.session.records())


@pytest.mark.parametrize(
    "annotation",
    [
        {"policy": "certified", "audit": {"precision": 0.7, "votes": 3}},
        {"policy": "thesis", "start": "top:9", "audit": {"questions": 5}},
    ],
)
def test_a_forecast_holds_what_comes(serve, annotation):
    served = serve({"questions": 10}, **annotation)
    while len(served.session.records()) < 25:
        for who in ("ann", "ben", "cem"):
            if (task := served.task(who)) is not None:
                served.work(who, task)
    reached = served.session.thinking.reached
    seed = policy_seed(served.iteration.config.seed, 1)
    told = forecast(served.iteration.world, reached, 1, seed, lambda: True)
    assert told is not None and 0 <= told.low <= told.questions <= told.high
    before = len(served.session.records())
    served.finish("ann", "ben", "cem")
    came = len(served.session.records()) - before
    assert told.low / 2 <= came <= 2 * told.high
    assert told.answers == len(reached.answers)


def test_nothing_is_forecast_from_a_handful_or_when_nobody_waits(serve):
    served = serve(policy="per_mask", questions=60)
    seed = policy_seed(served.iteration.config.seed, 1)
    world = served.iteration.world
    assert forecast(world, served.session.thinking.reached, 1, seed, lambda: True) is None
    assert forecast(world, after(served, 30), 1, seed, lambda: False) is None
    told = progress(served.session, owner=False)
    assert told["remaining"] is None and told["remaining_range"] == [told["open"], 60 - told["answered"]]
