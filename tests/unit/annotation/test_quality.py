import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import ANSWER_SCHEMA, NO, OTHER, YES
from segloop.annotation.certificates import delta_of_iteration, fixed_certificate
from segloop.annotation.policies import make_policy
from segloop.annotation.quality import (
    GOLD_SHARE,
    claim,
    claimed_precision,
    combine_votes,
    gold_bound,
    majority,
    measure_annotators,
    without_gold_share,
)
from segloop.config import AnnotationConfig, AuditConfig

WORDS = {YES: "yes", NO: "no", OTHER: "other"}


# --- votes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([YES], YES),
        ([NO], NO),
        ([OTHER], OTHER),
        ([YES, NO], OTHER),
        ([YES, YES, NO], YES),
        ([NO, NO, YES], NO),
        ([YES, OTHER, OTHER], OTHER),
        ([YES, NO, OTHER], OTHER),
        ([], OTHER),
    ],
)
def test_more_than_half_of_the_votes_count(votes, expected):
    assert majority(np.zeros(len(votes), np.int64), np.array(votes, np.int8), 1).tolist() == [expected]


@settings(max_examples=100, deadline=None)
@given(
    votes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([YES, NO, OTHER])), max_size=40),
    needed=st.lists(st.integers(1, 3), min_size=5, max_size=5),
)
def test_votes_are_combined_as_one_by_one(votes, needed):
    columns = [np.array([vote[k] for vote in votes], dtype) for k, dtype in enumerate((np.int64, np.int64, np.int8))]
    place, reply = combine_votes(*columns, np.array(needed))
    expected = {}
    for number in range(5):
        last = {who: said for question, who, said in votes if question == number}
        if len(last) >= needed[number]:
            where = max(k for k, vote in enumerate(votes) if vote[0] == number)
            said = list(last.values())
            counts = {word: said.count(word) for word in (YES, NO)}
            expected[where] = next((word for word in counts if 2 * counts[word] > len(said)), OTHER)
    assert dict(zip(place.tolist(), reply.tolist(), strict=True)) == expected
    assert place.tolist() == sorted(place.tolist())


# --- claims -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(good=st.integers(0, 200), bad=st.integers(0, 200), data=st.data())
def test_no_claim_exceeds_the_precision_behind_the_answers(good, bad, data):
    """Whatever masks were answered wrongly, as long as at most a share f of the bad ones was."""
    said_yes_of_bad = data.draw(st.integers(0, bad))
    said_no_of_good = data.draw(st.integers(0, good))
    if good + bad == 0:
        return
    false_yes = said_yes_of_bad / bad if bad else 0.0
    share_of_yes = (good - said_no_of_good + said_yes_of_bad) / (good + bad)
    lower = share_of_yes * data.draw(st.floats(0, 1))
    upper = data.draw(st.floats(false_yes, 1))
    assert claimed_precision(lower, upper) <= good / (good + bad) + 1e-9


def test_claims_fall_with_errors_and_meet_the_truth_without_errors_about_good_masks():
    assert claimed_precision(0.9, 0.0) == 0.9
    assert claimed_precision(0.82, 0.1) == pytest.approx(0.8)
    assert [claimed_precision(0.9, f) for f in (0.9, 0.95, 1.0)] == [0.0, 0.0, 0.0]
    claims = [claimed_precision(0.9, f) for f in np.linspace(0, 1, 21)]
    assert claims == sorted(claims, reverse=True)


def test_certificates_say_what_is_left():
    (one,) = claim((certificate(),), 0.0)
    assert (one.false_yes, one.claimed) == (0.0, one.lower)
    (one,) = claim((certificate(),), 0.5)
    assert one.claimed == pytest.approx(2 * one.lower - 1)
    assert one.lower == certificate().lower
    assert claim((), 0.5) == ()


def certificate():
    numbers = {"known_good": 10, "unknown": 500, "asked": 100, "bad": 2, "target": 0.9, "delta": 0.05}
    return fixed_certificate(certificate_id="1:all", category=None, **numbers)


def test_gold_bounds_are_exact():
    assert gold_bound(0, 0, 0.05).upper == 1.0
    assert gold_bound(10, 10, 0.05).upper == 1.0
    # No error in 59: 1 - 0.05^(1/59).
    assert gold_bound(59, 0, 0.05).upper == pytest.approx(1 - 0.05 ** (1 / 59))


def test_what_fifty_gold_masks_leave_of_a_claim():
    """The figures of docs/costs.md."""
    bound = gold_bound(50, 0, GOLD_SHARE * delta_of_iteration(0.05, 1))
    assert bound.upper == pytest.approx(0.10, abs=0.005)
    assert claimed_precision(0.9, bound.upper) == pytest.approx(0.89, abs=0.005)


def test_the_gold_bound_holds_as_often_as_it_says():
    random = np.random.default_rng(0)
    for rate in (0.02, 0.1, 0.5):
        wrong = random.binomial(80, rate, 2000)
        above = np.mean([gold_bound(80, int(x), 0.1).upper < rate for x in wrong])
        assert above <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 2000)


