"""What tests of policies share: worlds with embeddings, answers, and asking until a policy is done."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segloop.annotation.answers import Answers
from segloop.annotation.policies import Decision, Policy
from segloop.annotation.world import World

Asked = tuple[Decision, Answers, list[int]]


def answers_of(world: World, rows: Any, replies: Any, nodes: Any = None, purpose: int = 0) -> Answers:
    rows = np.asarray(rows, np.int64)
    return Answers(
        world.prediction[rows],
        np.asarray(replies, np.int8),
        np.full(len(rows), -1) if nodes is None else np.asarray(nodes, np.int64),
        np.full(len(rows), purpose, np.int8),
    )


def ask_all(
    policy: Policy, world: World, truth: Any, seed: int, answers: Answers | None = None, batch: int | None = None
) -> Asked:
    """Answer `batch` questions at a time; return the last decision, the answers and the rows asked, in order."""
    answers = Answers.none() if answers is None else answers
    asked: list[int] = []
    for _ in range(2000):
        decision = policy.step(world, answers, seed)
        rows = decision.question_row
        known = world.rows_of(answers.prediction)
        assert not np.isin(rows, known).any(), "asks what it was told"
        assert len(np.unique(rows)) == len(rows), "asks twice at once"
        assert (len(decision.waiting) > 0) == (len(rows) > 0)
        if decision.done:
            return decision, answers, asked
        rows = rows[:batch]
        asked += rows.tolist()
        answers = Answers.join([answers, answers_of(world, rows, truth[rows], decision.question_node[:batch])])
    raise AssertionError("the policy does not end")


def shuffled(answers: Answers, seed: int) -> Answers:
    order = np.random.default_rng(seed).permutation(len(answers))
    return Answers(*(getattr(answers, name)[order] for name in ("prediction", "reply", "node", "purpose")))


def blobs(
    sizes: list[int], categories: list[int] | None = None, spread: float = 0.1, zeros: int = 0, seed: int = 0
) -> World:
    """Return a world without a tree: one bunch of similar embeddings for each size, then rows of zeros."""
    random = np.random.default_rng(seed)
    count = sum(sizes) + zeros
    centre = np.eye(8)[: len(sizes)]
    embedding = np.zeros((count, 8), np.float16)
    bunch = np.repeat(np.arange(len(sizes)), sizes)
    embedding[: len(bunch)] = centre[bunch] + spread * random.standard_normal((len(bunch), 8))
    category = np.ones(count, np.int32)
    category[: len(bunch)] = np.array([1] * len(sizes) if categories is None else categories)[bunch]
    return World(
        tree=None,
        prediction=random.permutation(np.arange(1, count + 1)).astype(np.uint64),
        category=category,
        score=random.random(count).astype(np.float32),
        image_id=np.zeros(count, np.int64),
        embedding=embedding,
    )


@pytest.fixture(scope="session")
def give() -> Callable[..., Answers]:
    return answers_of


@pytest.fixture(scope="session")
def answer_all() -> Callable[..., Asked]:
    return ask_all


@pytest.fixture(scope="session")
def make_blobs() -> Callable[..., World]:
    return blobs


@pytest.fixture(scope="session")
def in_parts() -> Callable[..., None]:
    """Return a check that the parts in which answers arrive, their order and what is remembered change nothing."""

    def check(policy: Policy, world: World, again: World, truth: Any, seed: int, batch: int) -> None:
        whole, answers, asked = ask_all(policy, world, truth, seed)
        parts, _, asked_in_parts = ask_all(policy, world, truth, seed, batch=batch)
        mixed = policy.step(again, shuffled(answers, seed), seed)
        assert sorted(asked_in_parts) == sorted(asked)
        assert mixed.done
        for name in ("verdict", "reason", "node"):
            assert np.array_equal(getattr(parts, name), getattr(whole, name))
            assert np.array_equal(getattr(mixed, name), getattr(whole, name))
        assert np.array_equal(whole.verdict[asked], truth[asked])

    return check
