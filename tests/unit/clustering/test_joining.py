import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist

from segloop.clustering.building import build_tree
from segloop.clustering.distances import unit_rows
from segloop.clustering.joining import chain_merges, join_trees
from segloop.clustering.linkage import link_partitions
from segloop.clustering.partition import partition_predictions
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.tree import Tree, read_tree, to_scipy, validate

Rows = Callable[..., npt.NDArray[np.float32]]


def sorted_by_height(merges: Any, m: int) -> npt.NDArray[np.float64]:
    """A chain finds merges out of order; scipy wants them ascending, with sizes."""
    size = [1] * m
    for a, b in zip(merges.left, merges.right, strict=True):
        size.append(size[a] + size[b])
    order = sorted(range(m - 1), key=lambda t: (merges.height[t], t))
    number = {t: m + place for place, t in enumerate(order)}
    renamed = [*range(m), *(number[t] for t in range(m - 1))]
    return np.array(
        [[renamed[merges.left[t]], renamed[merges.right[t]], merges.height[t], size[m + t]] for t in order], np.float64
    )


@pytest.mark.parametrize("method", ["average", "ward"])
@pytest.mark.parametrize("m", [2, 3, 50, 400])
def test_chain_over_single_rows_equals_scipy(rows: Rows, method: str, m: int) -> None:
    unit = unit_rows(rows(m, 16) + np.float32(0.01)).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = sorted_by_height(chain_merges(unit, np.ones(m, np.int64), method), m)
    expected = linkage(pdist(unit, "euclidean" if method == "ward" else "cosine"), method)
    assert np.allclose(cophenet(found), cophenet(expected), atol=1e-9)


@pytest.mark.parametrize("method", ["average", "ward"])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(2, 12))
def test_heights_between_weighted_items_are_exact(method: str, seed: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 9, m)
    unit = rng.standard_normal((int(size.sum()), 5))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    owner = np.repeat(np.arange(m), size)
    mean = np.stack([unit[owner == item].mean(axis=0) for item in range(m)])
    merges = chain_merges(mean, size, method)
    members = [np.flatnonzero(owner == item) for item in range(m)]
    for a, b, height in zip(merges.left, merges.right, merges.height, strict=True):
        x, y = unit[members[a]], unit[members[b]]
        if method == "average":
            expected = (1 - x @ y.T).mean()
        else:
            apart = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
            expected = np.sqrt(2 * len(x) * len(y) / (len(x) + len(y)) * apart)
        assert height == pytest.approx(max(expected, 0), abs=1e-9)
        members.append(np.concatenate([members[a], members[b]]))
    assert merges.size == len(unit)
    assert np.allclose(merges.mean, unit.mean(axis=0))


def test_chain_of_equal_items_ends_and_takes_the_lowest_numbers() -> None:
    merges = chain_merges(np.full((40, 3), 0.57735), np.ones(40, np.int64), "average")
    assert len(merges.height) == 39
    assert (merges.left[0], merges.right[0]) == (0, 1)


def in_memory(rows: npt.NDArray[Any], category: npt.NDArray[Any], **config: Any) -> Tree:
    tree = build_tree(rows, category, None, ClusteringConfig(**config), 0)
    validate(tree)
    return tree


@pytest.mark.parametrize("scope", ["category", "global"])
@pytest.mark.parametrize("method", ["average", "ward", "complete"])
@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 60), categories=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), coarse=st.booleans())
def test_any_tree_keeps_its_promises(scope: str, method: str, n: int, categories: int, seed: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 4)).astype(np.float32)
    if coarse:
        rows = np.round(rows)
    category = rng.integers(1, categories + 1, n)
    tree = in_memory(rows, category, scope=scope, linkage=method, n_exact=12, m_max=8)
    placed = tree.row_id.astype(np.int64) - 1
    assert sorted([*placed, *(tree.null_id.astype(np.int64) - 1)]) == list(range(n))
    assert (np.diff(tree.part_offset.astype(np.int64)) <= 12).all()
    if scope == "category":
        for name, node in zip(tree.category_id, tree.category_node, strict=True):
            assert set(category[placed[tree.members(int(node))]]) == {name}


@pytest.mark.parametrize("method", ["average", "ward", "complete"])
def test_exact_partitions_equal_scipy(rows: Rows, method: str) -> None:
    embeddings, category = rows(1200, 32) + np.float32(0.01), np.random.default_rng(0).integers(1, 5, 1200)
    tree = in_memory(embeddings, category, linkage=method)
    for part in range(len(tree.part_root)):
        own = slice(int(tree.part_offset[part]), int(tree.part_offset[part + 1]))
        unit = unit_rows(embeddings[tree.row_id[own].astype(np.int64) - 1]).astype(np.float64)
        expected = linkage(pdist(unit, "euclidean" if method == "ward" else "cosine"), method)
        power = 2 if method == "ward" else 1
        assert np.allclose(cophenet(to_scipy(tree, part)) ** power, cophenet(expected) ** power, atol=1e-5)
        assert tree.part_h_root[part] == pytest.approx(expected[-1, 2], abs=1e-5)


