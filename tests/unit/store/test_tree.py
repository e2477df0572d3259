from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segloop.clustering.building import build_tree
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.tree import Tree, read_tree, validate, write_tree


def tree(n: int, categories: int = 3, **config: Any) -> Tree:
    rng = np.random.default_rng(n)
    rows = rng.random((n, 8), np.float32)
    if n > 2:
        rows[2] = 0
    return build_tree(rows, rng.integers(1, categories + 1, n), None, ClusteringConfig(**config), 0)


@pytest.mark.parametrize("n", [0, 1, 2, 60])
def test_what_is_written_is_read(tmp_path: Path, n: int) -> None:
    written = tree(n)
    write_tree(tmp_path / "tree.zarr", written)
    found = read_tree(tmp_path / "tree.zarr")
    validate(found)
    for field in fields(Tree):
        a, b = getattr(written, field.name), getattr(found, field.name)
        if field.name == "attributes":
            assert a == b
        else:
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


def test_members_and_children() -> None:
    grown = tree(60)
    assert sorted(grown.members(grown.root)) == list(range(59))
    for node in range(grown.n, 2 * grown.n - 1):
        left, right = grown.children(node)
        below = np.concatenate([grown.members(left), grown.members(right)])
        assert np.array_equal(grown.members(node), below)
    assert np.shares_memory(grown.members(grown.root), grown.order)
    assert grown.members(5).tolist() == [5]
    assert grown.is_leaf(58)
    assert not grown.is_leaf(59)
    with pytest.raises(ValueError, match="leaf"):
        grown.children(0)


def test_roots_of_small_trees() -> None:
    assert tree(1).root == 0
    with pytest.raises(ValueError, match="empty"):
        tree(0).root  # noqa: B018


def test_predictions_without_direction_are_outside() -> None:
    grown = tree(10)
    assert grown.null_id.tolist() == [3]
    assert 3 not in grown.row_id


HARMS: dict[str, tuple[str, int, Any]] = {
    "children come before": ("left", 0, 118),
    "child of exactly one": ("right", 0, 1),
    "size of a node": ("size", -1, 7),
    "share the range": ("start", 70, 3),
    "each leaf stands once": ("order", 3, 0),
    "heights are finite": ("height", 4, np.nan),
    "running maximum": ("height_mono", 9, 2.0),
    "partitions are ranges": ("part_root", 0, 100),
    "category node": ("category_node", 0, 100),
    "prediction stands once": ("row_id", 0, 3),
}


@pytest.mark.parametrize("promise", HARMS)
def test_each_broken_promise_is_named(promise: str) -> None:
    name, place, value = HARMS[promise]
    grown = tree(60)
    changed = getattr(grown, name).copy()
    changed[place] = value
    with pytest.raises(SegloopError, match=promise):
        validate(replace(grown, **{name: changed}))


def test_wrong_length_is_named() -> None:
    grown = tree(60)
    with pytest.raises(SegloopError, match="lengths"):
        validate(replace(grown, height=grown.height[:-1]))
