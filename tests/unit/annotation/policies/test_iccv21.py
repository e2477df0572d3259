from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.driver import ask_the_rest, ask_until_done
from segloop.annotation.policies import OUTSIDE, make_policy
from segloop.annotation.policies.iccv21 import Iccv21, _ground, verdict_of
from segloop.annotation.policies.thesis import start_nodes
from segloop.annotation.verdicts import ANSWERED, CLUSTER
from segloop.annotation.world import World
from segloop.config import AnnotationConfig, Iccv21Config
from segloop.errors import SegloopError

SMALL = Iccv21(n=4, min_prior=0.5, min_size=3)
SETTINGS = {
    "unlimited": SMALL,
    "small too": replace(SMALL, ask_small=True),
    "questions": replace(SMALL, questions=30),
    "questions, small too": replace(SMALL, questions=45, ask_small=True),
    "clusters": replace(SMALL, clusters=3),
    "both": replace(SMALL, clusters=2, questions=30),
    "root": replace(SMALL, start="root"),
}


def reference(policy, world, truth, seed):
    """The search as its definition reads, without limits, every answer at once: (verdict of each row, rows asked)."""
    tree, rank = world.tree, np.empty(world.leaves)
    rank[np.asarray(tree.order, int)] = _ground(world, seed).rank
    prior = world.score if world.predicted_iou is None else world.score * world.predicted_iou
    verdict, asked = np.zeros(len(world), int), set()
    stack = start_nodes(tree, policy.start).tolist()
    while stack:
        node = stack.pop()
        members = tree.members(node).astype(int)
        members = members[np.argsort(rank[members])]
        if len(members) > policy.min_size and prior[members].mean(dtype=float) < policy.min_prior:
            stack += tree.children(node)
        elif len(members) < policy.min_size:
            asked |= set(members.tolist() if policy.ask_small else [])
        else:
            sample = members[: policy.n]
            asked |= set(sample.tolist())
            share = np.mean(truth[sample] == YES)
            if share >= policy.accept or share < policy.reject:
                verdict[members] = YES if share >= policy.accept else NO
            elif len(members) > 1:
                stack += tree.children(node)
    if policy.ask_small:
        asked |= set(range(world.leaves, len(world)))
    for row in asked:
        verdict[row] = truth[row]
    return verdict, asked


def scene(tree_factory, world_factory, seed, nulls=0, predicted_iou=False, sizes=(50, 30, 1)):
    categories = [kind for kind, size in enumerate(sizes) for _ in range(size)]
    tree = tree_factory(categories, seed, nulls=nulls)
    world = world_factory(tree, categories)
    random = np.random.default_rng(seed)
    world = replace(world, score=random.random(len(world)).astype(np.float32))
    if predicted_iou:
        world = replace(world, predicted_iou=random.random(len(world)).astype(np.float32))
    return world, np.where(random.random(len(world)) < random.random(), YES, NO)


# --- the search -------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 7),
    min_size=st.integers(1, 9),
    min_prior=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    start=st.sampled_from(["root", "category", "cut:11"]),
    ask_small=st.booleans(),
    predicted_iou=st.booleans(),
)
def test_the_search_is_its_definition(
    tree_factory, world_factory, answer_all, seed, n, min_size, min_prior, start, ask_small, predicted_iou
):
    world, truth = scene(tree_factory, world_factory, seed, nulls=2, predicted_iou=predicted_iou)
    policy = Iccv21(n=n, min_size=min_size, min_prior=min_prior, start=start, ask_small=ask_small)
    decision, _, asked = answer_all(policy, world, truth, seed)
    verdict, rows = reference(policy, world, truth, seed)
    assert np.array_equal(decision.verdict, verdict)
    assert set(asked) == rows


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SETTINGS)), st.integers(0, 2**31), st.integers(1, 9))
def test_parts_order_and_memory_change_nothing(tree_factory, world_factory, in_parts, name, seed, batch):
    world, truth = scene(tree_factory, world_factory, seed, nulls=3)
    in_parts(SETTINGS[name], world, replace(world), truth, seed, batch)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SETTINGS)), st.integers(0, 2**31), st.integers(1, 3))