def test_audits_leave_of_delta_what_gold_spends():
    config = AnnotationConfig(policy="score_audit", audit=AuditConfig(delta=0.1))
    assert make_policy(config, 2).delta == 0.025
    gold = make_policy(config.model_copy(update={"gold": 20}), 2)
    assert gold.delta == pytest.approx((1 - GOLD_SHARE) * 0.025)
    assert without_gold_share(config) is config


@pytest.mark.parametrize(("share_bad", "false_yes"), [(0.05, 0.02), (0.15, 0.3), (0.3, 0.6)])
def test_claims_hold_although_annotators_err(share_bad, false_yes):
    """Audit and gold answered by the same people: at most delta of the claims exceed the precision of what is left."""
    random, delta, masks, asked = np.random.default_rng(5), 0.1, 1500, 120
    good = np.arange(masks) >= share_bad * masks
    exceeded, unmended = 0, 0
    for _ in range(300):
        said = np.where(good, random.random(masks) >= 0.05, random.random(masks) < false_yes)
        sample = random.permutation(masks)[:asked]
        left = np.delete(good, sample[~said[sample]])
        one = fixed_certificate(
            certificate_id="0:all", category=None, target=0.9, delta=(1 - GOLD_SHARE) * delta,
            known_good=0, unknown=masks, asked=asked, bad=int((~said[sample]).sum()),
        )  # fmt: skip
        gold = gold_bound(40, int(random.binomial(40, false_yes)), GOLD_SHARE * delta)
        exceeded += claim((one,), gold.upper)[0].claimed > left.mean()
        unmended += one.lower > left.mean()
    assert exceeded <= delta * 300
    # Without gold the worst annotators' audits claim too much, so that this test can fail.
    assert (unmended > delta * 300) == (false_yes == 0.6)


# --- who answered -----------------------------------------------------------------------------------------------------


def table_of(rows):
    """Return answers: (mask, annotator, purpose, reply)."""
    records = [
        {"mask_key": key(mask), "annotator": who, "purpose": purpose, "reply": WORDS[reply]}
        for mask, who, purpose, reply in rows
    ]
    return pa.Table.from_pylist(records, schema=ANSWER_SCHEMA)


def key(mask):
    return bytes([mask % 256, mask // 256]) * 16


def test_who_always_says_yes_leaves_nothing_to_claim():
    answers = table_of([(mask, "p", "gold", YES) for mask in range(40)])
    bound, people = measure_annotators(answers, {key(mask): mask % 2 == 0 for mask in range(40)}, 1, 0.01)
    assert (bound.asked, bound.wrong, bound.upper) == (20, 20, 1.0)
    assert people["p"]["gold"] == {"asked": 40, "wrong": 20}
    assert people["p"]["false_yes"]["low"] > 0.4
    assert people["p"]["false_no"]["high"] < 0.2
    assert claim((certificate(),), bound.upper)[0].claimed == 0.0


def test_gold_counts_by_the_majority_once_it_has_enough_votes():
    gold = {key(mask): False for mask in range(3)}
    votes = [(0, "p", "gold", YES), (0, "q", "gold", NO), (0, "r", "gold", NO), (1, "p", "gold", YES)]
    bound, people = measure_annotators(table_of(votes), gold, 3, 0.05)
    assert (bound.asked, bound.wrong) == (1, 0)
    assert people["p"]["gold"] == {"asked": 2, "wrong": 2}
    bound, _ = measure_annotators(table_of([*votes, (1, "q", "gold", YES), (1, "r", "gold", NO)]), gold, 3, 0.05)
    assert (bound.asked, bound.wrong) == (2, 1)


def test_gold_answers_without_a_truth_measure_nobody():
    bound, people = measure_annotators(table_of([(0, "p", "gold", YES), (0, "p", "decide", YES)]), {}, 1, 0.05)
    assert bound is None
    assert people["p"] == {
        "answers": 2,
        "gold": {"asked": 0, "wrong": 0},
        "repeats": {"asked": 0, "different": 0},
        "false_yes": None,
        "false_no": None,
    }


def test_only_good_gold_masks_bound_nothing():
    bound, _ = measure_annotators(table_of([(0, "p", "gold", YES)]), {key(0): True}, 1, 0.05)
    assert (bound.asked, bound.upper) == (0, 1.0)


def test_repeats_are_compared_with_the_answer_before():
    answers = [(0, "p", "decide", YES), (1, "p", "audit", NO), (0, "p", "repeat", YES), (1, "p", "repeat", YES)]
    stranger = [(0, "q", "repeat", NO)]
    _, people = measure_annotators(table_of([*answers, *stranger]), {}, 1, 0.05)
    assert people["p"]["repeats"] == {"asked": 2, "different": 1}
    assert people["q"]["repeats"] == {"asked": 0, "different": 0}


def test_people_are_compared_where_they_answered_the_same_masks():
    both = [(mask, who, "audit", YES if mask % 2 else NO) for mask in range(40) for who in ("p", "q")]
    _, people = measure_annotators(table_of([*both, (99, "r", "decide", YES)]), {}, 1, 0.05)
    assert people["p"]["false_yes"]["high"] < 0.3
    assert people["r"]["false_yes"] is None


def test_nobody_answered():
    assert measure_annotators(table_of([]), {}, 1, 0.05) == (None, {})
