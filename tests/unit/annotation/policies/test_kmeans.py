from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies import OUTSIDE, make_policy
from segloop.annotation.policies import kmeans as module
from segloop.annotation.policies.kmeans import KMeans
from segloop.annotation.verdicts import ANSWERED, CLUSTER
from segloop.config import AnnotationConfig, KMeansConfig
from segloop.errors import SegloopError


def by_prediction(world, column):
    return dict(zip(world.prediction.tolist(), column.tolist(), strict=True))


def permuted(world, seed):
    order = np.random.default_rng(seed).permutation(len(world))
    names = ("prediction", "category", "score", "image_id", "embedding")
    return replace(world, **{name: getattr(world, name)[order] for name in names}), order


@pytest.mark.parametrize("which", ["random", "medoid"])
def test_pure_clusters_cost_n_questions_each(make_blobs, answer_all, which):
    world = make_blobs([30, 20, 40], categories=[1, 2, 3])
    truth = np.repeat([YES, NO, YES], [30, 20, 40])
    policy = KMeans(size=40, n=5, representatives=which)
    decision, _, asked = answer_all(policy, world, truth, 0)
    assert len(asked) == 15
    assert policy.step(world, Answers.none(), 0).waiting.tolist() == [OUTSIDE]
    assert np.array_equal(decision.verdict, truth)
    assert np.count_nonzero(decision.reason == ANSWERED) == 15
    assert np.count_nonzero(decision.reason == CLUSTER) == 75


def test_clusters_follow_the_embeddings(make_blobs):
    flat = module._clusters(make_blobs([30, 20, 40]), 10, 0)
    bunch = np.repeat([0, 1, 2], [30, 20, 40])
    for cluster in range(flat.count):
        assert len(set(bunch[flat.cluster == cluster].tolist())) == 1


def test_clusters_that_do_not_agree_stay_undecided(make_blobs, answer_all):
    world = make_blobs([40])
    truth = np.where(np.arange(40) % 2 == 0, YES, NO)
    decision, _, asked = answer_all(KMeans(size=40, n=10, t_agr=0.9), world, truth, 0)
    assert len(asked) == 10
    assert np.count_nonzero(decision.verdict) == 10
    assert not (decision.reason == CLUSTER).any()


@pytest.mark.parametrize(("yes", "decided"), [(10, 1), (9, 1), (8, 0), (2, 0), (1, -1), (0, -1)])
def test_agreement_decides(make_blobs, give, yes, decided):
    world, policy = make_blobs([50]), KMeans(size=50, n=10, t_agr=0.9)
    rows = policy.step(world, Answers.none(), 0).question_row
    replies = np.where(np.arange(10) < yes, YES, NO)
    decision = policy.step(world, give(world, rows, replies), 0)
    assert set(decision.verdict[np.setdiff1d(np.arange(50), rows)].tolist()) == {decided}
    # One answer is missing: nothing is decided yet.
    early = policy.step(world, give(world, rows[1:], replies[1:]), 0)
    assert not (early.reason == CLUSTER).any()
    assert early.question_row.tolist() == [rows[0]]


def test_shares_that_floats_cannot_hold_are_reached(make_blobs, give):
    assert 0.56 * 25 > 14
    world, policy = make_blobs([50]), KMeans(size=50, n=25, t_agr=0.56)
    rows = policy.step(world, Answers.none(), 0).question_row
    decision = policy.step(world, give(world, rows, np.where(np.arange(25) < 14, YES, NO)), 0)
    assert np.count_nonzero(decision.reason == CLUSTER) == 25


def test_others_count_for_neither_and_too_many_leave_a_cluster_undecided(make_blobs, give):
    world, policy = make_blobs([50]), KMeans(size=50, n=10)
    rows = policy.step(world, Answers.none(), 0).question_row
    for others, decided in ((2, True), (3, False), (10, False)):
        replies = np.where(np.arange(10) < others, OTHER, YES)
        decision = policy.step(world, give(world, rows, replies), 0)
        assert (decision.reason == CLUSTER).any() == decided
        assert not decision.verdict[rows[:others]].any()


def test_clusters_do_not_cross_categories(make_blobs):
    world = make_blobs([30, 30, 30], categories=[1, 2, 2])
    world = replace(world, embedding=np.tile(world.embedding[:1], (90, 1)))
    flat = module._clusters(world, 10, 0)
    for cluster in range(flat.count):
        assert len(set(world.category[flat.cluster == cluster].tolist())) == 1
    assert flat.sizes.sum() == 90
    assert (flat.sizes > 0).all()


def test_the_order_of_rows_does_not_matter(make_blobs):
    world = make_blobs([60, 40], spread=0.5)
    other, order = permuted(world, 3)
    policy = KMeans(size=10, n=3)
    one, two = policy.step(world, Answers.none(), 0), policy.step(other, Answers.none(), 0)
    assert world.prediction[one.question_row].tolist() == other.prediction[two.question_row].tolist()
    clusters = [module._clusters(each, 10, 0).cluster for each in (world, other)]
    assert np.array_equal(clusters[0][order], clusters[1])


