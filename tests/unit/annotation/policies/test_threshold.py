from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.answers import NO, OTHER, YES, Answers
from segloop.annotation.policies import make_policy
from segloop.annotation.policies.threshold import Distillation, IouThreshold, ScoreThreshold, Verifier
from segloop.annotation.verdicts import ANSWERED, PREFIX
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError

NUMBERS = np.array([0.2, 0.9, 0.95, 0.89, 1.0, 0.0], np.float32)
COLUMN = {"score_threshold": "score", "iou_threshold": "predicted_iou", "verifier": "probability"}
COLUMN["distillation"] = "probability"


@pytest.mark.parametrize("word", COLUMN)
def test_masks_at_or_above_the_threshold_are_accepted_unasked(make_blobs, word):
    world = replace(make_blobs([6]), **{COLUMN[word]: NUMBERS})
    policy = make_policy(AnnotationConfig(policy=word))
    assert len(policy.units(world)) == 0
    decision = policy.step(world, Answers.none(), seed=0)
    assert decision.done
    assert decision.verdict.tolist() == [0, 1, 1, 0, 1, 0]
    assert decision.reason.tolist() == [PREFIX if verdict else 0 for verdict in decision.verdict]
    lower = make_policy(AnnotationConfig(policy=word, threshold=0.89)).step(world, Answers.none(), seed=0)
    assert lower.verdict.tolist() == [0, 1, 1, 1, 1, 0]


def test_the_four_use_their_own_column(make_blobs):
    columns = {"score": NUMBERS, "predicted_iou": NUMBERS[::-1].copy(), "probability": np.roll(NUMBERS, 1)}
    world = replace(make_blobs([6]), **columns)
    policies = (ScoreThreshold(0.9), IouThreshold(0.9), Verifier(0.9), Distillation(0.9))
    accepted = [policy.step(world, Answers.none(), 0).verdict.tolist() for policy in policies]
    shifted = [0, 0, 1, 1, 0, 1]
    assert accepted == [[0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 1, 0], shifted, shifted]


def test_answers_stand_above_the_threshold(make_blobs, give):
    world = replace(make_blobs([6]), score=NUMBERS)
    answers = give(world, [0, 1, 2], [YES, NO, OTHER])
    decision = ScoreThreshold(0.9).step(world, answers, seed=0)
    assert decision.verdict.tolist() == [1, -1, 0, 0, 1, 0]
    assert decision.reason.tolist() == [ANSWERED, ANSWERED, 0, 0, PREFIX, 0]


def test_a_mask_without_a_predicted_iou_is_not_accepted(make_blobs):
    world = replace(make_blobs([2]), predicted_iou=np.array([np.nan, 1], np.float32))
    assert IouThreshold(0.0).step(world, Answers.none(), 0).verdict.tolist() == [0, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_a_higher_threshold_accepts_less_and_never_asks(make_blobs, count, one, other, seed):
    world = make_blobs([count], seed=seed)
    low, high = (ScoreThreshold(value).step(world, Answers.none(), seed) for value in sorted((one, other)))
    assert low.done
    assert high.done
    assert not (high.verdict > low.verdict).any()
    assert np.array_equal(low.verdict == 1, world.score >= np.float32(min(one, other)))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (IouThreshold(), ["predicts the IoU", "annotation.policy: score_threshold"]),
        (Verifier(), ["annotation.probability_file", ".npy"]),
        (Distillation(), ["results/iter_{iteration}/agreement.npy"]),
    ],
)
def test_a_missing_column_is_a_clear_error(make_blobs, policy, words):
    with pytest.raises(SegloopError) as error:
        policy.step(make_blobs([3]), Answers.none(), 0)
    for word in words:
        assert word in str(error.value)
