from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import NO, OTHER, PURPOSES, YES, Answers
from segloop.annotation.driver import ask_the_rest, ask_until_done
from segloop.annotation.policies.certified import Certified
from segloop.annotation.verdicts import ACCEPTED, ANSWERED, PREFIX
from segloop.annotation.world import World
from segloop.clustering.building import build_tree
from segloop.config import AnnotationConfig, ClusteringConfig

AUDIT = PURPOSES.index("audit")


@lru_cache(maxsize=8)
def simulated(n=1500, base=0.6, seed=0, clusters=20, with_tree=True):
    """Masks in clusters of their own quality, with a score that knows a little; (world, truth)."""
    random = np.random.default_rng(seed)
    cluster = random.integers(0, clusters, n)
    quality = np.clip(random.beta(0.8, 0.8 * (1 - base) / base, clusters), 0.02, 0.98)
    truth = random.random(n) < quality[cluster]
    centres = random.standard_normal((clusters, 8))
    embedding = (centres[cluster] + 0.3 * random.standard_normal((n, 8))).astype(np.float32)
    score = 1 / (1 + np.exp(-(1.2 * truth + random.standard_normal(n))))
    tree = build_tree(embedding, np.ones(n, np.int32), None, ClusteringConfig(linkage="ward"), 0) if with_tree else None
    leaf = np.arange(n) if tree is None else (tree.row_id - 1).astype(int)
    world = World(
        tree=tree,
        prediction=(leaf + 1).astype(np.uint64),
        category=np.ones(n, np.int32),
        score=score[leaf].astype(np.float32),
        image_id=np.arange(n, dtype=np.int64),
        embedding=embedding[leaf].astype(np.float16),
    )
    return world, np.where(truth[leaf], YES, NO).astype(np.int8)


def run(policy, world, truth, seed=0):
    asked = ask_until_done(policy, world, seed, lambda rows: truth[rows], policy.units(world))
    return ask_the_rest(policy, world, seed, lambda rows: truth[rows], asked)


def same(a, b):
    assert np.array_equal(a.question_row, b.question_row)
    assert np.array_equal(a.question_purpose, b.question_purpose)
    assert np.array_equal(a.verdict, b.verdict)
    assert a.certificates == b.certificates


def test_a_set_is_accepted_with_a_certificate_and_answers_override():
    world, truth = simulated()
    asked, decision = run(Certified(precision=0.8, questions=600), world, truth)
    assert len(asked.row) == len(set(asked.row.tolist())) <= 600
    passed = [one for one in decision.certificates if one.passed][-1]
    accepted = decision.verdict == ACCEPTED
    assert passed.lower == 0.8
    # What later audits were told of it: bad masks in the set are dropped, good ones beside it are accepted.
    assert abs(passed.size - np.count_nonzero(accepted)) <= np.count_nonzero(asked.purpose == AUDIT) - passed.asked
    # Far more was accepted than asked, and every known answer stands.
    assert np.count_nonzero(decision.reason == PREFIX) > 200
    assert np.array_equal(decision.verdict[asked.row], truth[asked.row])
    assert np.all(decision.reason[asked.row] == ANSWERED)
    assert np.all(decision.certificate[decision.reason == PREFIX] == decision.certificates.index(passed))
    audits = np.count_nonzero(asked.purpose == AUDIT)
    assert max(one.asked for one in decision.certificates) <= audits <= sum(one.asked for one in decision.certificates)


def test_after_a_set_that_passed_a_larger_one_is_audited_with_the_answers_that_are_known():
    world, truth = simulated(n=3000, base=0.8, seed=2)
    asked, decision = run(Certified(precision=0.8, questions=600), world, truth)
    passed = [one for one in decision.certificates if one.passed]
    assert len(passed) > 1
    first, second = passed[:2]
    unknown = [one.size - one.known_good + one.bad for one in (first, second)]
    assert unknown[1] == int(1.3 * unknown[0])
    assert first.known_good == second.known_good
    assert first.delta == second.delta == 0.05 * 0.7
    # What both audits asked was asked once.
    assert np.count_nonzero(asked.purpose == AUDIT) < sum(one.asked for one in decision.certificates)


def test_what_is_accepted_is_what_the_last_audit_was_about_without_all_that_is_known_to_be_bad():
    compared = 0
    for seed in range(6):
        world, truth = simulated(seed=seed)
        asked, decision = run(Certified(precision=0.8, questions=600), world, truth, seed)
        last = decision.certificates[-1]
        # One sequence of nested sets, whose last one passed: all that audits asked is about it.
        if last.passed and len({one.known_good for one in decision.certificates}) == 1:
            audited = asked.row[asked.purpose == AUDIT]
            bad = np.count_nonzero(truth[audited] != YES)
            assert last.size + last.bad - bad == np.count_nonzero(decision.verdict == ACCEPTED)
            compared += 1
    assert compared > 0


def assert_delta_is_shared(certificates, delta):
    """Each share of delta serves until a set fails, or is given up before its audit."""
    shares = np.array([0.7, 0.2, 0.1]) * delta
    places = [int(np.argmin(np.abs(shares - one.delta))) for one in certificates]
    assert np.allclose(shares[places], [one.delta for one in certificates])
    for one, place, following in zip(certificates[:-1], places[:-1], places[1:], strict=True):
        assert following >= place + (not one.passed)


