from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segloop.annotation.certificates import bad_limit
from segloop.annotation.sequential import (
    HORIZONS,
    NEVER,
    Design,
    design,
    false_acceptance,
    follow,
    law,
    next_look,
    outcome,
)


def designed(unknown, known_good, target, delta, share=0.4, spread=0.5, **options):
    """Return a design under the belief that about `share` of the allowed masks are bad."""
    mean = (1 - target) * unknown * share
    belief = np.unique(np.clip(np.round(mean * np.linspace(1 - spread, 1 + spread, 12)), 0, unknown))
    options = {"price": 1.0, "n_max": 1700, **options}
    return design(unknown, known_good, target, delta, belief=belief, weight=np.ones(len(belief)), **options)


def chances(made: Design, bad: int) -> tuple[dict[int, float], float]:
    """Return P(accepted with x found) and the questions to be expected, state by state, from the definition."""
    here, accepted, questions = {0: 1.0}, {}, 0.0
    for asked in range(made.most_questions + 1):
        ahead = {}
        for found, chance in here.items():
            said = outcome(made, asked, found)
            if said != "ask":
                questions += asked * chance
                if said == "accept":
                    accepted[found] = accepted.get(found, 0.0) + chance
                continue
            p = (bad - found) / (made.unknown - asked)
            for more, share in ((1, p), (0, 1 - p)):
                if share > 0:
                    ahead[found + more] = ahead.get(found + more, 0.0) + chance * share
        here = ahead
    return accepted, questions


def worst(made: Design) -> float:
    """Return the largest probability of a false claim, over every number of bad masks, from the definition."""
    size, most = made.unknown + made.known_good, 0.0
    for bad in range(made.unknown + 1):
        accepted, _ = chances(made, bad)
        wrong = [p for found, p in accepted.items() if bad - found > (1 - made.target) * (size - found) + 1e-9]
        most = max(most, sum(wrong))
    return most


# --- validity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.6, 0.8, 0.9, 0.97])
@pytest.mark.parametrize("known_good", [0, 7, 60])
@pytest.mark.parametrize("unknown", [21, 48, 90, 230])
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_a_false_claim_is_accepted_with_probability_delta_at_most(unknown, known_good, target, delta):
    made = designed(unknown, known_good, target, delta)
    if made is None:
        # Only where hardly anything could be shown: even 20 good answers in a row leave the claim open.
        assert (1 - target) ** -1 > 10 or unknown < 60
        return
    most = worst(made)
    assert most <= delta + 1e-12
    assert false_acceptance(made) == pytest.approx(most, abs=1e-12)


def test_the_law_is_that_of_every_order_of_the_answers():
    made = designed(11, 2, 0.6, 0.25, n_max=8)
    assert made is not None
    assert made.step == 1
    for bad in range(12):
        orders = list(combinations(range(11), bad))
        accepted, questions = np.zeros(20), 0
        for order in orders:
            said, asked, found = follow(made, np.isin(np.arange(11), order))
            accepted[found] += said == "accept"
            questions += asked
        exact, expected = law(made, [bad])
        assert np.allclose(exact[0], accepted[: exact.shape[1]] / len(orders))
        assert accepted[exact.shape[1] :].sum() == 0
        assert expected[0] == pytest.approx(questions / len(orders))


@pytest.mark.parametrize(
    ("unknown", "known_good", "target", "share", "options"),
    [
        (300, 20, 0.9, 0.7, {}),
        (300, 20, 0.9, 0.7, {"price": 40.0}),
        (428, 419, 0.9, 1.2, {"salvage": 100.0, "step": 3}),
        (250, 0, 0.5, 0.9, {"price": 0.0}),
        (90, 5, 0.8, 0.5, {"n_max": 15}),
    ],
)
def test_the_law_follows_from_the_definition(unknown, known_good, target, share, options):
    made = designed(unknown, known_good, target, 0.05, share=share, **options)
    # Limits of rejection far from those of acceptance, or none at all, leave many counts open.
    none = replace(made, reject=np.full(len(made.reject), NEVER))
    late = replace(made, reject=np.where(made.reject < NEVER, np.maximum(made.reject, made.accept.max() + 9), NEVER))
    numbers = np.unique(np.linspace(0, unknown, 8).astype(int))
    for one in (made, none, late):
        accepted, questions = law(one, numbers)
        for row, bad in enumerate(numbers.tolist()):
            chance, expected = chances(one, bad)
            exact = [chance.pop(found, 0.0) for found in range(accepted.shape[1])]
            assert np.allclose(accepted[row], exact, rtol=1e-9, atol=1e-15)
            assert not chance
            assert questions[row] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("unknown", "known_good"), [(626, 38), (330, 1000), (235, 9)])
