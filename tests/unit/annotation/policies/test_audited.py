from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import NO, OTHER, PURPOSES, YES, Answers
from segloop.annotation.certificates import clopper_pearson_lower, precision_lower
from segloop.annotation.driver import ask_the_rest, ask_until_done
from segloop.annotation.policies import make_policy
from segloop.annotation.policies.audited import Audited, share_questions
from segloop.annotation.policies.base import AUDIT, DECIDE, OUTSIDE, Judgement, known_answers
from segloop.annotation.policies.per_mask import PerMask
from segloop.annotation.policies.thesis import Thesis
from segloop.annotation.verdicts import ACCEPTED, ANSWERED, NO_REASON, PREFIX, REJECTED, UNDECIDED
from segloop.annotation.world import World
from segloop.config import AnnotationConfig, AuditConfig


@dataclass(frozen=True)
class Prefix:
    """Asks about its first rows and accepts some more rows; each answer that it sees makes the set larger."""

    asked: int
    size: int

    def units(self, world):
        return np.full(1, OUTSIDE)

    def step(self, world, answers, seed, units=None):
        known = known_answers(world, answers)
        missing = np.flatnonzero(~known.answered[: self.asked])
        judgement = Judgement.none(len(world))
        if not len(missing):
            size = self.size + len(answers)
            judgement.verdict[:size], judgement.reason[:size] = ACCEPTED, PREFIX
        return judgement.decision(known, question_row=missing)


def world_of(count, kinds=(1,)):
    prediction = np.random.default_rng(3).permutation(np.arange(1, count + 1)).astype(np.uint64)
    category = np.resize(np.array(kinds, np.int32), count)
    return World(None, prediction, category, np.zeros(count, np.float32), np.zeros(count, np.int64))


def answers_of(world, rows, replies, purpose=AUDIT):
    rows = np.asarray(rows, np.int64)
    replies = np.broadcast_to(np.asarray(replies, np.int8), rows.shape)
    return Answers(world.prediction[rows], replies, np.full(len(rows), -1), np.full(len(rows), purpose, np.int8))


def answered(world, decision, truth):
    rows = decision.question_row
    return Answers(
        world.prediction[rows], truth[rows].astype(np.int8), decision.question_node, decision.question_purpose
    )


def ask_all(policy, world, truth, seed, log=None):
    log = Answers.none() if log is None else log
    while not (decision := policy.step(world, log, seed)).done:
        log = Answers.join([log, answered(world, decision, truth)])
    return decision, log


def audited(asked=5, size=95, **audit):
    return Audited(Prefix(asked, size), AuditConfig(questions=30, **audit), iteration=2)


def same(one, other):
    assert one.certificates == other.certificates
    for name in ("verdict", "reason", "node", "certificate", "question_row", "question_draw", "question_purpose"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


TRUTH = np.where(np.arange(300) % 10 == 7, NO, YES)
WORLD = world_of(300)


def test_the_audit_follows_the_policy_and_bounds_its_precision():
    decision, log = ask_all(audited(), WORLD, TRUTH, seed=1)
    assert log.purpose.tolist() == [DECIDE] * 5 + [AUDIT] * 30
    sample = WORLD.rows_of(log.prediction[5:])
    # The policy saw five answers, so that it accepted 100 masks; these five are known.
    assert sample.min() >= 5
    assert sample.max() < 100
    assert len(set(sample.tolist())) == 30
    (one,) = decision.certificates
    bad = int(np.sum(TRUTH[sample] == NO))
    assert bad > 0
    assert (one.certificate_id, one.kind, one.category, one.target) == ("2:all", "fixed", None, 0.9)
    assert (one.known_good, one.asked, one.bad, one.size) == (5, 30, bad, 100 - bad)
    assert one.delta == 0.05 / 4
    assert one.lower == precision_lower(5, 95, 30, bad, one.delta)
    assert one.clopper_pearson == clopper_pearson_lower(30 - bad, 30, one.delta)
    assert np.sum(decision.verdict == ACCEPTED) == one.size
    assert np.array_equal(decision.certificate == 0, decision.verdict == ACCEPTED)
    assert decision.verdict[sample].tolist() == TRUTH[sample].tolist()
    assert np.all(decision.reason[sample] == ANSWERED)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 35), st.integers(0, 2**16))
