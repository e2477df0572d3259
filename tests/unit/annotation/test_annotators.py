from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.annotators import UNSAID, Annotators
from segloop.annotation.answers import NO, NO_REASONS, OTHER, PURPOSES, YES
from segloop.config import AnnotationConfig, AuditConfig, OracleConfig
from segloop.ids import prediction_ids

DECIDE, AUDIT = PURPOSES.index("decide"), PURPOSES.index("audit")


def people_of(count=1000, votes=1, seed=0, **oracle):
    config = AnnotationConfig(oracle=OracleConfig(**oracle), audit=AuditConfig(votes=votes))
    truth = np.random.default_rng(1).random(count) < 0.5
    return Annotators.of(config, seed, prediction_ids(1, 0, count), truth)


def purposes(rows, purpose=DECIDE):
    return np.full(len(rows), purpose, np.int8)


def test_without_errors_the_truth_answers():
    people, rows = people_of(), np.arange(1000)
    given_answers = people.ask(rows, purposes(rows))
    assert people.names == ["oracle"]
    assert np.array_equal(given_answers.reply, np.where(people.truth, YES, NO))
    assert set(given_answers.seconds.tolist()) == {1.4}
    assert set(given_answers.reason.tolist()) == {UNSAID}
    assert np.array_equal(people.reply(rows, purposes(rows, AUDIT)), given_answers.reply)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, 999), max_size=30, unique=True), votes=st.sampled_from([1, 3]))
def test_an_answer_does_not_depend_on_what_else_is_asked(rows, votes):
    noisy = {"annotators": 4, "error_rate": 0.3, "bias": 0.5, "other_rate": 0.1, "seconds_spread": 0.5}
    people = people_of(votes=votes, **noisy, reasons={"partial": 1, "wrong_class": 2})
    rows = np.array(rows, np.int64)
    purpose = np.where(rows % 3 == 0, AUDIT, DECIDE).astype(np.int8)
    together = people.ask(rows, purpose)
    for place in range(len(rows)):
        alone = people.ask(rows[place : place + 1], purpose[place : place + 1])
        own = together.take(np.flatnonzero(together.question == place))
        for column in fields(alone):
            if column.name != "question":
                assert np.array_equal(getattr(own, column.name), getattr(alone, column.name)), column.name
        assert (
            people.reply(rows, purpose)[place] == people.reply(rows[place : place + 1], purpose[place : place + 1])[0]
        )


def test_everybody_errs_at_their_own_rates():
    people = people_of(60_000, annotators=5, error_rate=0.1, bias=0.8)
    rows = np.arange(60_000)
    answers = people.ask(rows, purposes(rows))
    good = people.truth[answers.question]
    assert np.bincount(answers.annotator, minlength=5).min() > 11_000
    for number in range(5):
        for truth, rates, wrong in ((False, people.false_yes, YES), (True, people.false_no, NO)):
            asked = (answers.annotator == number) & (good == truth)
            realised, rate = (answers.reply[asked] == wrong).mean(), rates[number]
            assert abs(realised - rate) < 4.5 * np.sqrt(rate * (1 - rate) / asked.sum())


def test_people_differ_as_much_as_configured_and_stay_the_same():
    many = people_of(annotators=4000, error_rate=0.2, bias=0.7)
    odds = np.log(many.false_yes / (1 - many.false_yes))
    assert odds.mean() == pytest.approx(np.log(0.25), abs=0.05)
    assert odds.std() == pytest.approx(0.7, abs=0.03)
    assert abs(np.corrcoef(many.false_yes, many.false_no)[0, 1]) < 0.06
    assert np.allclose(people_of(annotators=3, error_rate=0.2).false_no, 0.2)
    assert np.array_equal(people_of(annotators=2, error_rate=0.2, bias=1.0).false_yes, people_of(
        annotators=5, error_rate=0.2, bias=1.0).false_yes[:2])  # fmt: skip
    assert not np.array_equal(people_of(annotators=3, error_rate=0.2, bias=1.0, seed=1).false_yes, people_of(
        annotators=3, error_rate=0.2, bias=1.0).false_yes)  # fmt: skip
    assert people_of(annotators=2).names == ["oracle_0", "oracle_1"]


