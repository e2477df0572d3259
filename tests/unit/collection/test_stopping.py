import pytest

from segloop.collection.stopping import stop_reason
from segloop.config import LoopConfig


def rows_of(aps, collected):
    pairs = zip(aps, collected, strict=True)
    return [{"iteration": number, "ap": ap, "collected": new} for number, (ap, new) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("aps", "collected", "stop", "iterations", "expected"),
    [
        ([0.1], [None], "never", 3, None),
        ([0.1], [None], "never", 0, "iterations"),
        ([0.1, 0.2], [None, 5], "never", 2, None),
        ([0.1, 0.05], [None, 0], "never", 2, None),
        ([0.1, 0.05], [None, 0], "never", 1, "iterations"),
        ([0.1, 0.2], [None, 0], ["no_new_masks"], 5, "no_new_masks"),
        ([0.1, 0.2], [None, 1], ["no_new_masks", "no_better_ap"], 5, None),
        ([0.1, 0.1], [None, 1], ["no_better_ap"], 5, "no_better_ap"),
        ([0.1, 0.05], [None, 1], ["no_new_masks"], 5, None),
        ([0.1, 0.3, 0.2], [None, 1, 1], ["no_better_ap"], 5, "no_better_ap"),
        ([None, None], [None, 1], ["no_better_ap"], 5, None),
        ([0.1, 0.05], [None, 0], [], 5, None),
        ([0.1], [None], ["no_new_masks", "no_better_ap"], 5, None),
        ([0.1, 0.05], [None, 0], ["no_better_ap", "no_new_masks"], 1, "no_new_masks"),
    ],
)
def test_why_a_run_ends(aps, collected, stop, iterations, expected):
    assert stop_reason(rows_of(aps, collected), LoopConfig(stop=stop, iterations=iterations)) == expected


@pytest.mark.parametrize(
    ("dollars", "machine", "value", "stop", "expected"),
    [
        (5.0, 5.0, 9.9, ["cost"], "cost"),
        (5.0, 5.0, 10.0, ["cost"], None),
        (5.0, 5.0, 9.9, ["no_new_masks"], None),
        (5.0, 5.0, None, ["cost"], None),
        (0.0, 0.0, 0.0, ["cost"], None),
        (0.0, 0.1, 0.0, ["no_better_ap", "cost"], "cost"),
    ],
)
def test_a_run_ends_when_masks_cost_more_than_they_are_worth(dollars, machine, value, stop, expected):
    rows = rows_of([0.1, 0.2], [None, 3])
    rows[1] |= {"dollars": dollars, "machine_dollars": machine, "value": value}
    loop = LoopConfig(stop=stop, iterations=5, value_per_mask=1.0)
    assert stop_reason(rows, loop) == expected
