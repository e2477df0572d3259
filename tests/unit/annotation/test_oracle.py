import io
from contextlib import redirect_stdout

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segloop.annotation.oracle import (
    MATCH_SCHEMA,
    good,
    groups_of,
    mask_iou,
    match_one_to_one,
    match_truth,
    read_truth_match,
)
from segloop.data import masks
from segloop.errors import SegloopError

BIG, NEAR, NEARER, FAR = (0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 10), (12, 12, 16, 16)


def matched(scene, shards, truth, t_iou=0.8, workers=1):
    output = scene.folder / "truth_match.parquet"
    match_truth(**scene.predict(*shards), truth=scene.truth(truth), output=output, t_iou=t_iou, workers=workers)
    return read_truth_match(output)


def test_the_best_truth_of_the_same_image_and_category(scene):
    found = matched(
        scene,
        [[(1, 1, 0.9, NEAR), (1, 2, 0.8, NEAR), (1, 1, 0.7, FAR)], [(2, 1, 0.9, BIG)]],
        [(1, 1, FAR, 0), (1, 1, BIG, 0), (1, 3, BIG, 0), (3, 1, BIG, 0)],
    )
    assert found.iou.tolist() == [np.float32(0.9), 0, 1, 0]
    assert found.truth_id.tolist() == [2, 0, 1, 0]


def test_crowds_serve_nobody(scene):
    found = matched(scene, [[(1, 1, 0.9, BIG)]], [(1, 1, BIG, 1)])
    assert found.iou.tolist() == [0.0]
    assert found.matched_id.tolist() == [0]


def test_a_truth_serves_several_masks_or_the_best_scored_one(scene):
    found = matched(scene, [[(1, 1, 0.9, NEAR), (1, 1, 0.8, NEARER)]], [(1, 1, BIG, 0)])
    assert good(found, 0.8, "any").tolist() == [True, True]
    assert good(found, 0.8, "one_to_one").tolist() == [True, False]
    assert found.matched_iou.tolist() == [np.float32(0.9), 0]


def test_a_mask_whose_truth_is_taken_may_have_the_second_best(scene):
    found = matched(
        scene, [[(1, 1, 0.9, BIG), (1, 1, 0.8, NEAR)]], [(1, 1, BIG, 0), (1, 1, (0, 0, 10, 8), 0)], t_iou=0.5
    )
    assert found.matched_id.tolist() == [1, 2]


def test_good_is_strictly_above_the_threshold(scene):
    found = matched(scene, [[(1, 1, 0.9, (0, 0, 10, 8))]], [(1, 1, BIG, 0)], t_iou=0.8)
    assert found.iou[0] == np.float32(0.8)
    for matching in ("any", "one_to_one"):
        assert not good(found, 0.8, matching)[0]
    assert good(found, 0.79, "any")[0]


def test_one_to_one_at_another_threshold_is_refused(scene):
    found = matched(scene, [[(1, 1, 0.9, BIG)]], [(1, 1, BIG, 0)], t_iou=0.8)
    with pytest.raises(SegloopError, match=r"at t_iou 0\.8, not 0\.7"):
        good(found, 0.7, "one_to_one")


def test_nothing_predicted_and_no_truth(scene):
    assert len(matched(scene, [[], []], [(1, 1, BIG, 0)])) == 0
    assert matched(scene, [[(1, 1, 0.9, BIG)]], []).iou.tolist() == [0.0]


def test_any_number_of_workers_writes_the_same_bytes(scene):
    random = np.random.default_rng(0)

    def rect():
        x, y, w, h = random.integers(0, 4, 2).tolist() + random.integers(6, 12, 2).tolist()
        return (x, y, x + w, y + h)

    shards = [[(s * 10 + i, 1 + k % 2, 1 - k / 100, rect()) for i in range(3) for k in range(5)] for s in range(3)]
    truth = [(s * 10 + i, 1 + k % 2, rect(), 0) for s in range(3) for i in range(3) for k in range(6)]
    once = matched(scene, shards, truth, t_iou=0.3)
    written = (scene.folder / "truth_match.parquet").read_bytes()
    assert 0 < np.count_nonzero(good(once, 0.3, "one_to_one")) < np.count_nonzero(good(once, 0.3, "any"))
    matched(scene, shards, truth, t_iou=0.3, workers=2)
    assert (scene.folder / "truth_match.parquet").read_bytes() == written


def test_images_of_another_size_are_named(scene):
    rle = masks.encode(np.ones((4, 5), np.bool_))
    with pytest.raises(SegloopError, match=r"image 9: masks .* \[\(4, 5\), \(5, 4\)\]"):
        mask_iou([rle], [masks.encode(np.ones((5, 4), np.bool_))], "image 9")


def test_a_file_that_does_not_say_its_threshold_is_refused(tmp_path):
    pq.write_table(pa.Table.from_pylist([], schema=MATCH_SCHEMA), tmp_path / "match.parquet")
    with pytest.raises(SegloopError, match="t_iou"):
        read_truth_match(tmp_path / "match.parquet")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40))
def test_groups_hold_each_row_once_and_ascend(pairs):
    image = np.array([pair[0] for pair in pairs], np.int64)
    kind = np.array([pair[1] for pair in pairs], np.int32)
    groups = list(groups_of(image, kind))
    assert [key for key, _ in groups] == sorted(set(pairs))
    for key, rows in groups:
        assert rows.tolist() == [row for row, pair in enumerate(pairs) if pair == key]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(0, 6))
def test_one_to_one_matching_is_cocos(seed, predictions, truths):
    random = np.random.default_rng(seed)

    def some(count):
        drawn = []
        for _ in range(count):
            mask = np.zeros((12, 12), np.bool_)
            x, y = random.integers(0, 4, 2)
            w, h = random.integers(5, 9, 2)
            mask[y : y + h, x : x + w] = True
            drawn.append(masks.encode(mask))
        return drawn

    found, wanted = some(predictions), some(truths)
    # An irrational threshold: COCO's is "at least", ours "above", and ties of IoU are broken differently.
    t_iou = 0.5 + np.pi / 1000
    score = random.permutation(predictions) / predictions
    iou = mask_iou(found, wanted, "here")
    if len(np.unique(iou[iou > 0])) < np.count_nonzero(iou > 0):
        return
    matches = match_one_to_one(iou, score, t_iou)
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1, "width": 12, "height": 12}],
            "categories": [{"id": 1, "name": "x"}],
            "annotations": [
                {
                    "id": number,
                    "image_id": 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "segmentation": masks.to_json(rle),
                    "area": int(masks.area([rle])[0]),
                    "bbox": masks.boxes([rle])[0].tolist(),
                }
                for number, rle in enumerate(wanted, start=1)
            ],
        }
        truth.createIndex()
        results = truth.loadRes(
            [
                {"image_id": 1, "category_id": 1, "score": float(s), "segmentation": masks.to_json(rle)}
                for s, rle in zip(score, found, strict=True)
            ]
        )
        evaluation = COCOeval(truth, results, "segm")
        evaluation.params.iouThrs = np.array([t_iou])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
    (image,) = evaluation.evalImgs
    theirs = dict(zip(image["dtIds"], image["dtMatches"][0].astype(int).tolist(), strict=True))
    assert [theirs[number] for number in range(1, predictions + 1)] == (matches + 1).tolist()
