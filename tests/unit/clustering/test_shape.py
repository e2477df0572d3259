from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segloop.clustering.building import build_tree
from segloop.clustering.shape import (
    Merges,
    inversions,
    leaves_by_depth,
    summary_of_depths,
    summary_of_sizes,
    tree_shape,
)
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.tree import Tree, write_tree

Rows = Callable[..., npt.NDArray[np.float32]]


def built(embeddings: npt.NDArray[Any], **options: Any) -> Tree:
    category = np.random.default_rng(1).integers(1, 4, len(embeddings))
    return build_tree(embeddings, category, None, ClusteringConfig(**options), 0)


def by_walking(tree: Tree) -> npt.NDArray[np.int64]:
    """Depths of the leaves by walking down, node by node."""
    depth = np.zeros(len(tree.size), np.int64)
    for node in range(len(tree.size) - 1, tree.n - 1, -1):
        depth[list(tree.children(node))] = depth[node] + 1
    return np.bincount(depth[: tree.n])


def merges(tree: Tree) -> Merges:
    return Merges(tree.n, tree.left, tree.right, tree.height)


@pytest.mark.parametrize("n", [1, 2, 3, 500])
@pytest.mark.parametrize("linkage", ["average", "ward"])
def test_depths_equal_those_of_a_walk(rows: Rows, n: int, linkage: str) -> None:
    tree = built(rows(n, 8) + np.float32(0.01), linkage=linkage)
    assert np.array_equal(leaves_by_depth(merges(tree)), by_walking(tree))


def test_a_chain_is_as_deep_as_it_is_long() -> None:
    n = 5000
    left = np.concatenate([[0], np.arange(n, 2 * n - 2)]).astype(np.uint32)
    chain = Merges(n, left, np.arange(1, n, dtype=np.uint32), np.zeros(n - 1))
    found = summary_of_depths(leaves_by_depth(chain))
    assert (found["max"], found["median"], found["mean"]) == (n - 1, 2500, 2500.5)
    assert len(found["histogram"]["leaves"]) <= 60
    assert sum(found["histogram"]["leaves"]) == n


def test_an_inversion_is_a_child_above_its_parent() -> None:
    # Two pairs at heights 5 and 1 below a root at 3.
    tree = Merges(4, np.array([0, 2, 4], np.uint32), np.array([1, 3, 5], np.uint32), np.array([5.0, 1.0, 3.0]))
    assert inversions(tree) == 1
    assert inversions(replace(tree, height=np.array([3.0 + 1e-9, 1.0, 3.0]))) == 0
    assert inversions(replace(tree, height=np.array([4.0, 4.0, 3.0]))) == 2


def test_a_tree_says_its_shape_and_how_it_was_made(rows: Rows, tmp_path: Path) -> None:
    embeddings = np.concatenate([np.eye(6, 8, dtype=np.float32)] * 2)
    for linkage, limit in (("average", 0.001), ("ward", 0.044721)):
        tree = build_tree(embeddings, np.ones(12, np.int32), None, ClusteringConfig(linkage=linkage), 0)
        write_tree(tmp_path / linkage, tree)
        found = tree_shape(tmp_path / linkage)
        # Six pairs of equal rows; the pairs are at right angles to each other.
        assert found["tree"]["near_copies"] == {"height": limit, "merges": 6}
        assert found["tree"]["leaves"] == 12
        assert found["tree"]["inversions"] == 0
        assert found["how"]["linkage"] == linkage
        assert found["how"]["embedding_dim"] == 8


def test_an_empty_tree_has_no_depth(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree.zarr", built(np.zeros((3, 4), np.float32)))
    depth = tree_shape(tmp_path / "tree.zarr")["tree"]["depth"]
    assert depth == {"mean": None, "median": None, "max": None, "histogram": {"width": 1, "leaves": []}}


def test_a_missing_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"none\.zarr is not a Zarr store"):
        tree_shape(tmp_path / "none.zarr")


def test_sizes() -> None:
    found = summary_of_sizes(np.array([1, 2, 3, 4, 100]))
    assert (found["count"], found["largest"]) == (5, 100)
    assert found["quantiles"] == {"0.0": 1, "0.25": 2, "0.5": 3, "0.75": 4, "0.9": 100, "1.0": 100}
    assert found["histogram"] == {"from": [1, 2, 4, 8, 16, 32, 64], "count": [1, 2, 1, 0, 0, 0, 1]}
    assert summary_of_sizes(np.zeros(0, np.int64))["quantiles"]["0.5"] is None
