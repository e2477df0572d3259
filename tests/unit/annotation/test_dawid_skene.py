import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.dawid_skene import dawid_skene


def answers_of(random, masks, false_yes, false_no, each, share=0.5):
    """Let `each` random annotators answer about every mask."""
    people = len(false_yes)
    good = random.random(masks) < share
    annotator = np.concatenate([random.permutation(people)[:each] for _ in range(masks)])
    mask = np.repeat(np.arange(masks), each)
    wrong = random.random(len(mask)) < np.where(good[mask], np.take(false_no, annotator), np.take(false_yes, annotator))
    return good, mask, annotator, good[mask] != wrong


def unknown(masks):
    return np.full(masks, np.nan)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_posterior_never_falls_whatever_the_answers(data):
    masks, people = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    one = st.tuples(st.integers(0, masks - 1), st.integers(0, people - 1), st.booleans())
    votes = data.draw(st.lists(one, max_size=40))
    truth = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=masks, max_size=masks)))
    mask, annotator, yes = (np.array([vote[k] for vote in votes], dtype) for k, dtype in enumerate((int, int, bool)))
    fit = dawid_skene(mask, annotator, yes, truth, people)
    steps = np.diff(fit.log_posterior)
    assert (steps >= -1e-9 * np.abs(fit.log_posterior[:-1]) - 1e-9).all()
    assert ((fit.good >= 0) & (fit.good <= 1)).all()
    assert np.array_equal(fit.good[~np.isnan(truth)], truth[~np.isnan(truth)])
    for estimate in (*fit.false_yes, *fit.false_no):
        assert 0 < estimate.low < estimate.value < estimate.high < 1


def test_the_posterior_is_that_of_the_model():
    """Against the sum over all truths, written down without logarithms."""
    mask, annotator, yes = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([True, False, True, True])
    fit = dawid_skene(mask, annotator, yes, unknown(2), 2)
    rates = [[one.value for one in part] for part in (fit.false_yes, fit.false_no)]
    likelihood = 1.0
    for number in range(2):
        if_good, if_bad = fit.share, 1 - fit.share
        for who, said in zip(annotator[mask == number], yes[mask == number], strict=True):
            if_good *= 1 - rates[1][who] if said else rates[1][who]
            if_bad *= rates[0][who] if said else 1 - rates[0][who]
        likelihood *= if_good + if_bad
        assert fit.good[number] == pytest.approx(if_good / (if_good + if_bad), abs=1e-3)
    density = [rate * (1 - rate) ** 9 * 110 for part in rates for rate in part]
    expected = np.log(likelihood) + np.log(density).sum() + np.log(6 * fit.share * (1 - fit.share))
    assert fit.log_posterior[-1] == pytest.approx(expected, abs=1e-3)


def test_rates_are_found_from_answers_alone():
    random = np.random.default_rng(2)
    false_yes, false_no = [0.05, 0.3, 0.15, 0.1], [0.2, 0.05, 0.1, 0.25]
    good, mask, annotator, yes = answers_of(random, 4000, false_yes, false_no, 3, share=0.7)
    fit = dawid_skene(mask, annotator, yes, unknown(4000), 4)
    assert [one.value for one in fit.false_yes] == pytest.approx(false_yes, abs=0.05)
    assert [one.value for one in fit.false_no] == pytest.approx(false_no, abs=0.05)
    assert fit.share == pytest.approx(good.mean(), abs=0.03)


def test_who_always_says_yes_is_found_out():
    random = np.random.default_rng(3)
    good, mask, annotator, yes = answers_of(random, 600, [0.05] * 3 + [1.0] * 2, [0.05] * 3 + [0.0] * 2, 5)
    fit = dawid_skene(mask, annotator, yes, unknown(600), 5)
    assert min(one.low for one in fit.false_yes[3:]) > 0.9
    assert max(one.high for one in fit.false_yes[:3]) < 0.15
    votes = np.bincount(mask, weights=yes, minlength=600) > 2.5
    assert ((fit.good > 0.5) == good).mean() > (votes == good).mean() + 0.04


def test_few_answers_give_no_extremes():
    nothing = dawid_skene(*(np.zeros(0, kind) for kind in (int, int, bool)), unknown(0), 1)
    assert (nothing.false_yes[0].value, nothing.share) == (0.1, 0.5)
    one = dawid_skene(np.array([0]), np.array([0]), np.array([True]), np.array([0.0]), 1)
    assert one.false_yes[0].value == pytest.approx(2 / 11)
    assert one.false_yes[0].high - one.false_yes[0].low > 0.3


def test_intervals_hold_the_rates_where_the_truth_is_known():
    random = np.random.default_rng(4)
    held = 0
    for _ in range(300):
        rate = random.beta(2, 10)
        good, mask, annotator, yes = answers_of(random, 80, [rate], [0.0], 1)
        estimate = dawid_skene(mask, annotator, yes, good.astype(float), 1).false_yes[0]
        held += estimate.low <= rate <= estimate.high
    # The prior of the estimate is that of the rates, so that the interval is exact: 285 expected.
    assert 270 <= held <= 297