def test_units_worked_on_apart_end_in_the_same_verdicts(tree_factory, world_factory, answer_all, name, seed, hands):
    world, truth = scene(tree_factory, world_factory, seed, nulls=3)
    policy = SETTINGS[name]
    whole, _, asked = answer_all(policy, world, truth, seed)
    units = policy.units(world)
    assert (len(units) == 0) == (policy.questions is not None)
    parts = [ask_until_done(policy, world, seed, lambda rows: truth[rows], units[hand::hands]) for hand in range(hands)]
    joined, decision = ask_the_rest(policy, world, seed, lambda rows: truth[rows], type(parts[0]).join(parts))
    assert sorted(joined.row.tolist()) == sorted(asked)
    assert np.array_equal(decision.verdict, whole.verdict)
    if len(units):
        assert sorted(np.concatenate([part.row for part in parts]).tolist()) == sorted(asked)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(SETTINGS)))
def test_known_answers_save_questions_and_stand(tree_factory, world_factory, answer_all, give, seed, name):
    world, truth = scene(tree_factory, world_factory, seed)
    before, _, asked = answer_all(SETTINGS[name], world, truth, seed)
    known = np.random.default_rng(seed).permutation(len(world))[:20]
    after, _, more = answer_all(SETTINGS[name], world, truth, seed, give(world, known, truth[known]))
    assert set(more) == set(asked) - set(known.tolist())
    apart = np.setdiff1d(np.arange(len(world)), known)
    assert np.array_equal(after.verdict[apart], before.verdict[apart])
    assert np.array_equal(after.verdict[known], truth[known])


# --- what a cluster costs ---------------------------------------------------------------------------------------------


def certain(make_tree, make_world, categories, score=0.9):
    world = make_world(make_tree(categories), categories)
    return replace(world, score=np.full(len(world), score, np.float32))


@pytest.mark.parametrize("reply", [YES, NO])
def test_a_pure_cluster_costs_fifteen_questions(make_tree, make_world, answer_all, reply):
    world = certain(make_tree, make_world, [1] * 200)
    decision, _, asked = answer_all(Iccv21(), world, np.full(200, reply), 0)
    assert len(asked) == 15
    assert decision.verdict.tolist() == [reply] * 200
    assert np.count_nonzero(decision.reason == CLUSTER) == 185
    assert np.count_nonzero(decision.reason == ANSWERED) == 15
    assert set(decision.node.tolist()) == {world.tree.root}
    assert sorted(decision.counted_row.tolist()) == sorted(asked)


def test_without_rejection_bad_clusters_are_split_to_the_end(make_tree, make_world, answer_all):
    world = certain(make_tree, make_world, [1] * 60)
    decision, _, asked = answer_all(Iccv21(reject=0.0), world, np.full(60, NO), 0)
    assert len(asked) > 15
    assert not (decision.reason == CLUSTER).any()


def test_a_low_prior_is_split_unasked(make_tree, make_world):
    # A caterpillar: each node is the one below it and one more leaf, so that one node of 15 is all that is asked.
    tree = make_tree([1] * 40, caterpillar=True)
    world = replace(make_world(tree), score=np.full(40, 0.5, np.float32))
    decision = Iccv21().step(world, Answers.none(), 0)
    assert len(decision.question_row) == 15
    node = int(decision.question_node[0])
    assert tree.size[node] == 15
    assert sorted(decision.question_row.tolist()) == sorted(tree.members(node).tolist())
    sure = Iccv21(min_prior=0.5).step(world, Answers.none(), 0)
    assert set(sure.question_node.tolist()) == {tree.root}


def test_the_prior_is_score_times_predicted_iou(make_tree, make_world):
    world = certain(make_tree, make_world, [1] * 40)
    for iou, asks_root in ((0.9, True), (0.7, False)):
        priced = replace(world, predicted_iou=np.full(40, iou, np.float32))
        nodes = Iccv21(min_prior=0.8).step(priced, Answers.none(), 0).question_node
        assert (world.tree.root in nodes) == asks_root


