from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies import make_policy
from segloop.annotation.policies import propagate as module
from segloop.annotation.policies.propagate import Propagate
from segloop.annotation.verdicts import PREFIX
from segloop.config import AnnotationConfig, PropagateConfig
from segloop.errors import SegloopError


def affinity(world, k, gamma):
    """Return the normalised affinity as the paper defines it, dense."""
    unit = world.embedding.astype(float)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    cosine = np.where(world.category[:, None] == world.category, unit @ unit.T, -np.inf)
    cosine[~unit.any(axis=1)] = -np.inf
    cosine[:, ~unit.any(axis=1)] = -np.inf
    np.fill_diagonal(cosine, -np.inf)
    directed = np.zeros_like(cosine)
    for row in range(len(world)):
        near = np.argsort(-cosine[row], kind="stable")[:k]
        directed[row, near] = np.maximum(cosine[row, near], 0) ** gamma
    weights = directed + directed.T
    degree = weights.sum(axis=1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    return scale[:, None] * weights * scale


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 30),
    k=st.integers(1, 12),
    gamma=st.sampled_from([1.0, 3.0]),
    alpha=st.sampled_from([0.5, 0.9, 0.99]),
)
def test_scores_solve_the_linear_system(make_blobs, seed, k, gamma, alpha):
    world = make_blobs([20, 15, 9], categories=[1, 1, 2], spread=0.4, zeros=2, seed=seed)
    random = np.random.default_rng(seed)
    yes, no = np.split(random.permutation(46)[:12], [7])
    graph = module._graph(world, k, gamma, seed)
    dense = affinity(world, k, gamma)
    assert np.allclose(graph.weights.toarray(), dense, atol=1e-5)
    z = np.linalg.solve(np.eye(46) - alpha * dense, np.eye(46)[:, [*yes, *no]])
    z_yes, z_no = z[:, :7].sum(axis=1), z[:, 7:].sum(axis=1)
    score, reached = module._spread(graph, alpha, tuple(yes.tolist()), tuple(no.tolist()))
    well = z_yes + z_no > 1e-2
    assert reached[well].all()
    assert np.allclose(score[well], (z_yes / np.maximum(z_yes + z_no, 1e-12))[well], atol=1e-3)
    assert (score[~reached] == 0.5).all()
    assert ((score >= 0) & (score <= 1)).all()


def test_answers_spread_over_their_own_bunch(make_blobs, answer_all):
    world = make_blobs([60, 60, 60])
    truth = np.repeat([YES, NO, YES], 60)
    decision, _, asked = answer_all(Propagate(questions=30, batch=15, neighbours=10), world, truth, 0)
    assert len(asked) == 30
    rest = np.setdiff1d(np.arange(180), asked)
    assert np.array_equal(decision.verdict[rest], np.repeat([1, 0, 1], 60)[rest])
    assert (decision.reason[rest][decision.verdict[rest] == 1] == PREFIX).all()


def test_nothing_is_accepted_before_the_questions_are_spent(make_blobs, give):
    world, policy = make_blobs([40]), Propagate(questions=20, batch=10)
    first = policy.step(world, Answers.none(), 0)
    assert len(first.question_row) == 10
    assert not first.verdict.any()
    answers = give(world, first.question_row, np.full(10, YES))
    second = policy.step(world, answers, 0)
    assert len(second.question_row) == 10
    assert np.count_nonzero(second.verdict) == 10
    last = Answers.join([answers, give(world, second.question_row, np.full(10, YES))])
    assert np.count_nonzero(policy.step(world, last, 0).verdict) == 40


def test_masks_that_no_answer_reaches_stay_undecided(make_blobs, give):
    world = make_blobs([20, 20], categories=[1, 2])
    policy = Propagate(questions=20, batch=20, threshold=0.4)
    rows = policy.step(world, Answers.none(), 0).question_row
    replies = np.where(world.category[rows] == 1, YES, OTHER)
    decision = policy.step(world, give(world, rows, replies), 0)
    assert decision.done
    assert (decision.verdict[:20] == 1).all()
    assert not decision.verdict[20:].any()