def test_an_audit_that_may_ask_about_all_masks(unknown, known_good):
    made = designed(unknown, known_good, 0.9, 0.05, share=1.2, spread=0.7, price=0.0, n_max=unknown, start=9)
    assert made.most_questions > 0.7 * unknown
    false = np.arange(int(bad_limit(unknown + known_good, 0, 0.9)) + 1, unknown + 1)
    for bad in false[np.unique((len(false) ** np.linspace(0, 1, 8)).astype(int)) - 1].tolist():
        accepted, _ = chances(made, bad)
        wrong = sum(p for found, p in accepted.items() if bad > bad_limit(unknown + known_good, found, 0.9))
        assert wrong <= 0.05 + 1e-12


@settings(max_examples=60, deadline=None)
@given(
    unknown=st.integers(1, 150),
    known_good=st.integers(0, 80),
    target=st.sampled_from([0.5, 0.7, 0.85, 0.9, 0.99]),
    delta=st.sampled_from([0.01, 0.05, 0.3]),
    price=st.floats(0, 50),
    salvage=st.floats(0, 100),
    step=st.sampled_from([1, 3, 5, 25]),
    n_max=st.integers(0, 200),
    data=st.data(),
)
def test_no_belief_makes_it_invalid(unknown, known_good, target, delta, price, salvage, step, n_max, data):
    belief = data.draw(st.lists(st.integers(0, unknown), min_size=1, max_size=5))
    weight = data.draw(st.lists(st.floats(0, 1), min_size=len(belief), max_size=len(belief)))
    assume(sum(weight) > 1e-6)
    options = {"price": price, "salvage": salvage, "step": step, "n_max": n_max}
    made = design(unknown, known_good, target, delta, belief=belief, weight=weight, **options)
    if made is not None:
        assert made.exact
        assert made.most_questions <= min(n_max, unknown)
        assert worst(made) <= delta + 1e-12