def test_an_audit_goes_on_where_it_stopped_and_no_order_of_answers_matters(cut, seed):
    whole, log = ask_all(audited(categories=1), WORLD, TRUTH, seed)
    order = np.random.default_rng(seed).permutation(len(log))
    mixed = Answers(*(getattr(log, name)[order] for name in ("prediction", "reply", "node", "purpose")))
    same(audited(categories=1).step(WORLD, mixed, seed), whole)
    part = Answers(*(getattr(mixed, name)[:cut] for name in ("prediction", "reply", "node", "purpose")))
    end, again = ask_all(audited(categories=1), WORLD, TRUTH, seed, part)
    same(end, whole)
    assert sorted(again.prediction.tolist()) == sorted(log.prediction.tolist())


def test_answers_of_the_audit_change_nothing_but_their_masks():
    done, log = ask_all(audited(), WORLD, TRUTH, seed=4)
    other, _ = ask_all(audited(), WORLD, np.where(np.arange(300) < 5, TRUTH, NO), seed=4)
    sample = WORLD.rows_of(log.prediction[5:])
    rest = np.setdiff1d(np.arange(300), sample)
    assert np.array_equal(done.verdict[rest], other.verdict[rest])
    assert np.all(other.verdict[sample] == REJECTED)
    assert not other.certificates[0].passed
    assert other.certificates[0].lower < 0.1


def test_without_enough_masks_all_are_asked_and_the_rest_is_certain():
    decision, log = ask_all(audited(asked=2, size=10), WORLD, TRUTH, seed=0)
    assert sorted(WORLD.rows_of(log.prediction).tolist()) == list(range(12))
    (one,) = decision.certificates
    assert (one.lower, one.passed, one.asked, one.bad, one.size) == (1, True, 10, 1, 11)


def test_nothing_accepted_is_neither_asked_about_nor_certified():
    decision, log = ask_all(audited(asked=0, size=0), WORLD, TRUTH, seed=0)
    assert decision.certificates == ()
    assert len(log) == 0
    assert np.all(decision.certificate == -1)


def test_masks_that_were_all_answered_are_certain():
    policy = Audited(PerMask(questions=40), AuditConfig(questions=30), 0)
    decision, log = ask_all(policy, WORLD, TRUTH, seed=0)
    assert len(log) == 40
    (one,) = decision.certificates
    good = int(np.sum(log.reply == YES))
    assert (one.asked, one.lower, one.passed, one.size, one.known_good) == (0, 1, True, good, good)
    none, _ = ask_all(policy, WORLD, np.full(300, NO), seed=0)
    assert none.certificates == ()


def test_only_yes_counts_as_good():
    others = np.where(TRUTH == NO, OTHER, TRUTH)
    one, log = ask_all(audited(), WORLD, TRUTH, seed=1)
    two, _ = ask_all(audited(), WORLD, others, seed=1)
    assert two.certificates == one.certificates
    sample = WORLD.rows_of(log.prediction[5:])
    assert np.all(two.verdict[sample[TRUTH[sample] == NO]] == UNDECIDED)
    assert np.all(two.certificate[sample[TRUTH[sample] == NO]] == -1)


def test_of_contradicting_answers_the_last_one_counts():
    _, log = ask_all(audited(), WORLD, TRUTH, seed=1)
    row = WORLD.rows_of(log.prediction[5:])[0]
    for reply, change in ((YES, 0), (NO, 1)):
        base, _ = ask_all(audited(), WORLD, np.where(np.arange(300) == row, YES, TRUTH), seed=1)
        contradicted = audited().step(WORLD, Answers.join([log, answers_of(WORLD, [row], reply)]), seed=1)
        assert contradicted.certificates[0].bad == base.certificates[0].bad + change
        assert contradicted.verdict[row] == reply


def test_a_mask_that_turned_out_bad_before_the_audit_is_no_part_of_it():
    _, log = ask_all(audited(), WORLD, TRUTH, seed=1)
    decision = audited().step(WORLD, Answers.join([log, answers_of(WORLD, [0], NO)]), seed=1)
    assert decision.done
    assert decision.certificates[0].known_good == 4
    assert decision.verdict[0] == REJECTED
    assert decision.certificate[0] == -1


