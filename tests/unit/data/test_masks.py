import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from segloop.data import masks
from segloop.data.masks import MaskError

shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
bitmaps = shapes.flatmap(lambda shape: arrays(np.bool_, shape))


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths by the definition, one pixel at a time."""
    runs, colour = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != colour:
            runs.append(0)
            colour = not colour
        runs[-1] += 1
    return runs


def compress(runs: list[int]) -> str:
    """Compressed counts by the definition in formats.md."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            group, value = value & 0x1F, value >> 5
            more = not (value == -1 if group & 0x10 else value == 0)
            text += chr((group | (0x20 if more else 0)) + 48)
            if not more:
                break
    return text


@given(bitmaps)
def test_a_mask_comes_back(mask: np.ndarray) -> None:
    rle = masks.encode(mask)
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(masks.decode(rle), mask)
    assert masks.decode(rle).dtype == bool


@given(bitmaps)
def test_each_kind_of_counts_gives_the_same_bytes(mask: np.ndarray) -> None:
    expected = masks.encode(mask)
    runs = runs_of(mask)
    size = list(mask.shape)
    text = compress(runs)
    for counts in (runs, text, text.encode(), [*runs, 0], compress([*runs, 0, 0])):
        assert masks.check({"size": size, "counts": counts}, tuple(mask.shape)) == expected


@given(bitmaps, st.data())
def test_runs_that_empty_ones_divide_are_joined(mask: np.ndarray, data: st.DataObject) -> None:
    runs = runs_of(mask)
    place = data.draw(st.integers(0, len(runs) - 1))
    part = data.draw(st.integers(0, runs[place]))
    divided = [*runs[:place], part, 0, runs[place] - part, *runs[place + 1 :]]
    assert masks.check({"size": list(mask.shape), "counts": divided}) == masks.encode(mask)
    assert masks.check({"size": list(mask.shape), "counts": compress(divided)}) == masks.encode(mask)