def test_the_threshold_decides(make_blobs, give):
    world = make_blobs([50])
    rows = Propagate(questions=10).step(world, Answers.none(), 0).question_row
    replies = np.where(np.arange(10) < 7, YES, NO)
    for threshold, accepts in ((0.4, True), (0.95, False)):
        decision = Propagate(questions=10, threshold=threshold).step(world, give(world, rows, replies), 0)
        assert (decision.reason == PREFIX).any() == accepts


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_the_first_round_is_in_proportion_to_the_categories(make_blobs):
    world = make_blobs([50, 30, 15, 5], categories=[1, 2, 3, 4])
    rows = Propagate(questions=20, batch=20).step(world, Answers.none(), 0).question_row
    assert np.bincount(world.category[rows]).tolist() == [0, 10, 6, 3, 1]
    # 3.5, 2.1, 1.05 and 0.35: what rounding leaves goes to the largest remainder.
    few = Propagate(questions=7, batch=20).step(world, Answers.none(), 0).question_row
    assert np.bincount(world.category[few]).tolist() == [0, 4, 2, 1]


def test_the_first_round_is_uniform(make_blobs):
    world = make_blobs([10, 10], categories=[1, 2])
    counts = np.zeros(20)
    for seed in range(1500):
        counts[Propagate(questions=6).step(world, Answers.none(), seed).question_row] += 1
    # Expected 450 each, standard deviation 18.
    assert np.abs(counts - 450).max() < 5 * 18


@pytest.mark.parametrize(("random", "uncertain"), [(0.0, 8), (0.5, 4), (1.0, 0)])
def test_later_rounds_ask_uncertain_and_random_masks(make_blobs, give, random, uncertain):
    # Between a good and a bad bunch lie eight masks that belong to both.
    world = make_blobs([100, 100, 8])
    embedding = world.embedding.copy()
    embedding[200:, :3] = [0.7, 0.7, 0]
    world = replace(world, embedding=embedding)
    policy = Propagate(questions=48, batch=40, neighbours=10, random=random)
    first = policy.step(world, Answers.none(), 3).question_row
    truth = np.where(np.arange(208) < 100, YES, NO)
    first_answers = give(world, first, truth[first])
    second = policy.step(world, first_answers, 3).question_row
    score, _ = policy._scores(world, 3, first, truth[first].astype(np.int8))
    left = np.setdiff1d(np.arange(208), first)
    chosen = second[:uncertain]
    others = np.setdiff1d(left, chosen)
    distance = np.abs(score - 0.5)
    assert len(second) == 8
    assert uncertain == 0 or distance[chosen].max() <= distance[others].min() + 1e-12
    queue = module._queue(world, 3)
    assert second[uncertain:].tolist() == queue[np.isin(queue, others)][: 8 - uncertain].tolist()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    part=st.integers(1, 9),
    questions=st.integers(1, 60),
    batch=st.integers(1, 20),
    random=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_parts_order_and_memory_change_nothing(make_blobs, in_parts, seed, part, questions, batch, random):
    world = make_blobs([25, 18, 1], categories=[1, 1, 2], spread=0.4, zeros=2, seed=seed % 1000)
    truth = np.where(np.random.default_rng(seed).random(len(world)) < 0.7, YES, NO)
    policy = Propagate(questions=questions, neighbours=5, batch=batch, random=random)
    in_parts(policy, world, replace(world), truth, seed, part)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 80), st.integers(1, 30))
def test_the_questions_are_spent_and_no_more(make_blobs, answer_all, seed, questions, batch):
    world = make_blobs([30, 16], categories=[1, 2], spread=0.4, seed=seed % 1000)
    truth = np.where(np.random.default_rng(seed).random(46) < 0.5, YES, NO)
    _, _, asked = answer_all(Propagate(questions=questions, batch=batch, neighbours=5), world, truth, seed)
    assert len(asked) == min(questions, 46)


def test_known_answers_are_not_paid_again_and_spread_in_the_end(make_blobs, answer_all, give):
    world, policy = make_blobs([30, 30], categories=[1, 2]), Propagate(questions=10)
    rows = policy.step(world, Answers.none(), 0).question_row
    others = np.setdiff1d(np.arange(30), rows)[:15]
    known = give(world, [rows[0], *others], [YES] + [NO] * 15)
    decision, _, asked = answer_all(policy, world, np.full(60, YES), 0, known)
    assert sorted(asked) == sorted(rows[1:].tolist())
    assert (decision.verdict[others] == -1).all()
    assert not (decision.reason[:30] == PREFIX).any()
    assert (decision.reason[30:] == PREFIX).sum() == 30 - np.count_nonzero(rows >= 30)