def test_an_early_answer_of_the_audit_on_a_mask_that_the_policy_asks_about_is_its_own():
    early = answers_of(WORLD, [3], NO)
    assert audited().step(WORLD, early, seed=1).question_row.tolist() == [0, 1, 2, 4]
    decision, log = ask_all(audited(), WORLD, TRUTH, seed=1, log=early)
    assert len(log) == 35
    assert decision.certificates[0].known_good == 4
    assert decision.certificates[0].asked == 30
    assert decision.verdict[3] == REJECTED


def test_early_answers_of_the_audit_stand_above_verdicts():
    early = answers_of(WORLD, [50, 200], [NO, YES])
    decision = audited().step(WORLD, early, seed=1)
    assert decision.question_row.tolist() == [0, 1, 2, 3, 4]
    assert (decision.verdict[50], decision.verdict[200]) == (REJECTED, ACCEPTED)
    end, _ = ask_all(audited(), WORLD, TRUTH, seed=1, log=early)
    plain, _ = ask_all(audited(), WORLD, np.where(np.arange(300) == 50, NO, TRUTH), seed=1)
    # Masks outside the sample take no part in the audit; that one of them is known can only make the set better.
    assert end.certificates == plain.certificates
    assert end.verdict[50] == REJECTED
    assert end.certificate[200] == -1


def test_gold_answers_are_no_answers():
    gold = answers_of(WORLD, np.arange(300), NO, purpose=PURPOSES.index("gold"))
    decision, _ = ask_all(Audited(Prefix(5, 0), AuditConfig(questions=10), 0), WORLD, TRUTH, seed=1, log=gold)
    assert decision.certificates[0].asked == 10


def test_enforced_targets_leave_only_what_was_confirmed():
    poor = np.where(np.arange(300) % 3 == 0, NO, YES)
    for truth, passes in ((poor, False), (np.full(300, YES), True)):
        decision, log = ask_all(audited(enforce=True, precision=0.8), WORLD, truth, seed=1)
        rows = WORLD.rows_of(log.prediction)
        unanswered = np.setdiff1d(np.arange(95 + 5), rows)
        assert decision.certificates[0].passed == passes
        assert np.all(decision.verdict[unanswered] == (ACCEPTED if passes else UNDECIDED))
        assert np.array_equal(decision.verdict[rows], truth[rows])
        assert np.any(decision.certificate == 0) == passes
    dropped = np.setdiff1d(np.arange(100), rows)
    left, _ = ask_all(audited(enforce=True, precision=0.8), WORLD, poor, seed=1)
    assert np.all(left.reason[dropped] == NO_REASON)


def test_nothing_is_accepted_unaudited_while_the_audit_lasts_where_targets_are_enforced():
    log = answers_of(WORLD, np.arange(5), YES, purpose=DECIDE)
    for enforce, accepted in ((True, 5), (False, 100)):
        decision = audited(enforce=enforce).step(WORLD, log, seed=1)
        assert len(decision.question_row) == 30
        assert np.sum(decision.verdict == ACCEPTED) == accepted
        assert decision.certificates == ()


KINDS = world_of(300, kinds=(4, 4, 4, 9, 9, 2))


def test_large_categories_are_audited_by_themselves():
    decision, log = ask_all(audited(asked=0, size=120, categories=2), KINDS, TRUTH, seed=1)
    first, second, rest = decision.certificates
    assert [one.certificate_id for one in decision.certificates] == ["2:category=4", "2:category=9", "2:rest"]
    assert [one.category for one in decision.certificates] == [4, 9, None]
    assert [one.size + one.bad for one in decision.certificates] == [60, 40, 20]
    assert all(one.delta == pytest.approx(0.05 / 4 / 3) for one in decision.certificates)
    assert first.asked > second.asked > rest.asked >= 1
    assert first.asked + second.asked + rest.asked == len(log) == 30
    kinds = KINDS.category[decision.certificate >= 0]
    names = np.array([4, 9, 2])[decision.certificate[decision.certificate >= 0]]
    assert np.array_equal(kinds, names)


def test_categories_that_pass_are_kept_where_others_fail():
    truth = np.where(KINDS.category == 9, NO, YES)
    policy = Audited(Prefix(0, 300), AuditConfig(questions=290, enforce=True, categories=9), 0)
    decision, log = ask_all(policy, KINDS, truth, seed=1)
    assert [(one.category, one.passed) for one in decision.certificates] == [(4, True), (9, False), (2, True)]
    answered_rows = KINDS.rows_of(log.prediction)
    kept = np.flatnonzero(decision.verdict == ACCEPTED)
    assert np.all(KINDS.category[kept] != 9)
    assert np.array_equal(np.sort(kept), np.flatnonzero(KINDS.category != 9))
    unanswered = np.setdiff1d(np.flatnonzero(KINDS.category == 9), answered_rows)
    assert np.all(decision.verdict[unanswered] == UNDECIDED)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(0, 300), max_size=8))
