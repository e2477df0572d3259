import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloop.config import DetectorConfig, TrainingConfig
from segloop.data import masks
from segloop.data.skipped import SkipReport
from segloop.detection.dataset import (
    MIN_PIXELS,
    Record,
    TrainingSet,
    View,
    batch_indices,
    draw_view,
    make_batch,
    make_sample,
    read_ahead,
    shared_indices,
    tight_boxes,
)
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.randomness import generator

Annotate = Callable[..., dict[str, Any]]


def record(mask: np.ndarray, ignored: list[list[float]] | None = None) -> Record:
    box = tight_boxes(mask[None])
    regions = np.array(ignored or [], dtype=np.float32).reshape(-1, 4)
    return Record("", *mask.shape, [masks.encode(mask)], np.array([1]), box, regions, np.array([False]))


def picture(mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


def block() -> np.ndarray:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 5:25] = True
    mask[10:14, 25:29] = True
    return mask


WHOLE = View((40, 60), 0, 0, 40, 60, False, False)


def test_the_whole_image_stays_as_it_is() -> None:
    mask = block()
    sample = make_sample(picture(mask), record(mask, [[1, 2, 3, 4]]), WHOLE)
    assert np.array_equal(sample.masks[0], mask)
    assert np.array_equal(sample.image, picture(mask))
    assert sample.boxes.tolist() == [[5, 10, 29, 30]]
    assert sample.ignored.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("vertical_flip", [False, True])
def test_image_mask_and_boxes_move_together(flip: bool, vertical_flip: bool) -> None:
    mask = block()
    box = tight_boxes(mask[None])[0].tolist()
    view = View((60, 90), 12, 3, 40, 50, flip, vertical_flip)
    sample = make_sample(picture(mask), record(mask, [box]), view)
    assert sample.image.shape == (40, 50, 3)
    # Away from the blurred edge the picture shows the mask.
    pixels = sample.image[..., 0]
    assert np.array_equal(sample.masks[0][pixels > 200], np.ones((pixels > 200).sum(), bool))
    assert not sample.masks[0][pixels < 50].any()
    assert (pixels > 200).sum() > 300
    assert np.array_equal(sample.boxes, tight_boxes(sample.masks))
    # The region around the instance follows it, to a pixel.
    assert np.abs(sample.ignored[0] - sample.boxes[0]).max() <= 1


def test_a_sliver_is_ignored_and_what_is_outside_is_gone() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[0 : MIN_PIXELS - 1, 0:10] = True
    sliver = make_sample(picture(mask), record(mask), View((40, 60), 0, 9, 40, 40, False, False))
    assert len(sliver.labels) == 0
    assert sliver.ignored.tolist() == [[0, 0, 1, MIN_PIXELS - 1]]
    gone = make_sample(picture(mask), record(mask, [[0, 0, 5, 5]]), View((40, 60), 20, 20, 20, 20, False, False))
    assert len(gone.labels) == len(gone.ignored) == 0
    assert gone.masks.shape == (0, 20, 20)
    assert gone.boxes.shape == (0, 4)


def test_a_view_lies_inside_the_scaled_image() -> None:
    detector = DetectorConfig(min_size=48, max_size=60)
    training = TrainingConfig(crop=32, scale_jitter=(0.5, 2.0), flip=1.0, vertical_flip=0.0)
    sizes = set()
    for number in range(50):
        view = draw_view(generator("test", number), 96, 240, detector, training)
        assert 0 <= view.top <= view.scaled[0] - view.height
        assert 0 <= view.left <= view.scaled[1] - view.width
        assert view.width == 32 if view.scaled[1] >= 32 else view.width == view.scaled[1]
        assert 30 <= view.scaled[1] <= 120
        assert view.flip
        assert not view.vertical_flip
        sizes.add(view.scaled)
    assert len(sizes) > 20


def test_each_epoch_shows_each_image_once() -> None:
    shown = [index for step in range(7) for index in batch_indices(7, 3, step, "key")]
    epochs = [sorted(shown[start : start + 7]) for start in (0, 7, 14)]
    assert epochs == [list(range(7))] * 3
    assert shown[:7] != shown[7:14]
    assert batch_indices(7, 3, 4, "key") == shown[12:15]
    assert [index for step in range(7) for index in batch_indices(7, 3, step, "other")] != shown