def test_the_order_of_rows_does_not_matter(make_blobs):
    world = make_blobs([30, 30], categories=[1, 2])
    order = np.random.default_rng(0).permutation(60)
    names = ("prediction", "category", "score", "image_id", "embedding")
    other = replace(world, **{name: getattr(world, name)[order] for name in names})
    one, two = (Propagate(questions=20).step(each, Answers.none(), 0).question_row for each in (world, other))
    assert world.prediction[one].tolist() == other.prediction[two].tolist()


# --- the graph --------------------------------------------------------------------------------------------------------


def test_the_graph_has_no_loops_even_among_copies(make_blobs):
    world = make_blobs([40])
    world = replace(world, embedding=np.tile(world.embedding[:1], (40, 1)))
    weights = module._graph(world, 5, 3.0, 0).weights
    assert not weights.diagonal().any()
    near, _ = module._nearest(np.tile(np.float32([[1, 0]]), (40, 1)), 5, 0)
    assert ((near >= 0).sum(axis=1) == 5).all()
    assert not (near == np.arange(40)[:, None]).any()


def test_large_categories_find_nearly_all_neighbours(make_blobs, monkeypatch):
    unit = np.random.default_rng(0).standard_normal((4000, 8)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    exact, _ = module._nearest(unit, 10, 0)
    monkeypatch.setattr(module, "_EXACT", 100)
    found, cosine = module._nearest(unit, 10, 0)
    again, _ = module._nearest(unit, 10, 0)
    assert np.array_equal(found, again)
    assert not (found == np.arange(4000)[:, None]).any()
    shared = [len(np.intersect1d(a[a >= 0], b[b >= 0])) for a, b in zip(exact, found, strict=True)]
    assert np.mean(shared) > 9
    rows = np.repeat(np.arange(4000), (found >= 0).sum(axis=1))
    assert np.allclose(cosine[found >= 0], np.einsum("ij,ij->i", unit[rows], unit[found[found >= 0]]), atol=1e-5)


def test_a_world_has_one_graph_and_answers_are_spread_once(make_blobs, give, monkeypatch):
    calls = []
    real = module._nearest
    monkeypatch.setattr(module, "_nearest", lambda *given: calls.append(1) or real(*given))
    world, policy = make_blobs([30], seed=78), Propagate(questions=20, batch=10)
    rows = policy.step(world, Answers.none(), 0).question_row
    answers = give(world, rows, np.full(10, YES))
    before = module._spread.cache_info().misses
    decisions = [policy.step(world, answers, 0) for _ in range(3)]
    assert len({tuple(decision.question_row.tolist()) for decision in decisions}) == 1
    assert len(calls) == 1
    assert module._spread.cache_info().misses == before + 1


# --- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_smallest_worlds(make_blobs, answer_all, count):
    decision, _, asked = answer_all(Propagate(), make_blobs([count]), np.full(count, YES), 0)
    assert len(asked) == count
    assert decision.verdict.tolist() == [1] * count


def test_all_bad_and_no_embedding_at_all_accept_nothing(make_blobs, answer_all):
    for world in (make_blobs([40]), make_blobs([0], zeros=40)):
        decision, _, _ = answer_all(Propagate(questions=15), world, np.full(40, NO), 0)
        assert np.count_nonzero(decision.verdict == -1) == 15
        assert not (decision.verdict == 1).any()


def test_it_works_in_no_units(make_blobs):
    assert len(Propagate().units(make_blobs([5]))) == 0


def test_no_embedding_is_a_clear_error_before_any_question(make_blobs):
    world = replace(make_blobs([5]), embedding=None)
    policy = Propagate(questions=2)
    with pytest.raises(SegloopError, match=r"propagate compares embeddings.*annotation\.components"):
        policy.step(world, Answers.none(), 0)


def test_one_word_chooses_the_policy():
    section = PropagateConfig(neighbours=9, gamma=1.0, alpha=0.5, batch=20, random=0.2, threshold=0.7)
    config = AnnotationConfig(policy="propagate", questions=400, propagate=section)
    assert make_policy(config) == Propagate(400, 9, 1.0, 0.5, 20, 0.2, 0.7)
    assert make_policy(AnnotationConfig(policy="propagate")) == Propagate()