@pytest.mark.parametrize(("unknown", "known_good", "target"), [(60, 0, 0.8), (700, 300, 0.9), (9000, 60, 0.9)])
def test_simulated_audits_agree_with_the_law(unknown, known_good, target):
    made = designed(unknown, known_good, target, 0.05, share=0.7)
    size = unknown + known_good
    bad = int(bad_limit(size, made.accept.max() // 2, target)) + 1
    random = np.random.default_rng(0)
    runs, accepted, false, questions = 1500, 0, 0, []
    for _ in range(runs):
        drawn = random.permutation(unknown)[: made.most_questions] < bad
        said, asked, found = follow(made, drawn)
        accepted += said == "accept"
        false += said == "accept" and bad > bad_limit(size, found, target)
        questions.append(asked)
    exact, expected = law(made, [bad])
    # Rounding may put a sure thing a little above 1.
    chance = min(exact.sum(), 1.0)
    assert abs(accepted - runs * chance) <= 4 * np.sqrt(runs * chance * (1 - chance)) + 1
    assert abs(np.mean(questions) - expected[0]) <= 4 * np.std(questions) / np.sqrt(runs)
    assert 0 < false <= runs * 0.05 + 3 * np.sqrt(runs * 0.05)


def test_the_error_allowed_is_used():
    made = designed(2000, 50, 0.9, 0.05, share=0.6)
    assert 0.03 < false_acceptance(made) <= 0.05


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [60, 500, 8000])
@pytest.mark.parametrize("known_good", [0, 100])
@pytest.mark.parametrize("target", [0.8, 0.9])
def test_limits_rise_and_stay_apart(unknown, known_good, target):
    made = designed(unknown, known_good, target, 0.05, share=0.7)
    looks = np.arange(made.step, made.most_questions + 1, made.step)
    between = np.setdiff1d(np.arange(made.most_questions + 1), looks)
    assert np.all(np.diff(made.accept[looks]) >= 0)
    assert np.all(made.accept < made.reject)
    assert np.all(made.accept[between] == -1)
    assert np.all(made.reject[between] == NEVER)
    assert made.reject[-1] == made.accept[-1] + 1
    assert np.all(made.accept <= np.arange(len(made.accept)))
    assert made.most_questions == HORIZONS[made.index]


def test_what_is_expected_follows_from_the_law():
    belief, weight = np.array([20, 50, 90]), np.array([1, 2, 1])
    made = design(1000, 40, 0.9, 0.05, belief=belief, weight=weight, price=1.0, n_max=400)
    accepted, questions = law(made, belief)
    share, passes = weight / 4, accepted.sum(axis=1)
    assert made.passes == pytest.approx(share @ passes)
    assert made.cost == pytest.approx(share @ questions)
    assert made.masks == pytest.approx(share @ (passes * (1040 - belief) + (1 - passes) * 40))
    # A cleaner set passes more often.
    assert passes[0] > passes[1] > passes[2]


def worth(made: Design, belief, price: float) -> float:
    """Return the good masks to be expected, less the price of the questions: all of the set, or the confirmed ones."""
    total = 0.0
    for bad in belief:
        here = {0: 1.0}
        for asked in range(made.most_questions + 1):
            ahead = {}
            for found, chance in here.items():
                said = outcome(made, asked, found)
                if said == "ask":
                    p = (bad - found) / (made.unknown - asked)
                    ahead[found + 1] = ahead.get(found + 1, 0.0) + chance * p
                    ahead[found] = ahead.get(found, 0.0) + chance * (1 - p)
                else:
                    kept = made.unknown - bad if said == "accept" else asked - found
                    total += chance * (made.known_good + kept - price * asked) / len(belief)
            here = ahead
    return total


@pytest.mark.parametrize("price", [1.0, 1.5, 2.5])
def test_no_other_limit_of_rejection_is_worth_more(price):
    belief = [3, 12, 20, 30]
    made = design(60, 5, 0.7, 0.1, belief=belief, weight=np.ones(4), price=price, n_max=19, exact=False)
    best, changed = worth(made, belief, price), 0
    for asked in range(1, made.most_questions):
        for limit in range(int(made.accept[asked]) + 1, asked + 2):
            reject = made.reject.copy()
            reject[asked] = limit
            other = worth(replace(made, reject=reject), belief, price)
            assert other <= best + 1e-9
            changed += other < best - 1e-3
    assert changed > 10


def test_dear_questions_end_an_audit_early():
    cheap, dear = (designed(3000, 50, 0.9, 0.05, share=0.9, price=price, n_max=450) for price in (0.01, 60))
    bad = [int(0.15 * 3000)]
    assert law(dear, bad)[1][0] < law(cheap, bad)[1][0]
    assert dear.passes <= cheap.passes


def test_a_plan_is_close_to_the_design_it_stands_for():
    plan, made = (designed(3000, 50, 0.9, 0.05, share=0.6, exact=exact) for exact in (False, True))
    assert not plan.exact
    assert plan.index == made.index
    assert plan.passes == pytest.approx(made.passes, abs=0.05)


def test_many_known_good_masks_allow_for_more_bad_ones_than_the_target_suggests():
    # 600 of 3000 masks may be bad: .6 of the unknown ones.
    made = designed(1000, 2000, 0.8, 0.05, share=2.0, spread=0.2)
    assert made.accept[-1] > 0.3 * made.most_questions
    assert made.passes > 0.9
    assert false_acceptance(made) <= 0.05


# --- small and odd sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unknown", "known_good"), [(100, 900), (5, 45), (0, 3), (0, 0), (1, 9)])
def test_a_claim_that_is_true_anyway_needs_no_question(unknown, known_good):
    made = design(unknown, known_good, 0.9, 0.05, belief=[0], weight=[1], price=1, n_max=0)
    assert made.most_questions == 0
    assert follow(made, np.zeros(0, np.bool_)) == ("accept", 0, 0)
    assert (made.passes, made.cost, false_acceptance(made)) == (1, 0, 0)
    assert made.masks == unknown + known_good


@pytest.mark.parametrize("unknown", [1, 2, 7, 19])
def test_a_tiny_set_is_asked_one_by_one_as_far_as_needed(unknown):
    made = design(unknown, 0, 0.9, 0.05, belief=[0], weight=[1], price=0, n_max=100)
    assert made.step == 1
    assert follow(made, np.zeros(unknown, np.bool_))[0] == "accept"
    assert worst(made) <= 0.05


def test_too_few_questions_show_nothing():
    assert designed(5000, 0, 0.9, 0.05, n_max=0) is None
    assert designed(5000, 0, 0.9, 0.05, n_max=-3) is None
    assert designed(5000, 0, 0.9, 0.05, n_max=19) is None
    # 28 good answers in a row leave .9 open at .05, and more than 20 are needed at .8 with one look.
    assert designed(100_000, 0, 0.9, 0.05, n_max=28) is None
    few = designed(5000, 0, 0.8, 0.05, n_max=19, share=0.1)
    assert few.most_questions == 19
    assert worst_at_limit(few) <= 0.05


def worst_at_limit(made):
    return max(law(made, [int(bad_limit(made.unknown, found, made.target)) + 1])[0].sum() for found in range(3))


def test_a_target_next_to_one_needs_nearly_all_answers():
    assert designed(2000, 0, 0.9999, 0.05, share=0) is None
    made = design(20, 0, 0.999, 0.05, belief=[0], weight=[1], price=0, n_max=100)
    assert made is not None
    assert worst(made) <= 0.05
    assert follow(made, np.zeros(20, np.bool_))[:2] == ("accept", 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"belief": [-1]}, "belief"),
        ({"belief": [51]}, "belief"),
        ({"belief": [1, 2]}, "belief"),
        ({"weight": [0]}, "belief"),
        ({"weight": [-1]}, "belief"),
        ({"weight": [np.nan]}, "belief"),
        ({"belief": [], "weight": []}, "belief"),
        ({"target": 1.0}, "claim"),
        ({"target": 0.0}, "claim"),
        ({"unknown": -1}, "claim"),
        ({"known_good": -1}, "claim"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"step": 0}, "step"),
    ],
)
def test_impossible_parameters_are_errors(change, message):
    given = {"unknown": 50, "known_good": 0, "target": 0.9, "delta": 0.05, "belief": [3], "weight": [1]}
    with pytest.raises(ValueError, match=message):
        design(**{**given, "price": 1.0, "n_max": 40, **change})


