import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from pycocotools.coco import COCO

from segloop.annotation.edits import write_edited
from segloop.collection.collect import collect_masks
from segloop.data import masks
from segloop.errors import SegloopError
from segloop.ids import prediction_ids
from segloop.store.index import read_index

RECTS = [(0, 0, 10, 10), (12, 12, 16, 16), (0, 12, 5, 18), (11, 0, 19, 8)]


@pytest.fixture
def judged(run):
    """Iteration 1 over two shards: a cluster of node 8, an answered mask, a rejected one, a duplicate."""
    run.pool([11, 12], [20])
    rows = [(11, 1, 0.9, RECTS[0]), (11, 7, 0.8, RECTS[1]), (12, 1, 0.7, RECTS[2])]
    stores = [run.store(1, 0, rows, [11, 12]), run.store(1, 1, [(20, 1, 0.9, RECTS[3]), (20, 7, 0.6, RECTS[1])], [20])]
    path = run.index(1, stores)
    index = read_index(path)
    verdicts = run.verdicts(
        1,
        index.prediction,
        [1, -1, 1, 1, 1],
        ["cluster", "answered", "answered", "cluster", "duplicate"],
        [8, 8, 3, 8, -1],
    )
    keys = [key.tobytes() for key in index.mask_key]
    ids = index.prediction.tolist()
    answers = run.answers(
        1,
        [
            {"prediction": ids[1], "mask_key": keys[1], "reply": "no", "node": 8, "counted_at": [8, 4]},
            {"prediction": ids[3], "mask_key": keys[3], "node": 9, "counted_at": [9, 8]},
            {"prediction": ids[2], "mask_key": keys[2], "node": 3, "counted_at": []},
            {"prediction": ids[2], "mask_key": bytes(32), "node": 3, "counted_at": [8]},
            {"prediction": ids[2], "mask_key": keys[2], "purpose": "gold"},
            {"prediction": 77, "mask_key": bytes(32), "counted_at": [8]},
        ],
    )
    return {
        "index": path,
        "predictions": stores,
        "verdicts": verdicts,
        "answers": answers,
        "shards": run.shards,
        "seed_set": run.seed_set,
        "output": run.folder / "collected.json",
        "iteration": 1,
    }


def test_a_mended_mask_takes_the_place_of_the_predicted_one(judged):
    collect_masks(**judged)
    before = json.loads(judged["output"].read_text())["annotations"]
    index = read_index(judged["index"])
    name = int(index.prediction[2])
    drawn = masks.encode(np.ones((20, 20), np.bool_))
    edit = {"edit_id": "e", "annotator": "p", "time": "now", "seconds": 9.0, "price": 0.1, "prediction": name}
    edited = judged["output"].parent / "edited.json"
    write_edited(edited, [edit | {"mask_key": index.mask_key[2].tobytes(), "segmentation": drawn}], [], 0.0)
    collect_masks(**judged, edited=edited)
    after = json.loads(judged["output"].read_text())["annotations"]
    assert (after[1]["segmentation"], after[1]["area"], after[1]["bbox"]) == (
        masks.to_json(drawn),
        400,
        [0.0, 0.0, 20.0, 20.0],
    )
    assert after[1]["provenance"] == before[1]["provenance"] | {
        "edit": {"edit_id": "e", "annotator": "p", "time": "now"}
    }
    assert [after[0], after[2]] == [before[0], before[2]]
    small = masks.encode(np.ones((2, 2), np.bool_))
    write_edited(edited, [edit | {"mask_key": index.mask_key[2].tobytes(), "segmentation": small}], [], 0.0)
    with pytest.raises(SegloopError, match=r"edit e has size \[2, 2\]"):
        collect_masks(**judged, edited=edited)


def test_accepted_masks_that_repeat_none_are_collected(judged):
    collect_masks(**judged)
    found = json.loads(judged["output"].read_text())
    assert [(a["id"], a["image_id"], a["category_id"]) for a in found["annotations"]] == [
        (1, 11, 1),
        (2, 12, 1),
        (3, 20, 1),
    ]
    assert found["images"] == [
        {"id": 11, "file_name": "pool/11.jpg", "width": 20, "height": 20},
        {"id": 12, "file_name": "pool/12.jpg", "width": 20, "height": 20},
        {"id": 20, "file_name": "pool/20.jpg", "width": 20, "height": 20},
    ]
    assert found["annotations"][0]["bbox"] == [0, 0, 10, 10]
    assert found["annotations"][0]["area"] == 100
    assert found["annotations"][0]["score"] == float(np.float32(0.9))


def test_annotations_say_where_they_come_from(judged):
    collect_masks(**judged)
    annotations = json.loads(judged["output"].read_text())["annotations"]
    first = annotations[0]["provenance"]
    index = read_index(judged["index"])
    assert first == {
        "iteration": 1,
        "shard": 0,
        "row": 0,
        "prediction": str(prediction_ids(1, 0, 1)[0]),
        "mask_key": index.mask_key[0].tobytes().hex(),
        "weights_sha256": "f" * 64,
        "node": 8,
        "verdict_reason": "cluster",
        "answers": ["0", "1"],  # what node 8 counted; not the stale ones
    }
    # An answered mask rests on its own answers; gold and stale ones are none.
    assert annotations[1]["provenance"]["answers"] == ["2"]
    assert annotations[2]["provenance"]["shard"] == 1


def test_the_file_is_valid_coco(judged):
    collect_masks(**judged)
    with redirect_stdout(io.StringIO()):
        coco = COCO(judged["output"])
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[11, 12, 20], catIds=[1, 7]))
    assert len(annotations) == 3
    for annotation in annotations:
        rle = masks.check(annotation["segmentation"], (20, 20))
        assert masks.area([rle])[0] == annotation["area"]
        assert masks.boxes([rle])[0].tolist() == annotation["bbox"]


def test_the_same_input_gives_the_same_bytes(judged):
    collect_masks(**judged)
    once = judged["output"].read_bytes()
    collect_masks(**judged)
    assert judged["output"].read_bytes() == once


def test_nothing_accepted_is_an_empty_file(judged, run):
    ids = read_index(judged["index"]).prediction
    run.verdicts(1, ids, [-1] * 5, ["cluster"] * 5, [8] * 5)
    collect_masks(**judged)
    found = json.loads(judged["output"].read_text())
    assert (found["images"], found["annotations"]) == ([], [])
    assert found["categories"] == run.categories


def test_verdicts_of_another_index_are_refused(judged, run):
    run.verdicts(1, prediction_ids(1, 0, 2), [1, 1], ["cluster"] * 2, [8] * 2)
    with pytest.raises(SegloopError, match="different predictions"):
        collect_masks(**judged)


def test_a_pool_that_changed_is_named(judged, run):
    run.shards.clear()
    run.pool([11], [20])
    with pytest.raises(SegloopError, match=r"image 12, which .*pool_0\.parquet lacks"):
        collect_masks(**judged)


def test_a_category_the_seed_set_lacks_is_named(judged, run):
    run.categories = [{"id": 7, "name": "star"}]
    run.coco(run.seed_set, [], [])
    with pytest.raises(SegloopError, match="category 1, which"):
        collect_masks(**judged)
