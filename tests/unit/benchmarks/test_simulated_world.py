from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Modules = Callable[[str], ModuleType]


@pytest.fixture
def simulate(benchmark_module: Modules) -> Callable[..., Any]:
    function: Callable[..., Any] = benchmark_module("simulated_world").simulate
    return function


def test_the_seed_decides_everything(simulate: Callable[..., Any]) -> None:
    one, again, other = (vars(simulate("C", n=500, categories=7, seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["embedding"], other["embedding"])
    assert not np.array_equal(one["good"], other["good"])


def test_arrays_are_what_they_say(simulate: Callable[..., Any]) -> None:
    world = simulate("D", n=4000, categories=9, dim=32, base_rate=0.3)
    assert world.embedding.shape == (4000, 32)
    assert np.allclose(np.linalg.norm(world.embedding, axis=1), 1, atol=1e-5)
    assert set(world.category.tolist()) == set(range(9))
    assert world.score.min() > 0 and world.score.max() < 1
    assert world.p_good.mean() == pytest.approx(0.3, abs=1e-4)
    assert world.good.mean() == pytest.approx(0.3, abs=0.03)


def test_rows_of_a_subcluster_share_category_and_probability(simulate: Callable[..., Any]) -> None:
    world = simulate("B", n=3000, categories=5)
    for number in np.unique(world.subcluster):
        rows = world.subcluster == number
        assert len(np.unique(world.category[rows])) == 1
        assert np.ptp(world.p_good[rows]) < 1e-6


def test_later_levels_are_easier(simulate: Callable[..., Any]) -> None:
    def agreement(level: str) -> float:
        world = simulate(level, n=3000, categories=5, seed=3)
        similarity = world.embedding @ world.embedding.T
        np.fill_diagonal(similarity, -1)
        nearest = np.argsort(-similarity, axis=1)[:, :30]
        share = world.good[nearest].mean(axis=1)
        # Mean rank distance of good from bad: 0 where neighbours say nothing.
        return float(share[world.good].mean() - share[~world.good].mean())

    found = [agreement(level) for level in "ABCDE"]
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.3
