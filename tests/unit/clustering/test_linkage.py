from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, is_valid_linkage, linkage
from scipy.spatial.distance import pdist

from segloop.clustering import distances
from segloop.clustering import linkage as module
from segloop.clustering.linkage import link, link_by_public_function, link_partitions, partition_tree
from segloop.clustering.partition import partition_predictions
from segloop.clustering.planning import deal, link_seconds
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.partitions import Partitions, PartitionTree, read_links

Rows = Callable[..., npt.NDArray[np.float32]]
LINKAGES = ["average", "ward", "complete"]


def as_scipy(tree: PartitionTree) -> npt.NDArray[np.float64]:
    n = len(tree.order)
    return np.column_stack([tree.left, tree.right, tree.height, tree.size[n:]]).astype(np.float64)


def by_scipy(unit: npt.NDArray[np.float32], method: str) -> npt.NDArray[np.float64]:
    exact = unit.astype(np.float64)
    return linkage(pdist(exact, "euclidean" if method == "ward" else "cosine"), method)


@pytest.mark.parametrize("method", LINKAGES)
@pytest.mark.parametrize(("n", "dim"), [(2, 64), (3, 64), (100, 1024), (2000, 64), (2000, 1024)])
def test_tree_equals_scipy(rows: Rows, method: str, n: int, dim: int) -> None:
    unit = distances.unit_rows(rows(n, dim) + np.float32(0.01))
    found, expected = as_scipy(partition_tree(unit, method)), by_scipy(unit, method)
    assert is_valid_linkage(found)
    power = 2 if method == "ward" else 1
    assert np.abs(found[:, 2] ** power - expected[:, 2] ** power).max() <= 1e-5
    # The same pairs meet at the same heights: the merges are the same up to ties.
    assert np.abs(cophenet(found) ** power - cophenet(expected) ** power).max() <= 1e-5


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_ranges_of_any_tree(n: int, seed: int, coarse: bool) -> None:
    raw = np.random.default_rng(seed).random((n, 3), np.float32) + np.float32(0.01)
    # Coarse values make many equal rows, and so ties and deep trees.
    tree = partition_tree(distances.unit_rows(np.round(raw) + 1 if coarse else raw), "average")
    assert sorted(tree.order) == list(range(n))
    assert (np.diff(tree.height) >= 0).all()
    members = [[leaf] for leaf in range(n)]
    for a, b in zip(tree.left, tree.right, strict=True):
        members.append(members[a] + members[b])
    for node, expected in enumerate(members):
        start, size = int(tree.start[node]), int(tree.size[node])
        assert tree.order[start : start + size].tolist() == expected


def test_single_row_is_a_tree() -> None:
    tree = partition_tree(np.array([[0.6, 0.8]], np.float32), "average")
    assert (tree.size.tolist(), tree.order.tolist(), float(tree.h_root)) == ([1], [0], 0.0)
    assert np.allclose(tree.mean, [0.6, 0.8])


def test_deep_chain_needs_no_recursion() -> None:
    # Angles that double: each row joins all before it, one by one, 3000 levels deep.
    n = 3000
    gaps = np.linspace(1e-5, 1e-3, n)
    angle = np.cumsum(gaps)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    tree = partition_tree(unit, "average")
    assert sorted(tree.order) == list(range(n))
    equal = partition_tree(np.full((n, 4), 0.5, np.float32), "average")
    assert float(equal.h_root) == 0.0
    assert sorted(equal.order) == list(range(n))


@pytest.mark.parametrize("method", LINKAGES)
def test_core_equals_public_function(rows: Rows, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    condensed = distances.condensed(distances.unit_rows(rows(300, 16) + np.float32(0.01)), method)
    in_place = link(condensed.copy(), 300, method)
    assert np.array_equal(in_place, link_by_public_function(condensed.copy(), 300, method))
    monkeypatch.setattr(module, "_CORE", None)
    assert np.array_equal(in_place, link(condensed.copy(), 300, method))
    assert link_by_public_function(np.empty(0), 1, method).shape == (0, 4)


def test_mean_is_exact_to_single_precision(rows: Rows) -> None:
    unit = distances.unit_rows(rows(500, 32) + np.float32(0.01))
    assert np.allclose(partition_tree(unit, "ward").mean, unit.astype(np.float64).mean(axis=0), rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), max_size=60), st.integers(1, 8))
def test_batches_share_the_work(sizes: list[int], batches: int) -> None:
    dealt = deal(np.array(sizes, np.int64), 256, batches)
    assert len(dealt) == batches
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(sizes)))
    assert all((np.diff(own) > 0).all() for own in dealt)
    cost = link_seconds(np.array(sizes, np.int64), 256)
    load = [cost[own].sum() for own in dealt]
    # Graham's bound against the trivial lower bounds of the best schedule.
    best = max(cost.sum() / batches, cost.max(initial=0.0))
    assert max(load) <= (2 - 1 / batches) * best + 1e-9


def test_batches_cover_all_partitions(rows: Rows, iteration: Any, tmp_path: Path) -> None:
    category = np.random.default_rng(0).integers(1, 6, 400)
    made = iteration(rows(400, 16), category)
    config = ClusteringConfig(batches=7)
    partitions = tmp_path / "partitions.zarr"
    partition_predictions(index=made.index, predictions=made.shards, output=partitions, config=config, seed=0)
    source, seen = Partitions(partitions), []
    for batch in range(7):
        link_partitions(partitions=partitions, batch=batch, output=tmp_path / f"l{batch}.zarr", config=config)
        links = read_links(tmp_path / f"l{batch}.zarr")
        for part, tree in zip(links.partition.tolist(), links.trees, strict=True):
            seen.append(part)
            start, stop = int(source.part_offset[part]), int(source.part_offset[part + 1])
            again = partition_tree(
                distances.unit_rows(source.embeddings(start, stop), source.lengths(start, stop)), "average"
            )
            for name in ("left", "right", "height", "start", "size", "order", "mean"):
                assert np.array_equal(getattr(tree, name), getattr(again, name))
    assert sorted(seen) == list(range(len(source)))
    with pytest.raises(SegloopError, match="batch 7"):
        link_partitions(partitions=partitions, batch=7, output=tmp_path / "l7.zarr", config=config)