@settings(max_examples=300)
@given(st.binary(max_size=12), shapes)
@example(b"", (1, 1))
@example(b"P" * 12, (3, 4))
def test_no_bytes_get_past_the_check_that_do_not_add_up(counts: bytes, size: tuple[int, int]) -> None:
    try:
        rle = masks.check({"size": list(size), "counts": counts})
    except MaskError:
        return
    assert masks.decode(rle).shape == size
    assert masks.encode(masks.decode(rle)) == rle


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([1, 2], "needs size and counts"),
        ({"counts": [12]}, "needs size and counts"),
        ({"size": [3, 4], "counts": [11]}, "sum to 11"),
        ({"size": [3, 4], "counts": [13]}, "sum to 13"),
        ({"size": [3, 4], "counts": []}, "sum to 0"),
        ({"size": [3, 4], "counts": ""}, "sum to 0"),
        ({"size": [3, 4], "counts": [-1, 13]}, "negative run"),
        ({"size": [3, 4], "counts": [5.5, 6.5]}, "whole numbers"),
        ({"size": [3, 4], "counts": [True, 11]}, "whole numbers"),
        ({"size": [3, 4], "counts": [1 << 80]}, "whole numbers"),
        ({"size": [3, 4], "counts": "é"}, "outside ASCII"),
        ({"size": [3, 4], "counts": " "}, "alphabet"),
        ({"size": [3, 4], "counts": "P"}, "middle of a number"),
        ({"size": [3, 4], "counts": "PPPPPPPP0"}, "seven groups"),
        ({"size": [3, 4], "counts": 12}, "counts of type int"),
        ({"size": [3], "counts": [12]}, "size"),
        ({"size": [0, 4], "counts": []}, "positive whole numbers"),
        ({"size": [3.0, 4], "counts": [12]}, "positive whole numbers"),
        ({"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, "more than"),
        ({"size": "34", "counts": [12]}, "size"),
    ],
)
def test_a_bad_mask_is_refused_with_its_reason(segmentation: Any, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        masks.check(segmentation)


def test_a_size_that_is_not_the_images_is_refused_and_swapping_is_named() -> None:
    rle = {"size": [4, 3], "counts": [12]}
    with pytest.raises(MaskError, match="swapped"):
        masks.check(rle, (3, 4))
    with pytest.raises(MaskError, match=r"4 x 3, the image has 5 x 5$"):
        masks.check(rle, (5, 5))


def test_examples_of_the_format() -> None:
    assert masks.encode(np.zeros((3, 4), bool))["counts"] == b"<"
    assert masks.encode(np.ones((3, 4), bool))["counts"] == b"0<"
    assert masks.check({"size": [3, 4], "counts": [0, 12]})["counts"] == b"0<"


@given(st.lists(arrays(np.bool_, (7, 9)), max_size=4), st.lists(arrays(np.bool_, (7, 9)), max_size=4))
def test_area_boxes_iou_and_union_by_their_definitions(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    first, second = [masks.encode(mask) for mask in a], [masks.encode(mask) for mask in b]
    np.testing.assert_array_equal(masks.area(first), [mask.sum() for mask in a])
    assert masks.area(first).dtype == np.int64
    boxes = masks.boxes(first)
    assert boxes.shape == (len(a), 4)
    for mask, (x, y, width, height) in zip(a, boxes, strict=True):
        if mask.any():
            rows, columns = np.nonzero(mask)
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
    found = masks.iou(first, second)
    assert found.shape == (len(a), len(b))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            if (one | other).any():
                assert found[i, j] == pytest.approx((one & other).sum() / (one | other).sum())
    if a:
        np.testing.assert_array_equal(masks.decode(masks.union(first)), np.logical_or.reduce(a))


def test_a_crowd_divides_by_the_predictions_area() -> None:
    small, large = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    small[0, :2] = True
    pair = [masks.encode(small)], [masks.encode(large)]
    assert masks.iou(*pair)[0, 0] == pytest.approx(2 / 16)
    assert masks.iou(*pair, crowd=[True])[0, 0] == 1.0


def test_the_union_of_nothing_or_of_different_sizes_is_an_error() -> None:
    with pytest.raises(MaskError, match="no masks"):
        masks.union([])
    with pytest.raises(MaskError, match="different sizes"):
        masks.union([masks.encode(np.ones((2, 3), bool)), masks.encode(np.ones((3, 2), bool))])


def test_an_outline_of_absurd_length_is_refused() -> None:
    zigzag = [number for step in range(60_000) for number in (step % 2 * 100, 1)]
    with pytest.raises(MaskError, match="pixels long"):
        masks.from_polygons([zigzag], 100, 100)
    with pytest.raises(MaskError, match="positive whole numbers"):
        masks.from_polygons([[0, 0, 1, 0, 1, 1]], 0, 5)


@given(bitmaps)
def test_json_and_back(mask: np.ndarray) -> None:
    rle = masks.encode(mask)
    text = json.dumps(masks.to_json(rle))
    assert masks.from_json(json.loads(text)) == rle
    assert masks.check(json.loads(text)) == rle


def test_a_polygon_covers_its_pixels_and_parts_are_united() -> None:
    square = [1, 1, 4, 1, 4, 5, 1, 5]
    expected = np.zeros((8, 10), bool)
    expected[1:5, 1:4] = True
    np.testing.assert_array_equal(masks.decode(masks.from_polygons([square], 8, 10)), expected)
    other = [6.0, 0.0, 8.0, 0.0, 8.0, 8.0, 6.0, 8.0]
    expected[:, 6:8] = True
    np.testing.assert_array_equal(masks.decode(masks.from_polygons([square, other], 8, 10)), expected)


def test_a_polygon_that_leaves_the_image_ends_at_its_border() -> None:
    mask = masks.decode(masks.from_polygons([[-20, -20, 60, -20, 60, 60, -20, 60]], 8, 10))
    assert mask.all()
    assert not masks.decode(masks.from_polygons([[20, 20, 30, 20, 30, 30]], 8, 10)).any()


def test_a_polygon_that_crosses_itself_is_a_mask() -> None:
    rle = masks.from_polygons([[0, 0, 8, 8, 8, 0, 0, 8]], 8, 8)
    assert masks.check(masks.to_json(rle)) == rle


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([], "no polygon"),
        ("text", "no polygon"),
        ([[1, 2, 3, 4]], "fewer than three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "odd number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "coordinate nan"),
        ([[1, 2, 3, 4, 5, float("inf")]], "coordinate inf"),
        ([[1, 2, 3, 4, 5, 10**400]], "coordinate"),
        ([[1, 2, 3, 4, 5, 1e7]], "coordinate"),
        ([[1, 2, 3, 4, 5, "6"]], "coordinate '6'"),
        ([[1, 2, 3, 4, 5, None]], "coordinate None"),
        ([7], "fewer than three points"),
    ],
)
def test_a_bad_polygon_is_refused(polygons: Any, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        masks.from_polygons(polygons, 8, 8)


@given(st.integers(1, 3000), st.integers(1, 3000), st.lists(st.integers(1, 100_000), max_size=30))
def test_large_runs_are_compressed_like_pycocotools_does(height: int, width: int, runs: list[int]) -> None:
    left, kept = height * width, [0]
    for run in runs:
        kept.append(min(run, left))
        left -= kept[-1]
        if not left:
            break
    runs = [*kept, left] if left else kept
    reference = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]
    assert masks.check({"size": [height, width], "counts": reference})["counts"] == reference
    assert compress(runs).encode() == reference


def test_the_area_of_more_masks_than_pycocotools_counts() -> None:
    rles = [masks.encode(np.arange(900).reshape(30, 30) < number) for number in range(1, 800)]
    assert masks.area(rles).tolist() == list(range(1, 800))
