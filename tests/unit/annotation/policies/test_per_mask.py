import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies import OUTSIDE, PerMask
from segloop.annotation.world import World


def world_of(count: int, seed: int = 0) -> World:
    random = np.random.default_rng(seed)
    prediction = random.permutation(np.arange(1, count + 1)).astype(np.uint64)
    # Few distinct scores, so that there are ties.
    score = (random.integers(0, 4, count) / 4).astype(np.float32)
    return World(None, prediction, np.ones(count, np.int32), score, np.zeros(count, np.int64))


def answers_of(world: World, rows: np.ndarray, replies: np.ndarray, purpose: int = 0) -> Answers:
    count = len(rows)
    return Answers(
        world.prediction[rows], replies.astype(np.int8), np.full(count, -1, np.int64), np.full(count, purpose, np.int8)
    )


def test_every_mask_is_asked_once_and_the_good_ones_are_accepted():
    world = world_of(50)
    truth = np.where(np.arange(50) % 3 == 0, YES, NO)
    first = PerMask().step(world, Answers.none(), seed=1)
    assert sorted(first.question_row.tolist()) == list(range(50))
    assert first.waiting.tolist() == [OUTSIDE]
    done = PerMask().step(world, answers_of(world, first.question_row, truth[first.question_row]), seed=1)
    assert done.done
    assert np.array_equal(done.verdict, truth)


def test_a_limit_leaves_the_rest_undecided():
    world = world_of(30)
    policy = PerMask(questions=10)
    first = policy.step(world, Answers.none(), seed=1)
    assert len(first.question_row) == 10
    done = policy.step(world, answers_of(world, first.question_row, np.full(10, YES)), seed=1)
    assert done.done
    assert np.count_nonzero(done.verdict) == 10


def test_score_order_is_descending_with_ties_by_prediction():
    world = world_of(40)
    rows = PerMask(order="score").step(world, Answers.none(), seed=1).question_row
    keys = [(-world.score[row], world.prediction[row]) for row in rows]
    assert keys == sorted(keys)


def test_random_order_depends_on_the_seed_and_not_on_the_order_of_rows():
    one, other = world_of(40, seed=0), world_of(40, seed=1)
    asked = [world.prediction[PerMask().step(world, Answers.none(), 7).question_row] for world in (one, other)]
    assert np.array_equal(asked[0], asked[1])
    assert not np.array_equal(asked[0], one.prediction[PerMask().step(one, Answers.none(), 8).question_row])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.none() | st.integers(1, 40), st.integers(0, 2**16))
def test_a_step_never_asks_what_is_known_and_resumes_where_it_was(count, limit, seed):
    world = world_of(count)
    policy = PerMask(questions=limit)
    whole = policy.step(world, Answers.none(), seed).question_row
    cut = len(whole) // 2
    rest = policy.step(world, answers_of(world, whole[:cut], np.full(cut, NO)), seed).question_row
    assert np.array_equal(rest, whole[cut:])


def test_the_last_answer_counts_and_gold_counts_nothing():
    world = world_of(3)
    answers = Answers.join(
        [
            answers_of(world, np.array([0, 1, 0]), np.array([YES, YES, NO])),
            answers_of(world, np.array([1, 2]), np.array([NO, YES]), purpose=4),
        ]
    )
    decision = PerMask().step(world, answers, seed=0)
    assert decision.verdict.tolist() == [NO, YES, 0]
    assert decision.question_row.tolist() == [2]


def test_other_leaves_a_mask_undecided_and_is_not_asked_again():
    world = world_of(2)
    decision = PerMask().step(world, answers_of(world, np.array([0, 1]), np.array([OTHER, YES])), seed=0)
    assert decision.done
    assert decision.verdict.tolist() == [0, 1]


def test_answers_about_unknown_predictions_are_left_aside():
    world = world_of(2)
    stale = Answers(np.array([99], np.uint64), np.ones(1, np.int8), np.full(1, -1), np.zeros(1, np.int8))
    decision = PerMask().step(world, stale, seed=0)
    assert len(decision.question_row) == 2
    assert not decision.verdict.any()
