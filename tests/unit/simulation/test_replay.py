from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.annotators import Annotators
from segloop.annotation.answers import YES
from segloop.annotation.certificates import Certificate
from segloop.annotation.driver import ask_the_rest, ask_until_done
from segloop.annotation.policies import Decision, make_policy
from segloop.annotation.policies.base import Judgement, Known
from segloop.annotation.recorded import policy_seed
from segloop.annotation.verdicts import ACCEPTED, CLUSTER
from segloop.config import AnnotationConfig, AuditConfig, OracleConfig
from segloop.simulation.replay import Curve, _Course, certified_precision, settings_of, simulate
from segloop.simulation.worlds import KnownWorld

THESIS = AnnotationConfig(policy="thesis", n=4, t_agr=1.0)


def truthful(known: KnownWorld) -> Annotators:
    return Annotators.of(AnnotationConfig(), 0, known.world.prediction, known.good)


def test_asking_every_mask_finds_all_and_nothing_else(known: KnownWorld) -> None:
    result = simulate(known, AnnotationConfig(policy="per_mask"), 0)
    good = int(known.good.sum())
    assert (result.questions, result.accepted, result.correct, result.confirmed) == (400, good, good, good)
    assert (result.precision, result.recall) == (1.0, 1.0)
    assert result.masks_per_question == good / 400
    assert result.certified is None and result.answered_throughout


def test_a_result_is_what_the_driver_gives(known: KnownWorld) -> None:
    truth = np.where(known.good, YES, -YES).astype(np.int8)
    policy, key = make_policy(THESIS), policy_seed(5, 0)
    asked = ask_until_done(policy, known.world, key, lambda rows: truth[rows], policy.units(known.world))
    asked, decision = ask_the_rest(policy, known.world, key, lambda rows: truth[rows], asked)
    result = simulate(known, THESIS, 5)
    accepted = decision.verdict == ACCEPTED
    assert 0 < result.questions == len(asked.row) < 400
    assert result.accepted == accepted.sum() > result.confirmed
    assert result.correct == (accepted & known.good).sum()
    assert result.precision == pytest.approx(known.good[accepted].mean())
    assert result.recall == pytest.approx(accepted[known.good].mean())
    assert simulate(known, THESIS, 5).record() == result.record() != simulate(known, THESIS, 6).record()


def test_the_record_has_these_keys_and_no_others(known: KnownWorld) -> None:
    record = simulate(known, THESIS, 0).record()
    assert list(record) == [
        "world",
        "n",
        "seed",
        "policy",
        "questions",
        "masks_per_question",
        "precision",
        "recall",
        "certified",
    ]
    assert record["world"] == "clumps" and record["policy"] == "thesis" and record["certified"] is None