def test_answers_are_used_again_below(make_tree, make_world, give):
    world = certain(make_tree, make_world, [1] * 400)
    policy = Iccv21()
    first = policy.step(world, Answers.none(), 0)
    replies = np.where(np.arange(15) < 8, YES, NO)
    second = policy.step(world, give(world, first.question_row, replies, first.question_node), 0)
    children = world.tree.children(world.tree.root)
    assert set(second.question_node.tolist()) <= set(children)
    for child in children:
        inherited = np.isin(first.question_row, world.tree.members(child)).sum()
        wanted = min(15, int(world.tree.size[child])) if world.tree.size[child] >= 15 else inherited
        assert np.count_nonzero(second.question_node == child) == wanted - inherited
    # 15 each, less what was inherited.
    assert len(second.question_row) <= 15


def test_every_member_is_as_likely_to_be_asked(make_tree, make_world):
    world = certain(make_tree, make_world, [1] * 20)
    counts = np.zeros(20)
    for seed in range(2000):
        counts[Iccv21(n=5, min_size=5).step(world, Answers.none(), seed).question_row] += 1
    # Expected 500 each, standard deviation 19.
    assert np.abs(counts - 500).max() < 5 * 19


@pytest.mark.parametrize(
    ("yes", "no", "expected"),
    [(13, 2, 1), (12, 3, 0), (2, 13, -1), (3, 12, 0), (17, 3, 1), (3, 17, 0), (0, 0, 0), (15, 0, 1), (0, 15, -1)],
)
def test_the_share_of_yes_decides(yes, no, expected):
    assert verdict_of(yes, no, 0.85, 0.15) == expected


def test_shares_that_floats_cannot_hold_are_reached():
    assert 0.56 * 25 > 14
    assert verdict_of(14, 11, 0.56, 0.1) == 1
    assert 0.28 * 25 > 7
    assert verdict_of(7, 18, 0.85, 0.28) == 0


def test_rejection_can_be_switched_off():
    assert verdict_of(0, 15, 0.85, 0.0) == 0


def test_a_node_with_many_others_is_split(make_tree, make_world, give):
    world = certain(make_tree, make_world, [1] * 100)
    first = Iccv21().step(world, Answers.none(), 0)
    few, many = (np.where(np.arange(15) < others, OTHER, YES) for others in (3, 4))
    assert Iccv21().step(world, give(world, first.question_row, few, first.question_node), 0).done
    assert not Iccv21().step(world, give(world, first.question_row, many, first.question_node), 0).done


@pytest.mark.parametrize("policy", [Iccv21(n=3, min_size=1, min_prior=0.0), replace(SMALL, ask_small=True)])
def test_only_others_ends_in_single_questions(make_tree, make_world, answer_all, policy):
    world = make_world(make_tree([1] * 30))
    decision, _, asked = answer_all(policy, world, np.full(30, OTHER), 0)
    assert sorted(asked) == list(range(30))
    assert not decision.verdict.any()


def test_small_clusters_and_predictions_outside_the_tree_are_left_or_asked(make_tree, make_world, answer_all):
    world = make_world(make_tree([1] * 10, nulls=4))
    truth = np.where(np.arange(14) % 2 == 0, YES, NO)
    decision, _, asked = answer_all(Iccv21(), world, truth, 0)
    assert asked == []
    assert not decision.verdict.any()
    assert OUTSIDE not in Iccv21().units(world)
    policy = Iccv21(ask_small=True)
    decision, _, asked = answer_all(policy, world, truth, 0)
    assert sorted(asked) == list(range(14))
    assert np.array_equal(decision.verdict, truth)
    assert policy.units(world).tolist()[-1] == OUTSIDE


# --- limits -----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 90), st.none() | st.integers(1, 4), st.booleans())
def test_limits_are_kept(tree_factory, world_factory, answer_all, seed, questions, clusters, ask_small):
    world, truth = scene(tree_factory, world_factory, seed, nulls=2)
    policy = replace(SMALL, questions=questions, clusters=clusters, ask_small=ask_small)
    decision, _, asked = answer_all(policy, world, truth, seed)
    assert len(asked) <= questions
    if clusters is not None:
        tops = [int(world.category[world.tree.members(node)[0]]) for node in np.unique(decision.counted_node).tolist()]
        assert np.bincount(np.array(tops, int), minlength=1).max() <= clusters


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_limits_that_do_not_bind_change_nothing(tree_factory, world_factory, answer_all, seed):
    world, truth = scene(tree_factory, world_factory, seed)
    free, _, asked = answer_all(SMALL, world, truth, seed)
    # Questions are counted once, however many clusters use the answers.
    for policy in (replace(SMALL, questions=max(1, len(asked))), replace(SMALL, clusters=1000)):
        decision, _, rows = answer_all(policy, world, truth, seed)
        assert np.array_equal(decision.verdict, free.verdict)
        assert sorted(rows) == sorted(asked)


