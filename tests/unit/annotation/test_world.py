from dataclasses import replace

import numpy as np
import pytest

from segloop.annotation.world import build_world
from segloop.errors import SegloopError


def test_rows_are_leaves_then_predictions_outside_the_tree(make_tree, make_world, make_index):
    tree = make_tree([1, 1, 1, 2, 2], nulls=2)
    index = make_index(make_world(tree, [1, 1, 1, 2, 2]), duplicates=3)
    world = build_world(index, tree)
    assert world.leaves == 5
    assert np.array_equal(world.prediction[:5], tree.row_id)
    assert np.array_equal(world.prediction[5:], tree.null_id)
    assert world.category.tolist()[:5] == [1, 1, 1, 2, 2]
    place = np.searchsorted(index.prediction, world.prediction)
    assert np.array_equal(world.score, index.score[place])


def test_without_a_tree_rows_follow_the_index(make_tree, make_world, make_index):
    index = make_index(make_world(make_tree([1] * 6)), duplicates=2)
    world = build_world(index, None)
    assert np.array_equal(world.prediction, index.prediction[:6])
    assert world.leaves == 0


def test_rows_of_finds_each_prediction_and_no_stranger(make_tree, make_world):
    world = make_world(make_tree([1] * 9, nulls=1))
    strangers = np.array([0, 1, world.prediction.max() + np.uint64(1)], np.uint64)
    assert np.array_equal(world.rows_of(world.prediction), np.arange(10))
    assert world.rows_of(strangers).tolist() == [-1, -1, -1]


def test_rows_of_an_empty_world(make_tree, make_world):
    world = make_world(make_tree([]))
    assert world.rows_of(np.array([7], np.uint64)).tolist() == [-1]


def test_members_of_every_node_are_one_range_of_positions(make_tree, make_world):
    tree = make_tree([1] * 20 + [2] * 11, seed=3)
    world = make_world(tree)
    for node in range(2 * tree.n - 1):
        places = np.sort(world.position[tree.members(node)])
        assert np.array_equal(places, tree.start[node] + np.arange(tree.size[node]))


def test_tree_of_another_index_is_refused(make_tree, make_world, make_index):
    tree = make_tree([1] * 6)
    index = make_index(make_world(tree))
    with pytest.raises(SegloopError, match="do not belong together"):
        build_world(index, replace(tree, row_id=tree.row_id + np.uint64(1)))
    with pytest.raises(SegloopError, match="holds 6 predictions, the index 7"):
        build_world(make_index(make_world(make_tree([1] * 7))), tree)