def test_a_step_is_a_function_of_its_key(
    training_set: Path, tmp_path: Path, detector: DetectorConfig, training: TrainingConfig
) -> None:
    data = TrainingSet(training_set, SkipReport(tmp_path / "skipped.json", 0.0), 1)
    first, again = (make_batch(data, 3, detector, training, 0, 0) for _ in range(2))
    other = make_batch(data, 3, detector, training, 1, 0)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert any(a.image.shape != b.image.shape or (a.image != b.image).any() for a, b in zip(first, other, strict=True))


def test_labels_follow_the_order_of_the_categories(training_set: Path, tmp_path: Path) -> None:
    data = TrainingSet(training_set, SkipReport(tmp_path / "skipped.json", 0.0), 1)
    assert [record.labels.tolist() for record in data.records] == [[1, 2]] * 4


def test_crowds_are_ignored_regions(dataset: dict[str, Any], tmp_path: Path, annotate: Annotate) -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[2:5, 3:9] = True
    dataset["annotations"].append(annotate(99, 2, 3, mask, crowd=1))
    write_json(tmp_path / "train.json", dataset)
    data = TrainingSet(tmp_path / "train.json", SkipReport(tmp_path / "skipped.json", 0.0), 1)
    assert [len(record.labels) for record in data.records] == [2, 2, 2, 2]
    assert data.records[1].ignored.tolist() == [[3, 2, 9, 5]]


def test_an_unreadable_image_is_named_and_left_out(training_set: Path, dataset: dict[str, Any], tmp_path: Path) -> None:
    broken = Path(dataset["images"][1]["file_name"])
    broken.write_bytes(broken.read_bytes()[:100])
    skipped = tmp_path / "skipped.json"
    data = TrainingSet(training_set, SkipReport(skipped, 0.5), 2)
    assert len(data) == 3
    assert read_json(skipped)["used"] == 3
    assert str(broken) in str(read_json(skipped)["skipped"])
    with pytest.raises(SegloopError, match=r"2\.png"):
        TrainingSet(training_set, SkipReport(skipped, 0.1), 1)


def test_masks_of_another_size_than_their_image_are_left_out(dataset: dict[str, Any], tmp_path: Path) -> None:
    dataset["images"][2]["width"] = 65
    write_json(tmp_path / "train.json", dataset)
    data = TrainingSet(tmp_path / "train.json", SkipReport(tmp_path / "skipped.json", 0.5), 1)
    assert len(data) == 3
    assert "64 x 64" in str(read_json(tmp_path / "skipped.json"))


@pytest.mark.parametrize("missing", ["annotations", "categories"])
def test_nothing_to_learn_is_refused(dataset: dict[str, Any], tmp_path: Path, missing: str) -> None:
    dataset["annotations"] = []
    dataset[missing] = []
    write_json(tmp_path / "train.json", dataset)
    with pytest.raises(SegloopError, match=r"train\.json"):
        TrainingSet(tmp_path / "train.json", SkipReport(tmp_path / "skipped.json", 1.0), 1)