def test_an_audit_asks_three_different_people_and_their_majority_counts():
    people, rows = people_of(20_000, votes=3, annotators=5, error_rate=0.2), np.arange(20_000)
    audit = people.ask(rows, purposes(rows, AUDIT))
    assert np.array_equal(audit.question, np.repeat(rows, 3))
    assert all(len(set(trio)) == 3 for trio in audit.annotator.reshape(-1, 3).tolist())
    assert len(people.ask(rows, purposes(rows))) == len(rows)
    wrong = people.reply(rows, purposes(rows, AUDIT)) != np.where(people.truth, YES, NO)
    # Three independent errors of 0.2: 3 x 0.2^2 - 2 x 0.2^3.
    assert wrong.mean() == pytest.approx(0.104, abs=0.01)


def test_the_same_mask_is_answered_anew_for_another_purpose():
    people, rows = people_of(5000, error_rate=0.5), np.arange(5000)
    decide, audit = (people.reply(rows, purposes(rows, purpose)) for purpose in (DECIDE, AUDIT))
    assert (decide == audit).mean() == pytest.approx(0.5, abs=0.04)


def test_the_third_answer_and_reasons_come_as_often_as_configured():
    people = people_of(20_000, other_rate=0.1, reasons={"bad_boundary": 3, "partial": 1})
    answers = people.ask(np.arange(20_000), purposes(np.arange(20_000)))
    assert (answers.reply == OTHER).mean() == pytest.approx(0.1, abs=0.01)
    said = answers.reason != UNSAID
    assert np.array_equal(said, answers.reply == NO)
    words = [NO_REASONS[number] for number in answers.reason[said].tolist()]
    assert set(words) == {"bad_boundary", "partial"}
    assert words.count("partial") / len(words) == pytest.approx(0.25, abs=0.02)


def test_times_have_the_configured_mean_and_spread():
    people = people_of(50_000, seconds=2.0, seconds_spread=0.6)
    seconds = people.ask(np.arange(50_000), purposes(np.arange(50_000))).seconds
    assert seconds.mean() == pytest.approx(2.0, rel=0.02)
    assert np.log(seconds).std() == pytest.approx(0.6, rel=0.02)


def test_gold_is_drawn_without_repetition_and_whatever_the_order_of_rows():
    people = people_of(300, error_rate=0.4)
    rows, answers = people.gold(120, 1)
    assert len(set(rows.tolist())) == len(answers) == 120
    turned = np.random.default_rng(0).permutation(300)
    other = replace(people, prediction=people.prediction[turned], truth=people.truth[turned])
    rows_of_other, answers_of_other = other.gold(120, 1)
    assert np.array_equal(other.prediction[rows_of_other], people.prediction[rows])
    assert np.array_equal(answers_of_other.reply, answers.reply)
    assert not np.array_equal(people.gold(120, 2)[0], rows)
    assert len(people.gold(10_000, 1)[0]) == 300


def test_repeats_go_to_those_who_answered_before():
    people, rows = people_of(4000, annotators=3, error_rate=0.2), np.arange(0, 4000, 2)
    before = people.ask(rows, purposes(rows))
    asked, again = people.repeats(rows, before, 900, 1)
    first = dict(zip(rows[before.question].tolist(), before.annotator.tolist(), strict=True))
    assert len(asked) == len(set(asked.tolist())) == 900
    assert [first[row] for row in asked.tolist()] == again.annotator.tolist()
    replies = dict(zip(rows[before.question].tolist(), before.reply.tolist(), strict=True))
    different = np.mean(
        [replies[row] != reply for row, reply in zip(asked.tolist(), again.reply.tolist(), strict=True)]
    )
    # Errors are made anew: 2 x 0.2 x 0.8.
    assert different == pytest.approx(0.32, abs=0.07)