def test_any_prefix_of_the_log_leads_to_the_same_questions():
    world, truth = simulated()
    policy = Certified(precision=0.8, questions=400)
    asked, last = run(policy, world, truth)
    log = asked.answers(world)
    same(Certified(precision=0.8, questions=400).step(world, log, 0), last)
    growing = Certified(precision=0.8, questions=400)
    for count in [0, 3, 20, 21, 57, 130, 131, 250, len(asked.row) - 1]:
        part = Answers(*(getattr(log, name)[:count] for name in ("prediction", "reply", "node", "purpose")))
        fresh = Certified(precision=0.8, questions=400).step(world, part, 0)
        same(growing.step(world, part, 0), fresh)
        assert not np.isin(fresh.question_row, asked.row[:count]).any()
        # What is open of a round is asked on; nothing else comes first.
        if count < len(asked.row):
            assert asked.row[count] in fresh.question_row


def test_the_order_within_a_round_does_not_matter():
    world, truth = simulated()
    policy = Certified(precision=0.8, questions=300)
    asked, last = run(policy, world, truth)
    random = np.random.default_rng(0)
    order = np.lexsort((random.random(len(asked.row)), asked.batch))
    log = asked.answers(world)
    shuffled = Answers(*(getattr(log, name)[order] for name in ("prediction", "reply", "node", "purpose")))
    same(Certified(precision=0.8, questions=300).step(world, shuffled, 0), last)


@pytest.mark.parametrize("kind", ["bad", "good", "other"])
def test_all_alike(kind):
    world, _ = simulated(n=800)
    truth = np.full(800, {"bad": NO, "good": YES, "other": OTHER}[kind], np.int8)
    asked, decision = run(Certified(questions=200), world, truth)
    assert decision.done
    assert len(asked.row) <= 200
    if kind == "good":
        assert [one.passed for one in decision.certificates][-1]
        assert np.count_nonzero(decision.verdict == ACCEPTED) > 400
    else:
        assert not any(one.passed for one in decision.certificates)
        assert not np.any(decision.verdict == ACCEPTED)


@pytest.mark.parametrize("n", [0, 1, 2, 30])
@pytest.mark.parametrize("questions", [None, 1, 5])
def test_tiny_worlds_and_budgets_come_to_an_end(n, questions):
    world, truth = simulated(n=30, with_tree=False)
    keep = slice(0, n)
    small = World(None, *(getattr(world, name)[keep] for name in ("prediction", "category", "score", "image_id")))
    asked, decision = run(Certified(questions=questions), small, truth[keep])
    assert decision.done
    assert len(asked.row) <= min(n, 30 if questions is None else questions)
    assert np.array_equal(decision.verdict == ACCEPTED, np.isin(np.arange(n), asked.row) & (truth[keep] == YES))


def test_a_budget_below_what_an_audit_needs_leaves_confirmed_masks():
    world, truth = simulated()
    asked, decision = run(Certified(questions=12), world, truth)
    assert len(asked.row) == 12
    assert decision.certificates == ()
    assert np.count_nonzero(decision.verdict == ACCEPTED) == np.count_nonzero(truth[asked.row] == YES)


def test_later_answers_and_answers_from_before():
    world, truth = simulated()
    random = np.random.default_rng(3)
    before = random.choice(len(world), 150, replace=False)
    known = Answers(world.prediction[before], truth[before], np.full(150, -1, np.int64), np.zeros(150, np.int8))
    policy = Certified(precision=0.8, questions=300)
    decision, log = policy.step(world, known, 0), known
    assert not np.isin(decision.question_row, before).any()
    while not decision.done:
        rows = decision.question_row
        nodes, purpose = np.full(len(rows), -1, np.int64), decision.question_purpose
        # An annotator changes her mind about the first of each round.
        twice = np.concatenate([rows[:1], rows])
        reply = np.concatenate([-truth[rows[:1]], truth[rows]])
        given = Answers(
            world.prediction[twice], reply, np.concatenate([nodes[:1], nodes]), np.concatenate([purpose[:1], purpose])
        )
        log = Answers.join([log, given])
        decision = policy.step(world, log, 0)
        assert not np.isin(decision.question_row, world.rows_of(log.prediction)).any()
    known_rows = world.rows_of(log.prediction)
    assert np.array_equal(decision.verdict[known_rows], truth[known_rows])
    same(Certified(precision=0.8, questions=300).step(world, log, 0), decision)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.7, 0.8, 0.9]), st.integers(50, 400))
def test_nothing_is_asked_twice_and_the_budget_holds(seed, precision, questions):
    world, truth = simulated(n=900, base=0.5, seed=seed % 4)
    asked, decision = run(Certified(precision=precision, questions=questions), world, truth, seed)
    assert len(set(asked.row.tolist())) == len(asked.row) <= questions
    assert_delta_is_shared(decision.certificates, 0.05)
    names = [one.certificate_id for one in decision.certificates]
    assert len(set(names)) == len(names)
    assert sum(not one.passed for one in decision.certificates) <= 3


def test_what_a_configuration_makes():
    config = AnnotationConfig.model_validate({"questions": 70, "audit": {"precision": 0.8, "delta": 0.1}})
    assert Certified.of(config, 0) == Certified(0.8, 0.1, 70, 0)
    assert Certified.of(config, 2) == Certified(0.8, 0.025, 70, 2)
