import json

import numpy as np
import pytest

from segloop.collection.census import CELLS, MOST_A_IMAGE, SCORE_EDGES, SIZE_EDGES, take_census
from segloop.errors import SegloopError

from .conftest import SIDE, record_of

SMALL, LARGE = (0, 0, 2, 2), (10, 10, 20, 20)


def collected(run, name, rows):
    path = run.folder / name
    run.coco(path, sorted({row["image_id"] for row in rows}), rows, folder="pool")
    return path


@pytest.fixture
def counted(run):
    """Two iterations; the second one predicts one mask of the first again, which is a duplicate."""
    run.pool([11, 12], [20])
    first = run.store(1, 0, [(11, 1, 0.95, SMALL), (11, 7, 0.6, LARGE)], [11, 12])
    other = run.store(1, 1, [(20, 1, 0.7, LARGE)], [20])
    one = run.index(1, [first, other])
    run.verdicts(1, sorted(np.concatenate([_ids(one)])), [1, -1, 1], ["answered"] * 3, [-1] * 3)
    again = run.store(2, 0, [(11, 1, 0.9, SMALL), (12, 1, 0.8, LARGE)], [11, 12])
    two = run.index(2, [again, run.store(2, 1, [], [20])], [[first, other]])
    masks = [
        collected(run, "1.json", [record_of(1, 11, 1, SMALL, score=0.95), record_of(2, 20, 1, LARGE, score=0.7)]),
        collected(run, "2.json", [record_of(1, 12, 1, LARGE, score=0.8)]),
    ]
    truth = [record_of(1, 11, 1, SMALL), record_of(2, 12, 7, LARGE), record_of(3, 12, 1, LARGE, iscrowd=1)]
    run.coco(run.truth, [11, 12, 20], truth, folder="pool")
    return {"indexes": [one, two], "collected": masks, "shards": run.shards, "seed_set": run.seed_set,
            "output": run.folder / "census.json"}  # fmt: skip


def _ids(index):
    from segloop.store.index import read_index

    return read_index(index).prediction


def test_masks_are_counted_once_by_category_size_position_and_score(counted, run):
    take_census(**counted, truth=run.truth)
    census = json.loads(counted["output"].read_text())
    disc, star = census["categories"]
    assert (disc["seed"], disc["predicted"], disc["collected"], disc["truth"]) == (1, 3, 3, 1)
    assert (star["seed"], star["predicted"], star["collected"], star["truth"]) == (0, 1, 0, 1)
    assert census["predicted"]["count"] == sum(census["predicted"]["size"]) == sum(census["predicted"]["score"]) == 4
    assert census["collected"]["count"] == 3
    assert census["truth"]["count"] == 2
    assert "score" not in census["truth"]
    share = 100 / SIDE**2
    place = next(n for n in range(len(SIZE_EDGES) - 1) if SIZE_EDGES[n] <= share < SIZE_EDGES[n + 1])
    assert census["collected"]["size"][place] == 2
    assert census["collected"]["position"][0][0] == 1
    assert census["collected"]["position"][int(0.75 * CELLS)][int(0.75 * CELLS)] == 2
    assert census["collected"]["score"][SCORE_EDGES.index(0.8)] == 1


def test_images_without_a_mask_are_counted_too(counted):
    take_census(**counted)
    census = json.loads(counted["output"].read_text())
    assert census["truth"] is None
    assert census["images"]["pool"] == 3
    assert census["images"]["with"] == [0, 3] + [0] * (MOST_A_IMAGE - 1)
    assert census["images"]["per_image"] == census["images"]["per_covered_image"] == 1.0


def test_nothing_collected_is_no_error(counted, run):
    empty = counted | {"collected": [collected(run, "0.json", [])]}
    take_census(**empty)
    census = json.loads(counted["output"].read_text())
    assert census["collected"]["count"] == 0
    assert census["images"]["with"][0] == 3
    assert census["images"]["per_covered_image"] is None


def test_a_missing_index_is_named(counted, run):
    with pytest.raises(SegloopError, match=r"iter_9"):
        take_census(**(counted | {"indexes": [run.folder / "iter_9" / "index.zarr"]}))