def test_medoids_are_the_members_nearest_to_the_centroid(make_blobs):
    world = make_blobs([80], spread=0.6)
    flat = module._clusters(world, 20, 0)
    rows = KMeans(size=20, n=4, representatives="medoid").step(world, Answers.none(), 0).question_row
    for cluster in range(flat.count):
        members = np.flatnonzero(flat.cluster == cluster)
        best = members[np.argsort(-flat.cosine[members], kind="stable")][:4]
        assert rows[flat.cluster[rows] == cluster].tolist() == best.tolist()


def test_random_representatives_are_uniform_and_depend_on_the_seed(make_blobs):
    world = make_blobs([12])
    counts = np.zeros(12)
    for seed in range(400):
        counts[KMeans(size=12, n=3).step(world, Answers.none(), seed).question_row] += 1
    # Expected 100 each, standard deviation 9.
    assert np.abs(counts - 100).max() < 5 * 9


def test_clusters_have_the_wanted_size_on_average(make_blobs):
    flat = module._clusters(make_blobs([500], spread=1.0), 50, 0)
    assert 8 <= flat.count <= 10
    assert flat.sizes.sum() == 500


def test_predictions_without_an_embedding_are_left_alone(make_blobs, answer_all):
    world = make_blobs([20], zeros=5)
    decision, _, asked = answer_all(KMeans(size=20), world, np.full(25, YES), 0)
    assert len(asked) == 5
    assert decision.verdict.tolist() == [1] * 20 + [0] * 5


def test_the_limit_does_for_whole_clusters_with_the_best_scores(make_blobs, answer_all):
    world = make_blobs([20, 20, 20], categories=[1, 2, 3])
    world = replace(world, score=np.repeat([0.3, 0.9, 0.6], 20).astype(np.float32))
    for questions, best in ((4, []), (5, [2]), (9, [2]), (10, [2, 3]), (100, [1, 2, 3])):
        policy = KMeans(size=20, questions=questions)
        decision, _, asked = answer_all(policy, world, np.full(60, YES), 0)
        assert len(asked) == 5 * len(best)
        assert sorted(set(world.category[decision.verdict == 1].tolist())) == best


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 9),
    size=st.integers(1, 40),
    n=st.integers(1, 6),
    questions=st.none() | st.integers(1, 60),
    which=st.sampled_from(["random", "medoid"]),
)
def test_parts_order_and_memory_change_nothing(make_blobs, in_parts, seed, batch, size, n, questions, which):
    world = make_blobs([25, 18, 1], categories=[1, 1, 2], spread=0.4, zeros=2, seed=seed % 1000)
    truth = np.where(np.random.default_rng(seed).random(len(world)) < 0.7, YES, NO)
    policy = KMeans(size, n, 0.8, which, questions)
    in_parts(policy, world, replace(world), truth, seed, batch)
    assert questions is None or len(policy.step(world, Answers.none(), seed).question_row) <= questions


def test_known_answers_save_questions_and_stand(make_blobs, answer_all, give):
    world, policy = make_blobs([40]), KMeans(size=40)
    rows = policy.step(world, Answers.none(), 0).question_row
    apart = np.setdiff1d(np.arange(40), rows)[:1]
    known = give(world, [rows[0], apart[0]], [YES, NO])
    decision, _, asked = answer_all(policy, world, np.full(40, YES), 0, known)
    assert sorted(asked) == sorted(rows[1:].tolist())
    assert decision.verdict[apart].tolist() == [-1]
    assert np.count_nonzero(decision.verdict == 1) == 39


def test_a_world_is_clustered_once(make_blobs, monkeypatch):
    calls = []
    real = module.spherical_kmeans
    monkeypatch.setattr(module, "spherical_kmeans", lambda *given: calls.append(1) or real(*given))
    world = make_blobs([30], seed=77)
    for policy in (KMeans(size=7), KMeans(size=7, n=2), KMeans(size=7)):
        policy.step(world, Answers.none(), 0)
    assert len(calls) == 1


def test_a_step_at_other_units_does_nothing(make_blobs):
    decision = KMeans().step(make_blobs([30]), Answers.none(), 0, np.array([3]))
    assert decision.done
    assert not decision.verdict.any()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_smallest_worlds(make_blobs, answer_all, count):
    decision, _, asked = answer_all(KMeans(), make_blobs([count]), np.full(count, YES), 0)
    assert len(asked) == count
    assert decision.verdict.tolist() == [1] * count


def test_no_embedding_is_a_clear_error(make_blobs):
    world = replace(make_blobs([5]), embedding=None)
    with pytest.raises(SegloopError, match=r"kmeans clusters embeddings.*annotation\.components"):
        KMeans().step(world, Answers.none(), 0)


def test_one_word_chooses_the_policy():
    section = KMeansConfig(size=80, representatives="medoid")
    config = AnnotationConfig(policy="kmeans", n=7, t_agr=0.9, questions=70, kmeans=section)
    assert make_policy(config) == KMeans(80, 7, 0.9, "medoid", 70)
    assert make_policy(AnnotationConfig(policy="kmeans")) == KMeans()
