import json
from dataclasses import asdict
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segloop.annotation.certificates import (
    Certificate,
    bad_limit,
    clopper_pearson_lower,
    delta_of_iteration,
    fixed_certificate,
    most_bad,
    precision_lower,
    read_certificates,
    sequential_certificate,
    write_certificates,
)
from segloop.errors import SegloopError


def chance(unknown: int, bad: int, asked: int, found: int) -> Fraction:
    """Return P(exactly `found` of `asked` are bad) for a draw without replacement."""
    return Fraction(comb(bad, found) * comb(unknown - bad, asked - found), comb(unknown, asked))


AUDIT = st.integers(0, 40).flatmap(
    lambda unknown: st.integers(0, unknown).flatmap(
        lambda asked: st.tuples(st.just(unknown), st.just(asked), st.integers(0, asked))
    )
)


@settings(max_examples=150, deadline=None)
@example((5, 1, 0), 0.2)
@given(AUDIT, st.sampled_from([0.01, 0.05, 0.2]))
def test_most_bad_is_the_largest_number_that_the_answers_do_not_rule_out(audit, delta):
    unknown, asked, found = audit
    possible = range(found, unknown - (asked - found) + 1)
    at_most = {bad: sum(chance(unknown, bad, asked, x) for x in range(found + 1)) for bad in possible}
    # The smallest possible number cannot be ruled out: it makes what was found most probable.
    expected = max(bad for bad in possible if bad == found or at_most[bad] > Fraction(delta) * Fraction(1 - 1e-8))
    assert most_bad(unknown, asked, found, delta) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(0, 20), st.data())
def test_the_bound_on_precision_is_wrong_with_probability_delta_at_most(unknown, known_good, data):
    asked = data.draw(st.integers(0, unknown))
    delta = data.draw(st.sampled_from([0.02, 0.1]))
    lower = [precision_lower(known_good, unknown, asked, found, delta) for found in range(asked + 1)]
    for bad in range(unknown + 1):
        wrong = Fraction(0)
        for found in range(max(0, asked - (unknown - bad)), min(asked, bad) + 1):
            left = known_good + unknown - found
            if left and Fraction(left - (bad - found), left) < Fraction(lower[found]) - Fraction(1, 10**12):
                wrong += chance(unknown, bad, asked, found)
        assert wrong <= delta


def test_clopper_pearson_has_the_known_values():
    assert clopper_pearson_lower(29, 29, 0.05) == pytest.approx(0.9019, abs=1e-4)
    assert clopper_pearson_lower(59, 59, 0.05) == pytest.approx(0.9505, abs=1e-4)
    assert clopper_pearson_lower(13, 15, 0.05) == pytest.approx(0.6366, abs=1e-4)
    assert clopper_pearson_lower(0, 15, 0.05) == 0
    assert clopper_pearson_lower(0, 0, 0.05) == 0


def test_a_large_set_is_bounded_as_an_infinite_one_and_a_small_one_better():
    infinite = clopper_pearson_lower(290, 300, 0.05)
    assert precision_lower(0, 46_000_000, 300, 10, 0.05) == pytest.approx(infinite, abs=1e-4)
    assert precision_lower(0, 400, 300, 10, 0.05) > infinite + 0.01


@pytest.mark.parametrize(("unknown", "asked", "bad"), [(10, 11, 0), (10, 5, 6), (10, 5, -1)])
def test_impossible_counts_are_errors(unknown, asked, bad):
    with pytest.raises(ValueError, match="impossible"):
        most_bad(unknown, asked, bad, 0.05)
    with pytest.raises(ValueError, match="impossible"):
        clopper_pearson_lower(asked + 1, asked, 0.05)


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_impossible_levels_are_errors(delta):
    with pytest.raises(ValueError, match="impossible"):
        most_bad(10, 5, 0, delta)
    with pytest.raises(ValueError, match="impossible"):
        clopper_pearson_lower(5, 5, delta)


@settings(max_examples=200, deadline=None)
@example(32_514_160, 0, "0.8")
@given(st.integers(0, 50_000_000), st.integers(0, 2000), st.sampled_from(["0.5", "0.8", "0.9", "0.95", "0.99", "0.7"]))
def test_the_limit_is_exact(size, found, target):
    found = min(found, size)
    limit = int(bad_limit(size, found, float(target)))
    allowed = (1 - Fraction(target)) * (size - found)
    assert limit - found <= allowed < limit - found + 1


def test_limits_take_arrays():
    assert bad_limit(100, np.array([[0, 10], [20, 100]]), 0.9).tolist() == [[10, 19], [28, 100]]


@settings(max_examples=200, deadline=None)
@given(AUDIT, st.integers(0, 30), st.sampled_from([0.5, 0.8, 0.9]))
def test_a_fixed_audit_passes_where_its_bound_reaches_the_target(audit, known_good, target):
    unknown, asked, bad = audit
    one = fixed_certificate(
        certificate_id="1:all",
        category=None,
        target=target,
        delta=0.05,
        known_good=known_good,
        unknown=unknown,
        asked=asked,
        bad=bad,
    )
    assert one.size == known_good + unknown - bad
    assert one.passed == (one.size > 0 and one.lower >= target - 1e-12)
    if unknown > asked == 0:
        assert one.lower == known_good / one.size
    if asked == unknown and one.size:
        assert one.lower == 1


def sequential(**given):
    parts = {"known_good": 0, "unknown": 100, "asked": 30, "bad": 1, "accepted": True, **given}
    return sequential_certificate(certificate_id="1:all", target=0.9, delta=0.05, **parts)


def test_a_sequential_audit_shows_the_target_or_what_is_known_anyway():
    assert (sequential().passed, sequential().lower, sequential().size) == (True, 0.9, 99)
    failed = sequential(accepted=False)
    assert (failed.passed, failed.lower) == (False, 29 / 99)
    assert sequential(asked=100, bad=4).lower == 1
    empty = sequential(asked=100, bad=100)
    assert (empty.passed, empty.lower, empty.size) == (False, 0, 0)


def test_all_iterations_together_spend_no_more_than_delta():
    assert sum(delta_of_iteration(0.05, iteration) for iteration in range(1, 256)) <= 0.05
    assert delta_of_iteration(0.05, 0) == 0.05


def test_certificates_come_back_as_written(tmp_path):
    some = (sequential(), Certificate("1:category=3", 3, "fixed", 0.9, 0.025, 7, 2, 5, 0, 1 / 3, 0.5, False))
    write_certificates(tmp_path / "c.json", some)
    assert read_certificates(tmp_path / "c.json") == some
    write_certificates(tmp_path / "c.json", ())
    assert read_certificates(tmp_path / "c.json") == ()


def damaged(change):
    given = {"schema": 1, "certificates": [asdict(sequential())]}
    change(given)
    return json.dumps(given)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        damaged(lambda given: given.update(schema=2)),
        damaged(lambda given: given.update(certificates=None)),
        damaged(lambda given: given.update(certificates=[7])),
        damaged(lambda given: given["certificates"][0].pop("lower")),
        damaged(lambda given: given["certificates"][0].update(further=1)),
        damaged(lambda given: given["certificates"][0].update(size="many")),
        damaged(lambda given: given["certificates"][0].update(passed=None)),
        damaged(lambda given: None)[:-9],
    ],
)
def test_damaged_files_are_named(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(SegloopError, match=r"c\.json"):
        read_certificates(tmp_path / "c.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SegloopError, match=r"c\.json does not exist"):
        read_certificates(tmp_path / "c.json")
