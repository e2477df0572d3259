from itertools import pairwise

import numpy as np
import pytest

from segloop.annotation.policies.levels import cluster_levels, cuts
from segloop.clustering.building import build_tree
from segloop.config import ClusteringConfig


def tree_of(n, categories, seed=0, **config):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n, 8)).astype(np.float32)
    return build_tree(rows, random.integers(1, categories + 1, n), None, ClusteringConfig(**config), 0)


@pytest.mark.parametrize("linkage", ["ward", "average"])
@pytest.mark.parametrize("scope", ["category", "global"])
def test_clusters_are_nodes_in_proportion_to_their_category(linkage, scope):
    tree = tree_of(600, 3, linkage=linkage, scope=scope)
    labels = cuts(tree, [30])[:, 0]
    assert set(labels.tolist()) == set(range(labels.max() + 1))
    assert abs(labels.max() + 1 - 30) <= 2
    in_order = labels[tree.order.astype(int)]
    # Contiguous in the order of the tree, and each run is one node of the tree.
    assert np.all(np.diff(in_order) >= 0)
    ranges = {(int(s), int(s) + int(z)) for s, z in zip(tree.start, tree.size, strict=True)}
    ends = [0, *(np.flatnonzero(np.diff(in_order)) + 1).tolist(), tree.n]
    assert all((a, b) in ranges for a, b in pairwise(ends))
    if scope == "category":
        category = np.repeat(tree.part_category, np.diff(tree.part_offset).astype(int))
        for label in range(labels.max() + 1):
            assert len(set(category[labels == label].tolist())) == 1


def test_the_highest_merges_are_undone_first():
    tree = tree_of(200, 1, linkage="ward")
    labels = cuts(tree, [10])[:, 0]
    kept = [v for v in range(tree.n, 2 * tree.n - 1) if len(set(labels[tree.members(v).astype(int)].tolist())) > 1]
    gone = tree.height_mono[np.array(kept) - tree.n]
    others = np.setdiff1d(np.arange(tree.n, 2 * tree.n - 1), kept)
    assert len(kept) == 9
    assert gone.min() >= tree.height_mono[others - tree.n].max()


def test_levels_nest_and_rows_outside_the_tree_have_a_cluster_of_their_own():
    tree = tree_of(2000, 4, linkage="ward", n_exact=200, m_max=150)
    levels = cluster_levels(tree, 2003)
    assert levels.shape == (2003, 3)
    for level in range(3):
        assert len(set(levels[2000:, level].tolist())) == 1
        assert levels[2000, level] == levels[:2000, level].max() + 1
    for coarse, fine in ((0, 1), (1, 2)):
        pairs = {(f, c) for f, c in zip(levels[:2000, fine].tolist(), levels[:2000, coarse].tolist(), strict=True)}
        assert len(pairs) == len({f for f, _ in pairs})


def test_levels_that_are_cut_together_are_those_that_are_cut_apart():
    # Many masks are alike: heights tie, and so does what lies at the edge of the highest.
    random = np.random.default_rng(1)
    rows = np.repeat(random.standard_normal((40, 8)), 20, axis=0).astype(np.float32)
    tree = build_tree(rows, np.arange(800) % 3 + 1, None, ClusteringConfig(linkage="average"), 0)
    together = cuts(tree, [6, 50, 300])
    for level, count in enumerate((6, 50, 300)):
        assert np.array_equal(together[:, level], cuts(tree, [count])[:, 0])
        assert abs(together[:, level].max() + 1 - count) <= 2


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_trees(n):
    tree = tree_of(n, 1) if n else tree_of(1, 1)
    assert cuts(tree, [10, 3]).shape == (tree.n, 2)