def test_the_best_clusters_come_first(make_tree, make_world, answer_all):
    categories = [1] * 30 + [2] * 30 + [3] * 30
    world = make_world(make_tree(categories), categories)
    world = replace(world, score=np.repeat([0.8, 0.95, 0.75], 30).astype(np.float32))
    for questions, accepted in ((14, []), (15, [2]), (44, [2, 1]), (45, [2, 1, 3])):
        decision, _, asked = answer_all(Iccv21(questions=questions), world, np.full(90, YES), 0)
        assert len(asked) == 15 * len(accepted)
        assert sorted(set(world.category[decision.verdict == 1].tolist())) == sorted(accepted)


def test_a_limit_on_clusters_holds_for_each_category(make_tree, make_world, answer_all, give):
    categories = [1] * 40 + [2] * 40
    world = certain(make_tree, make_world, categories)
    truth = np.where(np.arange(80) % 2 == 0, YES, NO)
    one, _, asked = answer_all(Iccv21(clusters=1), world, truth, 0)
    assert len(asked) == 30
    assert sorted(set(one.counted_node.tolist())) == sorted(world.tree.category_node.tolist())
    # The unit waits, not the cluster: how many clusters were asked is known there alone.
    units = Iccv21(clusters=5).units(world)
    root_answers = give(world, asked, truth[asked], one.counted_node)
    later = Iccv21(clusters=5).step(world, root_answers, 0, units[:1])
    assert later.waiting.tolist() == units[:1].tolist()
    assert not np.isin(later.question_node, units).any()


def test_rounds_under_a_limit_hold_twenty_clusters(make_tree, make_world):
    world = certain(make_tree, make_world, [kind for kind in range(30) for _ in range(20)])
    decision = Iccv21(questions=10_000).step(world, Answers.none(), 0)
    assert len(decision.question_row) == 20 * 15
    assert len(Iccv21().step(world, Answers.none(), 0).question_row) == 30 * 15


# --- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("questions", [None, 5])
def test_the_smallest_trees(make_tree, make_world, answer_all, count, questions):
    world = make_world(make_tree([1] * count))
    policy = Iccv21(min_size=1, min_prior=0.0, questions=questions)
    decision, _, asked = answer_all(policy, world, np.full(count, YES), 0)
    assert len(asked) == count
    assert decision.verdict.tolist() == [1] * count


def test_deep_trees_need_no_recursion(make_tree, make_world):
    world = make_world(make_tree([1] * 3000, caterpillar=True))
    assert len(Iccv21(min_prior=1.0).step(world, Answers.none(), 0).question_row) == 15


def test_no_tree_is_a_clear_error(make_tree, make_world):
    world = make_world(make_tree([1] * 5))
    bare = World(None, world.prediction, world.category, world.score, world.image_id)
    for call in (lambda: Iccv21().units(bare), lambda: Iccv21().step(bare, Answers.none(), 0)):
        with pytest.raises(SegloopError, match=r"needs a tree.*annotation\.policy: per_mask"):
            call()


def test_a_tree_without_categories_needs_another_start(make_tree, make_world, without_categories):
    world = make_world(without_categories(make_tree([1] * 40)))
    with pytest.raises(SegloopError, match=r"annotation\.start"):
        Iccv21().step(world, Answers.none(), 0)
    assert len(Iccv21(start="root", min_prior=0.0).step(world, Answers.none(), 0).question_row) == 15


def test_one_word_chooses_the_policy():
    assert make_policy(AnnotationConfig(policy="iccv21")) == Iccv21()
    section = Iccv21Config(n=9, accept=0.8, reject=0.0, min_prior=0.4, min_size=7, ask_small=True, clusters=30)
    config = AnnotationConfig(policy="iccv21", start="root", questions=500, iccv21=section)
    assert make_policy(config) == Iccv21(9, 0.8, 0.0, 0.4, 7, True, "root", 30, 500)
