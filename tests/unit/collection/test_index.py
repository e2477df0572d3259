import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.edits import write_edited
from segloop.collection.index import _duplicates, _EarlierMasks
from segloop.data import masks
from segloop.errors import SegloopError
from segloop.ids import mask_key, prediction_ids
from segloop.store.index import read_index, read_index_attributes
from segloop.store.predictions import PredictionShard

BIG, SHIFTED, SMALL = (0, 0, 10, 10), (0, 0, 10, 9), (12, 12, 16, 16)


def test_rows_above_the_score_enter_with_their_names(run):
    stores = [
        run.store(1, 0, [(1, 1, 0.9, BIG), (1, 7, 0.5, SMALL), (2, 1, 0.51, SMALL)], [1, 2]),
        run.store(1, 1, [(3, 7, 0.8, SMALL)], [3]),
    ]
    index = read_index(run.index(1, stores))
    assert index.prediction.tolist() == [*prediction_ids(1, 0, 3)[[0, 2]].tolist(), int(prediction_ids(1, 1, 1)[0])]
    assert index.image_id.tolist() == [1, 2, 3]
    assert index.category.tolist() == [1, 1, 7]
    assert index.area.tolist() == [100, 16, 16]
    assert index.box.tolist()[0] == list(BIG)
    assert not index.duplicate_of.any()
    rle = PredictionShard.open(stores[1]).rles()[0]
    assert index.mask_key[2].tobytes() == mask_key(3, 7, (20, 20), rle["counts"])
    attributes = read_index_attributes(run.folder / "iter_1/index.zarr")
    assert attributes["model_sha256"] == "f" * 64
    assert attributes["duplicates"] == 0


def first_iteration(run):
    """Three predictions on image 1: accepted, rejected, undecided; and one accepted on image 2."""
    rows = [(1, 1, 0.9, BIG), (1, 7, 0.8, SMALL), (1, 1, 0.7, (0, 12, 5, 18)), (2, 1, 0.9, BIG)]
    store = run.store(1, 0, rows, [1, 2])
    run.index(1, [store])
    run.verdicts(1, prediction_ids(1, 0, 4), [1, -1, 0, 1], ["cluster", "answered", "", "answered"], [5, 3, -1, -1])
    return store


def test_repeated_masks_inherit_their_verdict(run):
    earlier = first_iteration(run)
    rows = [
        (1, 1, 0.95, SHIFTED),  # IoU 0.9 with the accepted one
        (1, 7, 0.9, SMALL),  # the rejected one again
        (1, 1, 0.85, (0, 12, 5, 18)),  # the undecided one again: asked again
        (1, 7, 0.8, BIG),  # of another category
        (2, 1, 0.9, (0, 0, 10, 7)),  # IoU 0.7
    ]
    index = read_index(run.index(2, [run.store(2, 0, rows, [1, 2])], [[earlier]]))
    first = prediction_ids(1, 0, 4)
    assert index.duplicate_of.tolist() == [first[0], first[1], 0, 0, 0]
    assert index.inherited.tolist() == [1, -1, 0, 0, 0]


def test_a_mended_mask_is_compared_with_as_it_was_drawn(run):
    earlier = first_iteration(run)
    name = int(prediction_ids(1, 0, 4)[0])
    drawn = masks.encode(np.pad(np.ones((18, 10), np.bool_), ((0, 2), (0, 10))))
    kept = [{"prediction": name, "mask_key": bytes(32), "segmentation": drawn}]
    edited = run.folder / "iter_1" / "edited.json"
    write_edited(edited, kept, [], 0.0)
    rows = [
        (1, 1, 0.95, BIG),  # as it was predicted
        (1, 1, 0.9, (0, 0, 10, 17)),  # as it was drawn, nearly
        (1, 1, 0.8, (0, 0, 10, 14)),  # like neither of them
    ]
    index = read_index(run.index(2, [run.store(2, 0, rows, [1])], [[earlier]], earlier_edited=[edited]))
    assert index.duplicate_of.tolist() == [name, name, 0]
    assert index.inherited.tolist() == [-1, 1, 0]


def test_an_iou_of_exactly_the_threshold_is_a_duplicate(run):
    earlier = first_iteration(run)
    index = read_index(run.index(2, [run.store(2, 0, [(1, 1, 0.9, (0, 0, 10, 8))], [1])], [[earlier]]))
    assert index.duplicate_of[0] == prediction_ids(1, 0, 1)[0]


def test_duplicates_lead_to_the_first_mask_and_never_to_a_duplicate(run):
    one = first_iteration(run)
    two = run.store(2, 0, [(1, 1, 0.95, SHIFTED)], [1])
    run.index(2, [two], [[one]])
    run.verdicts(2, prediction_ids(2, 0, 1), [1], ["duplicate"], [-1])
    # IoU 1 with the duplicate of iteration 2, 0.9 with what that repeats.
    index = read_index(run.index(3, [run.store(3, 0, [(1, 1, 0.9, SHIFTED)], [1])], [[one], [two]]))
    assert index.duplicate_of.tolist() == [prediction_ids(1, 0, 1)[0]]