def test_heights_between_partitions_are_mean_distances(rows: Rows) -> None:
    embeddings, category = rows(300, 16) + np.float32(0.01), np.random.default_rng(0).integers(1, 6, 300)
    tree = in_memory(embeddings, category, n_exact=60, m_max=30)
    unit = unit_rows(embeddings).astype(np.float64)[tree.row_id.astype(np.int64) - 1]
    first_top = 2 * tree.n - len(tree.part_root)
    for node in range(first_top, tree.root + 1):
        left, right = tree.children(node)
        expected = (1 - unit[tree.members(left)] @ unit[tree.members(right)].T).mean()
        assert tree.height[node - tree.n] == pytest.approx(expected, abs=1e-5)


def test_category_of_one_mask_is_a_leaf_node() -> None:
    tree = in_memory(np.eye(4, dtype=np.float32), np.array([5, 5, 8, 9]))
    assert tree.category_id.tolist() == [5, 8, 9]
    assert tree.size[tree.category_node].tolist() == [2, 1, 1]
    assert tree.part_h_root[1] == 0


def test_attributes_say_how_partitions_were_joined() -> None:
    rows, category = np.eye(4, dtype=np.float32), np.ones(4)
    assert in_memory(rows, category, linkage="complete").attributes["top_linkage"] == "average"
    assert in_memory(rows, category, linkage="ward").attributes["top_linkage"] == "ward"


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SegloopError, match="do not fit 3 categories"):
        build_tree(np.ones((4, 2), np.float32), np.ones(3, np.int64), None, ClusteringConfig(), 0)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def by_jobs(made: Any, folder: Path, config: ClusteringConfig) -> Path:
    folder.mkdir()
    partitions = folder / "partitions.zarr"
    partition_predictions(index=made.index, predictions=made.shards, output=partitions, config=config, seed=4)
    links = [folder / f"{batch}.zarr" for batch in range(config.batches)]
    for batch, path in enumerate(links):
        link_partitions(partitions=partitions, batch=batch, output=path, config=config)
    join_trees(partitions=partitions, links=links[::-1], output=folder / "tree.zarr", config=config)
    return folder / "tree.zarr"


@pytest.mark.parametrize("scope", ["category", "global"])
def test_jobs_equal_memory_whatever_the_number_of_batches(
    rows: Rows, iteration: Any, tmp_path: Path, scope: Any
) -> None:
    embeddings, category = rows(800, 16).astype(np.float16), np.random.default_rng(0).integers(1, 5, 800)
    embeddings[33] = 0
    made = iteration(embeddings, category)
    config = ClusteringConfig(scope=scope, n_exact=150, m_max=100)
    one = by_jobs(made, tmp_path / "one", config)
    three = by_jobs(made, tmp_path / "three", config.model_copy(update={"batches": 3}))
    assert digest(one) == digest(three)
    tree = read_tree(one)
    memory = build_tree(embeddings, category, made.prediction, config, 4)
    for name in ("left", "right", "height", "start", "order", "row_id", "null_id", "part_mean", "category_node"):
        assert np.array_equal(getattr(tree, name), getattr(memory, name)), name


def test_empty_iteration_has_an_empty_tree(iteration: Any, tmp_path: Path) -> None:
    made = iteration(np.ones((4, 8), np.float32), np.ones(4, np.int32), keep=np.zeros(4, bool))
    tree = read_tree(by_jobs(made, tmp_path / "jobs", ClusteringConfig(batches=2)))
    validate(tree)
    assert (tree.n, len(tree.null_id), tree.part_mean.shape) == (0, 0, (0, 8))


def test_links_that_do_not_belong_are_refused(rows: Rows, iteration: Any, tmp_path: Path) -> None:
    category = np.random.default_rng(0).integers(1, 5, 100)
    made = iteration(rows(100, 8) + np.float32(0.01), category)
    config = ClusteringConfig(batches=2)
    by_jobs(made, tmp_path / "a", config)
    links = [tmp_path / "a" / "0.zarr", tmp_path / "a" / "1.zarr"]
    options = {"partitions": tmp_path / "a" / "partitions.zarr", "output": tmp_path / "t.zarr", "config": config}
    with pytest.raises(SegloopError, match="have no tree"):
        join_trees(links=links[:1], **options)
    with pytest.raises(SegloopError, match="second tree"):
        join_trees(links=[*links, links[0]], **options)
    with pytest.raises(SegloopError, match=r"0\.zarr was made from other partitions .* ward"):
        join_trees(links=links, **options | {"config": ClusteringConfig(linkage="ward", batches=2)})
    other = tmp_path / "other.zarr"
    partition_predictions(
        index=made.index, predictions=made.shards, output=other, config=ClusteringConfig(scope="global"), seed=0
    )
    with pytest.raises(SegloopError, match=r"0\.zarr was made from other partitions"):
        join_trees(links=links, **options | {"partitions": other})
    assert not (tmp_path / "t.zarr").exists()