@given(limit=st.integers(1, 400), seed=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_the_curve_passes_where_a_smaller_limit_ends(known: KnownWorld, limit: int, seed: int) -> None:
    course = _Course(truthful(known))
    policy, key = make_policy(AnnotationConfig(policy="per_mask")), policy_seed(seed, 0)
    asked = ask_until_done(policy, known.world, key, course.answer, policy.units(known.world), course.decided_in_part)
    ask_the_rest(policy, known.world, key, course.answer, asked, course.decided)
    curve = course.curve()
    place = int(np.searchsorted(curve.questions, limit, side="right")) - 1
    ended = simulate(known, AnnotationConfig(policy="per_mask", questions=limit), seed)
    assert curve.questions[place] == ended.questions == limit
    assert (curve.accepted[place], curve.correct[place], curve.confirmed[place]) == (
        ended.accepted,
        ended.correct,
        ended.confirmed,
    )


def test_parts_of_a_decision_add_up_to_the_whole(known: KnownWorld) -> None:
    # The last point before everything is decided at once holds what the parts decided.
    course = _Course(truthful(known))
    policy, key = make_policy(THESIS), policy_seed(1, 0)
    asked = ask_until_done(policy, known.world, key, course.answer, policy.units(known.world), course.decided_in_part)
    in_parts = course.curve()
    ask_the_rest(policy, known.world, key, course.answer, asked, course.decided)
    whole = course.curve()
    for name in ("questions", "accepted", "correct", "confirmed"):
        assert getattr(in_parts, name)[-1] == getattr(whole, name)[-1] > 0
    assert (np.diff(whole.questions) >= 0).all() and (whole.correct <= whole.accepted).all()
    assert len(np.unique(whole.accepted - whole.confirmed)) > 1


def test_a_bad_mask_of_an_accepted_cluster_leaves_it_when_it_is_answered() -> None:
    ids = np.arange(4, dtype=np.uint64)
    course = _Course(Annotators.of(AnnotationConfig(), 0, ids, np.array([True, False, True, False])))
    judgement = Judgement.none(4)
    judgement.verdict[:], judgement.reason[:] = ACCEPTED, CLUSTER
    course.decided(judgement.decision(Known.none(4), question_row=np.array([1, 0])))
    course.answer(np.array([1, 0]))
    curve = course.curve()
    assert curve.questions.tolist() == [0, 1, 2]
    assert curve.accepted.tolist() == [4, 3, 3]
    assert curve.correct.tolist() == [2, 2, 2]
    assert curve.confirmed.tolist() == [0, 0, 1]


def test_a_thinned_curve_keeps_its_end() -> None:
    line = np.arange(5001)
    thin = Curve(line, line, line, line).thinned()
    assert thin.questions[-1] == 5000 and 60 < len(thin) < 120
    assert (np.diff(thin.questions) > 0).all() and thin.questions[0] == 0


# --- people who err ---


def test_errors_are_accepted_and_votes_are_paid(known: KnownWorld) -> None:
    noisy = OracleConfig(annotators=3, error_rate=0.2, seconds=2.0)
    result = simulate(known, AnnotationConfig(policy="per_mask", oracle=noisy), 0)
    assert result.questions == 400 and result.seconds == pytest.approx(800)
    assert result.precision is not None and 0.6 < result.precision < 0.95
    assert result.curve.questions[-1] == 400 and result.curve.correct[-1] == result.correct < result.accepted
    audit = AuditConfig(questions=40, votes=3)
    config = AnnotationConfig(policy="thesis", n=4, t_agr=1.0, oracle=noisy, audit=audit)
    alone = simulate(known, config.model_copy(update={"audit": AuditConfig()}), 0)
    voted = simulate(known, config, 0)
    assert voted.questions == alone.questions + 3 * 40 == voted.curve.questions[-1]


def test_gold_and_repeats_cost_answers_and_lower_the_claim(known: KnownWorld) -> None:
    audit = AuditConfig(questions=60, precision=0.5)
    config = AnnotationConfig(policy="thesis", n=4, t_agr=1.0, audit=audit)
    plain = simulate(known, config, 3)
    measured = simulate(known, config.model_copy(update={"gold": 4, "repeats": 10}), 3)
    asked = plain.questions
    assert measured.questions == asked + asked // 4 + asked // 10
    assert plain.certified is not None and measured.certified is not None
    assert plain.certified - 0.2 < measured.certified < plain.certified
    assert measured.seconds == pytest.approx(1.4 * measured.questions)


# --- certificates -----------------------------------------------------------------------------------------------------


def certificate(lower: float, size: int, *, passed: bool = True) -> Certificate:
    return Certificate(
        certificate_id="0:all",
        category=None,
        kind="fixed",
        target=0.9,
        delta=0.05,
        size=size,
        known_good=0,
        asked=10,
        bad=0,
        lower=lower,
        clopper_pearson=lower,
        passed=passed,
    )


def decision(certificates: tuple[Certificate, ...], places: list[int]) -> Decision:
    judgement = Judgement.none(len(places))
    judgement.verdict[:], judgement.reason[:] = ACCEPTED, CLUSTER
    made = judgement.decision(Known.none(len(places)), certificates=certificates)
    return replace(made, certificate=np.array(places, np.int16))


@pytest.mark.parametrize(
    ("certificates", "places", "expected"),
    [
        ((certificate(0.92, 4),), [0, 0, 0, 0], (0.92, 4)),
        ((certificate(0.7, 4, passed=False),), [0, 0, 0, 0], (None, 0)),
        # 0.8 * 1281 / 1281 is below 0.8 in floating point.
        ((certificate(0.8, 1281),), [0, 0, 0, 0], (0.8, 4)),
        ((), [-1, -1, -1, -1], (None, 0)),
        # A failed try before the one that passed.
        ((certificate(0, 9, passed=False), certificate(0.9, 4)), [1, 1, 1, 1], (0.9, 4)),
        # One mask in no audited set, and nobody answered it.
        ((certificate(0.92, 3),), [0, 0, 0, -1], (None, 3)),
        # Two categories: bounds hold together and are averaged by size.
        ((certificate(0.9, 30), certificate(0.96, 10)), [0, 0, 1, 1], (0.915, 4)),
        ((certificate(0.9, 30), certificate(0.5, 10, passed=False)), [0, 0, 1, 1], (None, 2)),
    ],
)
def test_the_whole_set_is_certified_only_where_every_mask_is(
    certificates: tuple[Certificate, ...], places: list[int], expected: tuple[float | None, int]
) -> None:
    lower, count = certified_precision(decision(certificates, places), np.zeros(4, np.bool_))
    assert count == expected[1]
    if expected[0] is None:
        assert lower is None
    else:
        assert lower == pytest.approx(expected[0]) and lower >= min(one.lower for one in certificates if one.passed)


def test_masks_answered_with_yes_need_no_audit() -> None:
    made = decision((certificate(0.92, 3),), [0, 0, 0, -1])
    assert certified_precision(made, np.array([False, False, False, True])) == (0.92, 3)


def test_settings_are_what_differs_from_the_defaults() -> None:
    assert settings_of(AnnotationConfig(policy="per_mask", workers=4, annotator="oracle")) == {}
    config = AnnotationConfig(policy="thesis", n=8, audit=AuditConfig(precision=0.8))
    assert settings_of(config) == {"n": 8, "audit.precision": 0.8}
    reasons = AnnotationConfig.model_validate({"oracle": {"reasons": {"wrong_class": 1.0}}})
    assert settings_of(reasons) == {"oracle.reasons.wrong_class": 1.0}