def test_questions_are_shared_as_far_as_they_go(questions, sizes):
    sizes = np.array(sizes, np.int64)
    shares = share_questions(questions, sizes)
    assert np.all(shares <= sizes)
    assert np.all((shares >= 1) | (sizes == 0))
    sets = np.count_nonzero(sizes)
    assert min(questions, sizes.sum()) <= shares.sum() <= max(min(questions, sizes.sum()), questions + sets - 1, sets)
    order = np.argsort(sizes)
    assert np.all(np.diff(shares[order]) >= -1)


def test_shares_follow_the_square_root():
    assert share_questions(60, np.array([100, 400, 900])).tolist() == [10, 20, 30]
    assert share_questions(60, np.array([1, 400, 900])).tolist() == [1, 24, 35]
    assert share_questions(2, np.array([100, 400, 900])).tolist() == [1, 1, 1]
    assert share_questions(10, np.zeros(0, np.int64)).tolist() == []


def test_every_mask_is_as_likely_to_be_asked_about():
    count = np.zeros(300)
    for seed in range(400):
        log = answers_of(WORLD, np.arange(5), YES, purpose=DECIDE)
        count[audited().step(WORLD, log, seed).question_row] += 1
    assert np.all(count[:5] == 0)
    assert np.all(count[100:] == 0)
    expected = 400 * 30 / 95
    assert np.all(np.abs(count[5:100] - expected) < 4.5 * np.sqrt(expected))


def test_the_order_of_the_rows_does_not_matter():
    log = answers_of(WORLD, np.arange(5), YES, purpose=DECIDE)
    rows = audited().step(WORLD, log, seed=1).question_row
    back = np.random.default_rng(0).permutation(300)
    moved = replace(WORLD, prediction=WORLD.prediction[back])

    @dataclass(frozen=True)
    class Same:
        def units(self, world):
            return np.full(1, OUTSIDE)

        def step(self, world, answers, seed, units=None):
            decision = Prefix(5, 95).step(WORLD, answers, seed, units)
            return replace(
                decision, verdict=decision.verdict[back], reason=decision.reason[back], node=decision.node[back]
            )

    again = Audited(Same(), AuditConfig(questions=30), 2).step(moved, log, seed=1).question_row
    assert np.array_equal(WORLD.prediction[rows], moved.prediction[again])


def test_claims_just_below_the_target_are_false_as_often_as_allowed_at_most():
    world = world_of(200)
    # 21 of 200 are bad: just too many for .9, whatever few the audit finds and drops.
    truth = np.where(np.arange(200) < 24, NO, YES)
    false = 0
    for seed in range(400):
        order = np.random.default_rng(seed).permutation(200)
        policy = Audited(Prefix(0, 200), AuditConfig(questions=60, precision=0.9), 0)
        decision, _ = ask_all(policy, world, truth[order], seed)
        kept = decision.verdict == ACCEPTED
        false += decision.certificates[0].passed and np.mean(truth[order][kept] == YES) < 0.9
    assert false <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05)


def test_a_tree_policy_is_asked_unit_by_unit_and_audited_at_the_end(make_tree, make_world):
    categories = [1] * 80 + [2] * 60
    tree = make_tree(categories)
    world = make_world(tree, categories)
    truth = np.where(np.random.default_rng(0).random(len(world)) < 0.9, YES, NO).astype(np.int8)
    policy = Audited(Thesis(), AuditConfig(questions=20), 1)
    asked = ask_until_done(policy, world, 7, lambda rows: truth[rows], policy.units(world))
    alone = ask_until_done(Thesis(), world, 7, lambda rows: truth[rows], Thesis().units(world))
    assert np.array_equal(asked.row, alone.row)
    everything, decision = ask_the_rest(policy, world, 7, lambda rows: truth[rows], asked)
    audit = everything.purpose == AUDIT
    assert np.array_equal(everything.row[~audit], alone.row)
    assert np.sum(audit) == decision.certificates[0].asked == 20
    assert np.all(decision.verdict[everything.row] == truth[everything.row])
    inner = Thesis().step(world, alone.answers(world), 7)
    unasked = np.setdiff1d(np.arange(len(world)), everything.row)
    assert np.array_equal(decision.verdict[unasked], inner.verdict[unasked])
    assert np.array_equal(decision.node[unasked], inner.node[unasked])
    same(policy.step(world, everything.answers(world), 7), decision)


