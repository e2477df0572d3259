from segloop.reporting.terminal import text_table

ROW = {"iteration": 0, "questions": None, "collected": None, "precision": None, "ap": 0.1234, "control_ap": None}


def test_numbers_are_aligned_and_missing_ones_shown_as_such() -> None:
    asked = ROW | {"iteration": 1, "questions": 1200, "collected": 345, "precision": 0.9, "ap": 0.2}
    text = text_table({"iterations": [ROW, asked], "stop_reason": "iterations", "upper_bound": None})
    assert text.splitlines() == [
        "iteration  questions  collected  precision     AP",
        "        0          -          -          -  12.3%",
        "        1      1,200        345      90.0%  20.0%",
        "stopped: iterations",
    ]


def test_what_is_claimed_stands_beside_precision() -> None:
    rows = [ROW | {"certified": None}, ROW | {"iteration": 1, "precision": 0.95, "certified": 0.9}]
    head, seed, first, _ = text_table({"iterations": rows, "stop_reason": "iterations"}).splitlines()
    assert head.split() == ["iteration", "precision", "certified", "AP"]
    assert (seed.split()[2], first.split()[1:3]) == ("-", ["95.0%", "90.0%"])


def test_the_upper_bound_has_a_line_of_its_own() -> None:
    text = text_table({"iterations": [ROW], "stop_reason": "no_new_masks", "upper_bound": {"ap": 0.5}})
    assert "all truth of the pool: AP 50.0%" in text


def test_a_run_that_pauses_has_not_stopped() -> None:
    text = text_table({"iterations": [ROW], "stop_reason": None, "planned_iterations": 3})
    assert text.splitlines()[-1] == "not ended; iteration 0 of 3"