def test_the_best_of_several_matches_counts(run):
    one = first_iteration(run)
    two = run.store(2, 0, [(1, 1, 0.95, (0, 0, 10, 8))], [1])
    run.index(2, [two], [[one]], duplicates_iou=0.95)
    run.verdicts(2, prediction_ids(2, 0, 1), [-1], ["answered"], [-1])
    index = read_index(run.index(3, [run.store(3, 0, [(1, 1, 0.9, (0, 0, 10, 8))], [1])], [[one], [two]]))
    assert index.duplicate_of.tolist() == [prediction_ids(2, 0, 1)[0]]
    assert index.inherited.tolist() == [-1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 1.0))
def test_duplicates_agree_with_comparing_all_pairs(seed, least):
    random = np.random.default_rng(seed)

    def some(count):
        drawn = []
        for _ in range(count):
            mask = np.zeros((8, 8), np.bool_)
            x, y, w, h = random.integers(0, 4, 2).tolist() + random.integers(1, 5, 2).tolist()
            mask[y : y + h, x : x + w] = True
            drawn.append((int(random.integers(2)), int(random.integers(2)), mask))
        return drawn

    old, new = some(12), some(9)
    before = _EarlierMasks()
    for number, (image, kind, mask) in enumerate(old, start=1):
        before._found[image, kind].append((number, 1 if number % 2 else -1, masks.encode(mask)))
    found, verdict = _duplicates(
        np.array([image for image, _, _ in new]),
        np.array([kind for _, kind, _ in new], np.int32),
        [masks.encode(mask) for _, _, mask in new],
        before,
        least,
        "here",
    )
    for row, (image, kind, mask) in enumerate(new):
        ious = [
            np.float32((mask & other).sum() / (mask | other).sum()) if (image, kind) == (i, k) else np.float32(-1)
            for i, k, other in old
        ]
        best = int(np.argmax(ious))
        expected = best + 1 if ious[best] >= np.float32(least) else 0
        assert found[row] == expected
        assert verdict[row] == (0 if not expected else 1 if expected % 2 else -1)


def test_copies_of_one_mask_lead_to_the_first_without_a_verdict(run):
    earlier = first_iteration(run)
    rows = [
        (1, 1, 0.95, (3, 12, 9, 18)),
        (1, 1, 0.9, (3, 12, 9, 18)),  # the same mask again
        (1, 7, 0.9, (3, 12, 9, 18)),  # of another category
        (1, 1, 0.7, (3, 12, 9, 18)),
        (1, 1, 0.7, BIG),
        (1, 1, 0.6, BIG),  # a copy, too, but judged in an earlier iteration
        (2, 1, 0.8, (3, 12, 9, 18)),  # on another image
    ]
    output = run.index(2, [run.store(2, 0, rows, [1, 2])], [[earlier]])
    index, own, accepted = read_index(output), prediction_ids(2, 0, 7), prediction_ids(1, 0, 1)[0]
    assert index.duplicate_of.tolist() == [0, own[0], 0, own[0], accepted, accepted, 0]
    assert index.inherited.tolist() == [0, 0, 0, 0, 1, 1, 0]
    assert read_index_attributes(output)["copies"] == 2


def test_an_iteration_without_predictions(run):
    index = read_index(run.index(1, [run.store(1, 0, [], [1]), run.store(1, 1, [], [])]))
    assert len(index) == 0
    assert index.mask_key.shape == (0, 32)
    assert index.box.shape == (0, 4)


def test_predicted_iou_comes_along(run):
    index = read_index(run.index(1, [run.store(1, 0, [(1, 1, 0.9, BIG)], [1], has_predicted_iou=True)]))
    assert index.predicted_iou is not None
    assert index.predicted_iou.tolist() == [0.5]


def test_stores_in_the_wrong_place_are_named(run):
    stores = [run.store(1, 0, [], [1]), run.store(1, 1, [], [2])]
    with pytest.raises(SegloopError, match=r"1\.zarr says it is shard 1 of iteration 1, not shard 0"):
        run.index(1, stores[::-1])
    with pytest.raises(SegloopError, match="not shard 0 of iteration 2"):
        run.index(2, stores)
    with pytest.raises(SegloopError, match=r"another model"):
        run.index(1, [stores[0], run.store(1, 1, [], [2], model_sha256="0" * 64)])
    with pytest.raises(SegloopError, match=r"gone\.zarr"):
        run.index(1, [run.folder / "gone.zarr"])


def test_some_shards_with_predicted_iou_are_refused(run):
    stores = [run.store(1, 0, [(1, 1, 0.9, BIG)], [1]), run.store(1, 1, [], [2], has_predicted_iou=True)]
    with pytest.raises(SegloopError, match="predicted IoUs"):
        run.index(1, stores)