# --- after a policy that audits itself --------------------------------------------------------------------------------


def separable(count=2400):
    """A world of three categories whose score tells good masks; masks of the smallest are good by chance."""
    random = np.random.default_rng(5)
    world = world_of(count, kinds=(4, 4, 4, 9, 9, 2))
    truth = np.where(random.random(count) < np.where(world.category == 2, 0.55, 0.97), YES, NO)
    score = np.where(np.arange(count) < count * 2 // 3, 0.9, 0.1) + 0.05 * random.random(count)
    return replace(world, score=score.astype(np.float32)), truth.astype(np.int8)


def configured(policy, **audit):
    config = {
        "policy": policy,
        "questions": 400,
        "audit": {"questions": 300, "categories": 3, "precision": 0.85, **audit},
    }
    return AnnotationConfig.model_validate(config)


@pytest.mark.parametrize("name", ["certified", "score_audit"])
@pytest.mark.parametrize("enforce", [False, True])
def test_categories_are_audited_after_a_policy_with_an_audit_of_its_own(name, enforce):
    world, truth = separable()
    config = configured(name, enforce=enforce)
    decision, log = ask_all(make_policy(config), world, truth, seed=1)
    half = config.audit.model_copy(update={"delta": config.audit.delta / 2, "categories": 0})
    own, own_log = ask_all(make_policy(config.model_copy(update={"audit": half})), world, truth, seed=1)
    whole, parts = decision.certificates[: len(own.certificates)], decision.certificates[len(own.certificates) :]
    assert whole == own.certificates and whole[-1].passed
    # The policy asks what it asks alone; its audits spend one half of delta, those of the categories the other.
    assert np.array_equal(log.prediction[: len(own_log)], own_log.prediction)
    assert sum(one.asked for one in parts) == len(log) - len(own_log) > 200
    assert {one.category for one in parts} == {4, 9, 2}
    spent = sum(one.delta for one in parts)
    assert spent == pytest.approx(0.025) and all(one.delta <= 0.025 for one in whole)
    passed = {one.category: one.passed for one in parts}
    assert passed[4] and passed[9] and not passed[2]
    unanswered = np.setdiff1d(np.flatnonzero(own.verdict == ACCEPTED), world.rows_of(log.prediction))
    kept = decision.verdict[unanswered] == ACCEPTED
    poor = world.category[unanswered] == 2
    assert poor.any() and np.array_equal(kept, ~poor if enforce else np.ones(len(poor), bool))
    # Dropped or not, what is claimed of a mask is an audit that passed.
    claims = decision.certificate[unanswered[kept]]
    if enforce:
        assert {decision.certificates[place].category for place in claims.tolist()} == {4, 9}
    else:
        assert set(claims.tolist()) == {len(whole) - 1}
    again = make_policy(config).step(world, log, seed=1)
    assert again.done
    same(again, decision)


def test_a_killed_run_goes_on_in_the_middle_of_the_categories():
    world, truth = separable()
    policy = make_policy(configured("certified"))
    decision, log = ask_all(policy, world, truth, seed=1)
    for cut in (len(log) - 1, len(log) - 250):
        part = log.select(np.arange(len(log)) < cut)
        resumed, _ = ask_all(make_policy(configured("certified")), world, truth, seed=1, log=part)
        same(resumed, decision)


def test_answers_that_a_policy_learned_from_audit_nothing():
    world, truth = separable()
    rows = np.arange(0, 300, 3)
    early = answers_of(world, rows, truth[rows], purpose=AUDIT)
    policy = make_policy(configured("certified"))
    decision, log = ask_all(policy, world, truth, seed=1, log=early)
    _, used = policy.inner.ended(world, log, 1)
    assert np.isin(rows, used).all()
    fresh = sum(one.asked for one in decision.certificates if one.category is not None)
    assert fresh == len(np.setdiff1d(world.rows_of(log.prediction), used))


def test_categories_without_questions_are_refused():
    with pytest.raises(ValueError, match=r"set annotation\.audit\.questions"):
        AuditConfig(categories=3)
