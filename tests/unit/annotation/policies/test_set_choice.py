import numpy as np
import pytest
from scipy.special import expit

from segloop.annotation.policies.quality_model import Posterior
from segloop.annotation.policies.set_choice import NestedSets, Setting, choose_set, worth
from segloop.annotation.sequential import false_acceptance, follow, law

N = 2000


def belief(low=-1.0, high=5.0, spread=0.4, n=N):
    """P(good) falls from the first mask to the last; the draws of the posterior shift all of them together."""
    centre = np.linspace(high, low, n)
    shift = spread * np.random.default_rng(0).standard_normal(200)

    def sample(rows):
        return expit(centre[rows, None] + shift).astype(np.float32)

    probability = sample(np.arange(n)).mean(axis=1)
    return Posterior(probability, np.full(n, spread**2, np.float32), sample)


def setting(**changed):
    usual = {"known_good": 30, "asked": 60, "left": 700, "target": 0.9, "delta": 0.035, "price": 2.0, "salvage": 0.4}
    return Setting(**{**usual, "start": None, **changed})


def random():
    return np.random.default_rng(5)


def answered(rows=()):
    known = np.zeros(N, np.bool_)
    known[list(rows)] = True
    return known


def nested(given=None, **changed):
    given, arguments = given or belief(), (answered(), setting(**changed))
    planned = choose_set(given, *arguments, random())
    return planned, NestedSets(given, *arguments, random(), planned)


def test_the_set_is_the_top_of_the_ranking_without_what_is_known():
    known = answered(range(0, 200, 2))
    choice = choose_set(belief(), known, setting(), random(), exact=True)
    unknown = np.flatnonzero(~known)
    assert np.array_equal(choice.rows, unknown[: len(choice.rows)])
    assert choice.design.exact
    assert choice.design.unknown == len(choice.rows)
    assert choice.worth == worth(choice.masks, 60 + choice.cost)


def test_the_set_is_worth_more_than_others():
    given, arguments = belief(), (answered(), setting())
    best = choose_set(given, *arguments, random())
    sets = NestedSets(given, *arguments, random(), best)
    larger = sets.choice(len(sets) - 1)
    # What a set and its audit bring, for the questions before and those of the audit.
    assert best.worth > worth(larger.masks, 60 + larger.cost)


def test_a_better_belief_gives_a_larger_set():
    assert len(choose_set(belief(high=6), answered(), setting(), random()).rows) > len(
        choose_set(belief(high=4), answered(), setting(), random()).rows
    )


@pytest.mark.parametrize("low, high", [(-3.0, -1.0), (-1.0, 1.0)])
def test_no_set_where_none_can_be_expected_to_pass(low, high):
    assert choose_set(belief(low, high), answered(), setting(), random()) is None


def test_no_set_of_a_few_masks():
    known = answered(range(20, N))
    assert choose_set(belief(), known, setting(), random()) is None


def test_a_set_has_to_beat_what_is_held_already():
    nothing, plenty = (
        choose_set(belief(), answered(), setting(held=held, salvage=0.0), random()).design for held in (0.0, 5000.0)
    )
    assert nothing.passes > 0.9
    assert plenty.passes < 0.01


def test_nested_sets_begin_with_the_planned_one_and_grow_while_the_target_is_in_reach():
    planned, sets = nested()
    first = sets.choice(0)
    assert np.array_equal(first.rows, planned.rows)
    assert len(sets) > 1
    before = first.rows
    for number in range(1, len(sets)):
        rows = sets.choice(number).rows
        assert len(rows) == int(1.3 * len(before))
        assert np.array_equal(rows[: len(before)], before)
        before = rows
    assert np.array_equal(sets.rows, before)
    expected = belief().probability[sets.rows].mean()
    assert expected >= 0.9 - 0.03 - 0.01


def test_every_audit_of_nested_sets_is_exact():
    _, sets = nested()
    for number in range(len(sets)):
        design = sets.choice(number).design
        assert design.exact
        assert design.known_good == 30
        assert design.unknown == len(sets.choice(number).rows)
        assert 0.01 < false_acceptance(design) <= 0.035


def test_later_audits_ask_no_more_questions_and_do_not_give_up_for_their_price():
    _, sets = nested(price=5.0)
    given, (first, second) = belief(), (sets.choice(number) for number in (0, 1))
    charged = choose_set(given, answered(), setting(price=20.0), random())
    assert second.design.most_questions == first.design.most_questions
    # At a high price even the best audit ends at its first look; the second of nested sets may well pass.
    assert charged.design.passes < 0.01
    assert second.design.passes > 0.5


def test_the_same_arguments_give_the_same_nested_sets_and_audits():
    _, sets = nested()
    _, again = nested()
    one = [sets.choice(number) for number in range(len(sets))]
    other = [again.choice(number) for number in range(len(again))]
    for mine, theirs in zip(one, other, strict=True):
        assert np.array_equal(mine.rows, theirs.rows)
        assert np.array_equal(mine.design.accept, theirs.design.accept)
        assert np.array_equal(mine.design.reject, theirs.design.reject)


def test_the_first_set_that_is_not_what_is_claimed_is_claimed_with_probability_delta_at_most():
    _, sets = nested(price=5.0, delta=0.1)
    choices = [sets.choice(number) for number in range(len(sets))]
    assert len(choices) == 3
    # The smallest set is good; the middle one has as many bad masks as its audit takes for fewer most often.
    design, outer = choices[1].design, np.setdiff1d(choices[1].rows, choices[0].rows)
    numbers = np.arange(len(outer) + 1)
    chance, _ = law(design, numbers)
    found = np.arange(chance.shape[1])
    false = numbers[:, None] - found > (1 - design.target) * (design.known_good + design.unknown - found)
    errors = (chance * false).sum(axis=1)
    bad = np.zeros(N, np.bool_)
    bad[outer[: errors.argmax()]] = True
    assert 0.05 < errors.max() <= 0.1

    draws, passed, wrong = np.random.default_rng(1), 0, 0
    for _ in range(2000):
        order = draws.permutation(np.sort(sets.rows))
        one, two = (order[np.isin(order, choice.rows)] for choice in choices[:2])
        if follow(choices[0].design, bad[one])[0] == "accept":
            passed += 1
            outcome, _, x = follow(design, bad[two])
            left = design.known_good + design.unknown - x
            wrong += outcome == "accept" and np.count_nonzero(bad) - x > (1 - design.target) * left
    assert passed == 2000
    # What both audits share does not change the law of the second: three standard deviations.
    assert abs(wrong / 2000 - errors.max()) <= 3 * np.sqrt(0.1 * 0.9 / 2000)


def test_a_set_that_was_planned_elsewhere_is_refused():
    planned = choose_set(belief(), answered(), setting(), random())
    with pytest.raises(ValueError, match="not chosen with the same arguments"):
        NestedSets(belief(), answered(range(len(planned.rows) + 900)), setting(target=0.97), random(), planned)