def test_images_beyond_the_cache_are_read_again(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = TrainingSet(training_set, SkipReport(tmp_path / "skipped.json", 0.0), 1)
    monkeypatch.setattr("segloop.detection.dataset.CACHE_BYTES", 64 * 64 * 3)
    uncached = TrainingSet(training_set, SkipReport(tmp_path / "skipped.json", 0.0), 1)
    assert len(uncached._cache) == 1
    assert all(np.array_equal(cached.image(index), uncached.image(index)) for index in range(4))


@pytest.mark.parametrize("threads", [1, 3])
def test_reading_ahead_keeps_the_order(threads: int) -> None:
    assert list(read_ahead(lambda item: item * item, range(20), threads)) == [item * item for item in range(20)]
    assert list(read_ahead(str, [], threads)) == []


def test_reading_ahead_passes_errors_on() -> None:
    results = read_ahead(lambda item: 1 // item, [1, 0], 1)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


@given(
    sizes=st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any),
    share=st.floats(0, 1),
    batch_size=st.integers(1, 5),
)
def test_a_share_of_the_images_is_from_the_seed_set(sizes: tuple[int, int], share: float, batch_size: int) -> None:
    parts = (list(range(sizes[0])), list(range(100, 100 + sizes[1])))
    steps = 60 // batch_size
    shown = [index for step in range(steps) for index in shared_indices(parts, share, batch_size, step, "key")]
    assert shown == [shared_indices(parts, share, 1, step, "key")[0] for step in range(steps * batch_size)]
    seed = [index for index in shown if index < 100]
    pool = [index for index in shown if index >= 100]
    if all(sizes):
        assert len(seed) == math.floor(len(shown) * share)
    else:
        assert len(seed if sizes[0] else pool) == len(shown)
    for part, found in zip(parts, (seed, pool), strict=True):
        # Every image of a part once before any comes again.
        whole = len(found) // max(len(part), 1)
        assert all(sorted(found[n * len(part) : (n + 1) * len(part)]) == part for n in range(whole))


@pytest.fixture
def half_collected(dataset: dict[str, Any], tmp_path: Path) -> TrainingSet:
    """Return a set whose last two images are from the pool, with their bright squares collected."""
    for image in dataset["images"]:
        image["source"] = "pool" if image["id"] > 2 else "seed"
    for one in dataset["annotations"]:
        one["source"] = "collected" if one["image_id"] > 2 and one["category_id"] == 3 else "seed"
    write_json(tmp_path / "merged.json", dataset)
    return TrainingSet(tmp_path / "merged.json", SkipReport(tmp_path / "skipped.json", 0.0), 1)


def test_the_seed_set_is_told_from_the_pool(half_collected: TrainingSet) -> None:
    assert half_collected.parts == ([0, 1], [2, 3])
    assert [record.collected.tolist() for record in half_collected.records] == [[False, False]] * 2 + [
        [True, False]
    ] * 2


def test_a_seed_set_by_itself_is_no_pool(training_set: Path, tmp_path: Path) -> None:
    alone = TrainingSet(training_set, SkipReport(tmp_path / "skipped.json", 0.0), 1)
    assert alone.parts == ([0, 1, 2, 3], [])
    assert not any(record.collected.any() for record in alone.records)


@pytest.mark.parametrize(("share", "from_pool"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)])
def test_batches_hold_their_share(
    half_collected: TrainingSet, detector: DetectorConfig, training: TrainingConfig, share: float, from_pool: float
) -> None:
    changed = training.model_copy(update={"seed_share": share, "scale_jitter": (1.0, 1.0), "flip": 0.0})
    pictures = [half_collected.image(index).tobytes() for index in range(4)]
    samples = [one for step in range(8) for one in make_batch(half_collected, step, detector, changed, 0, 0)]
    pool = [pictures.index(one.image.tobytes()) >= 2 for one in samples]
    assert np.mean(pool) == from_pool


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_collected_masks_count_by_their_weight(
    half_collected: TrainingSet, detector: DetectorConfig, training: TrainingConfig, weight: float
) -> None:
    steps, key = 150, (0, 0)
    changed = training.model_copy(update={"collected_weight": weight, "scale_jitter": (1.0, 1.0), "flip": 0.0})
    counted, left_out = 0, 0
    for step in range(steps):
        whole = make_batch(
            half_collected, step, detector, training.model_copy(update={"flip": 0.0, "scale_jitter": (1.0, 1.0)}), *key
        )
        for sample, full in zip(make_batch(half_collected, step, detector, changed, *key), whole, strict=True):
            # The view is the same; what is no example is no background either.
            assert np.array_equal(sample.image, full.image)
            assert len(sample.labels) + len(sample.ignored) == 2
            assert 2 in sample.labels
            index = [half_collected.image(one).tobytes() for one in range(4)].index(full.image.tobytes())
            if index < 2:
                assert len(sample.labels) == 2
            else:
                counted += int(1 in sample.labels)
                left_out += int(1 not in sample.labels)
    assert counted / (counted + left_out) == pytest.approx(weight, abs=0.1)