# --- following a design -----------------------------------------------------------------------------------------------

AUDIT = designed(700, 30, 0.9, 0.05, share=0.7)
SMALL = designed(60, 5, 0.7, 0.1, price=0.1, n_max=15)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([AUDIT, SMALL]), st.integers(0, 2**32 - 1), st.floats(0, 0.4))
def test_asking_from_look_to_look_ends_like_asking_one_by_one(made, seed, share):
    bad = np.random.default_rng(seed).random(made.most_questions) < share
    asked, looks = 0, 0
    while follow(made, bad[:asked])[0] == "ask":
        assert follow(made, bad[:asked])[1] == asked
        asked, looks = next_look(made, asked, int(bad[:asked].sum())), looks + 1
    single = next(n for n in range(len(bad) + 1) if outcome(made, n, int(bad[:n].sum())) != "ask")
    assert follow(made, bad[:asked]) == follow(made, bad)
    # No question was asked that could not have been needed.
    assert asked == follow(made, bad)[1] == single
    assert looks <= made.most_questions // made.step


@pytest.mark.parametrize(("asked", "bad"), [(-1, 0), (5, 6), (5, -1), (AUDIT.most_questions + 1, 0)])
def test_counts_that_do_not_occur_are_errors(asked, bad):
    with pytest.raises(ValueError, match="do not occur"):
        outcome(AUDIT, asked, bad)


def test_the_last_look_decides():
    last = AUDIT.most_questions
    assert outcome(AUDIT, last, int(AUDIT.accept[last])) == "accept"
    assert outcome(replace(AUDIT, reject=np.full(last + 1, NEVER)), last, last) == "reject"


def test_tables_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        AUDIT.accept[3] = 5
