from collections.abc import Callable

import numpy as np
import pytest

from segloop.reporting.summaries import RunSummary
from segloop.simulation.replay import Curve, Result
from segloop.simulation.tables import (
    certified_words,
    grouped,
    markdown,
    masks_per_question_at,
    outcomes,
    page,
    table_31_lines,
    table_31_record,
    yields,
)

MakeResult = Callable[..., Result]


def cells(lines: list[str], policy: str) -> list[str]:
    (line,) = [line for line in lines if line.split("|")[1].strip() == policy]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def curve(*points: tuple[int, int, int, int]) -> Curve:
    return Curve(*np.array(points, np.int64).T)


def test_columns_are_aligned() -> None:
    lines = markdown(["policy", "n"], [["a", "1"], ["longer name", "1,000"]])
    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("| -----------") and lines[1].endswith("----: |")


def test_labels_say_where_settings_differ(make_result: MakeResult) -> None:
    results = [
        make_result(settings={"questions": 800}),
        make_result(settings={"questions": 800, "audit.precision": 0.8}),
        make_result("thesis", settings={"n": 8}),
        make_result("thesis", settings={"n": 8}, seed=1),
    ]
    assert {label: len(group) for label, group in grouped(results).items()} == {
        "certified": 1,
        "certified, audit.precision 0.8": 1,
        "thesis": 2,
    }


def test_outcomes_are_means_with_ranges(make_result: MakeResult) -> None:
    lines = outcomes([make_result(correct=280), make_result(correct=200, certified=None, seed=1)])
    assert cells(lines, "certified") == [
        "2",
        "100 (100 to 100)",
        "2.40 (2.00 to 2.80)",
        "0.800 (0.667 to 0.933)",
        "0.480 (0.400 to 0.560)",
        "≥ 0.910 (1 of 2)",
    ]


def test_a_bound_is_never_rounded_up() -> None:
    assert certified_words([0.90999, 0.95]) == "≥ 0.909 (2 of 2)"
    assert certified_words([0.8]) == "≥ 0.800" and certified_words([None]) == "-"


def test_certified_masks_per_question_count_below_what_was_reached(make_result: MakeResult) -> None:
    found = cells(yields([make_result()], certified=True), "certified")
    assert found == ["2.80", "2.80", "-", "2.80", "2.80", "-"]
    found = cells(yields([make_result(certified=0.85)], certified=True), "certified")
    assert found == ["2.80", "2.80", "-", "-", "-", "-"]


def test_precision_in_hindsight_is_no_certificate(make_result: MakeResult) -> None:
    results = [make_result("thesis", certified=None)]
    assert cells(yields(results, certified=False), "thesis") == ["2.80", "2.80", "-", "2.80", "2.80", "-"]
    assert "No policy reached" in yields(results, certified=True)[0]


def test_a_seed_that_certifies_nothing_counts_with_its_confirmed_masks(make_result: MakeResult) -> None:
    failed = make_result(certified=None, accepted=60, correct=60, confirmed=60, seed=1)
    assert cells(yields([make_result(), failed], certified=True), "certified")[0] == "1.70 (1 of 2)"
    assert "No policy reached" in yields([make_result(), failed, failed], certified=True)[0]


def test_the_best_setting_is_shown(make_result: MakeResult) -> None:
    better = make_result(settings={"questions": 50}, questions=50)
    assert cells(yields([make_result(), better], certified=True), "certified")[0] == "5.60"


def test_asking_every_accepted_mask_is_as_good_as_a_certificate(make_result: MakeResult) -> None:
    asked = curve((100, 60, 60, 60), (250, 130, 130, 130), (1000, 500, 500, 500))
    result = make_result(
        "per_mask", certified=None, questions=1000, accepted=500, correct=500, confirmed=500, curve=asked
    )
    assert cells(yields([result], certified=True), "per_mask")[:3] == ["0.52", "0.50", "0.50"]


def test_the_best_moment_to_stop_is_looked_for_in_hindsight(make_result: MakeResult) -> None:
    course = curve((10, 200, 190, 5), (100, 400, 300, 50))
    result = make_result("thesis", certified=None, accepted=400, correct=300, curve=course)
    assert masks_per_question_at(result, 0.9, 0.25, certified=False) == 19
    assert masks_per_question_at(result, 0.7, 0.5, certified=False) == 3
    assert masks_per_question_at(result, 0.9, 0.5, certified=False) is None


def test_no_question_is_free_and_no_good_mask_is_nothing(make_result: MakeResult) -> None:
    free = make_result("score_threshold", certified=None, questions=0, confirmed=0)
    assert free.masks_per_question is None
    assert cells(yields([free], certified=False), "score_threshold")[0] == "free"
    nothing = make_result(good=0, accepted=0, correct=0, confirmed=0, certified=None)
    assert masks_per_question_at(nothing, 0.8, 0.25, certified=False) is None
    assert (nothing.precision, nothing.recall) == (None, None)
    assert cells(outcomes([nothing]), "certified") == ["1", "100", "0.00", "-", "-", "-"]


def test_a_page_has_every_world(make_result: MakeResult) -> None:
    text = "\n".join(page([make_result(), make_result(world="other")]))
    assert "## w\n" in text and "## other\n" in text and "1,000 predictions, 500 of them good." in text


def test_the_table_of_the_thesis_leaves_unknown_columns_out() -> None:
    rows = [
        {"iteration": 0, "ap": 0.2},
        {"iteration": 1, "ap": 0.25, "questions": 80, "collected": 20, "masks_per_question": 0.25, "truth_recall": 0.4},
    ]
    run = RunSummary(rows, {}, {"ap": 0.3, "ap50": 0.5}, "iterations")
    lines = table_31_lines(run)
    assert "truth (%)" in lines[0] and "control" not in lines[0]
    assert cells(lines, "1")[:4] == ["80", "20", "-", "25.00"]
    record = table_31_record(run)
    assert (record["upper_bound_ap"], record["truth_recall"]) == (0.3, 0.4)
    assert record["iterations"][1]["truth_recall"] == 0.4
    assert table_31_record(RunSummary([], {}, None, None))["upper_bound_ap"] is None


@pytest.mark.parametrize("certified", [True, False])
def test_a_table_of_nothing_says_so(certified: bool) -> None:
    (line,) = yields([], certified=certified)
    assert line.startswith("No policy reached a recall of 0.25")
