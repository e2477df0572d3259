import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.data import mask_batches, masks
from segloop.data.mask_batches import check_batch
from segloop.data.masks import MaskError
from segloop.randomness import generator


def drawn(count: int, seed: int) -> tuple[list[bytes], list[list[int]]]:
    numbers = generator("masks", seed)
    found = []
    for _ in range(count):
        height, width = numbers.integers(1, 30, 2)
        found.append(masks.encode(numbers.random((height, width)) < numbers.choice([0, 0.03, 0.1, 0.5, 0.9, 1])))
    return [one["counts"] for one in found], [one["size"] for one in found]


def one_by_one(counts: list[bytes], sizes: list[list[int]]) -> tuple[list[int], list[list[float]], set[int]]:
    areas, boxes, bad = [], [], set()
    for place, (one, size) in enumerate(zip(counts, sizes, strict=True)):
        try:
            rle = masks.check({"size": size, "counts": one})
        except MaskError:
            bad.add(place)
            areas.append(0)
            boxes.append([0.0] * 4)
        else:
            areas.append(int(masks.area([rle])[0]))
            boxes.append(masks.boxes([rle])[0].tolist())
    return areas, boxes, bad


@pytest.mark.parametrize("step", [1, 7, 256])
def test_a_batch_says_what_each_mask_by_itself_says(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_batches, "_STEP", step)
    counts, sizes = drawn(400, seed=1)
    areas, boxes, bad = one_by_one(counts, sizes)
    found = check_batch(counts, sizes)
    assert (found.area.tolist(), found.box.tolist(), set(found.problems)) == (areas, boxes, bad)
    assert bad == set()


@settings(max_examples=60)
@given(st.integers(0, 1 << 30), st.data())
def test_damaged_masks_are_found_and_leave_their_neighbours_alone(seed: int, data: st.DataObject) -> None:
    counts, sizes = drawn(30, seed)
    for place in data.draw(st.lists(st.integers(0, 29), max_size=12)):
        raw = bytearray(counts[place])
        where = data.draw(st.integers(0, len(raw)))
        raw[where : where + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=12))
        counts[place] = bytes(raw)
    areas, boxes, bad = one_by_one(counts, sizes)
    found = check_batch(counts, sizes)
    assert set(found.problems) == bad
    assert found.area.tolist() == areas
    assert found.box.tolist() == boxes


@pytest.mark.parametrize("size", [[0, 4], [3, -1], [1 << 62, 4], [1 << 20, 1 << 20]])
def test_sizes_without_sense_are_named(size: list[int]) -> None:
    found = check_batch([b"<", b"<"], [size, [3, 4]])
    assert list(found.problems) == [0]
    assert found.problems[0].startswith(f"has size {size[0]} x {size[1]}")


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (b"", "has runs that sum to 0, its size is 3 x 4 = 12 pixels"),
        (b"<<", "has runs that sum to 24, its size is 3 x 4 = 12 pixels"),
        (b"\xff", "has counts with characters outside the RLE alphabet"),
        (b"<P", "has counts that end in the middle of a number"),
        (b"PPPPPPPP0<", "has a number of more than seven groups in its counts"),
        (b"O1<", "has a negative run"),
    ],
)
def test_reasons_are_those_of_the_check(counts: bytes, reason: str) -> None:
    assert check_batch([b"<", counts, b"<"], [[3, 4]] * 3).problems == {1: reason}
    with pytest.raises(MaskError, match=reason.split(" of ")[0]):
        masks.check({"size": [3, 4], "counts": counts})


def test_no_masks_and_sizes_that_do_not_belong() -> None:
    assert check_batch([], np.zeros((0, 2))).area.shape == (0,)
    with pytest.raises(ValueError, match="1 masks have 2 sizes"):
        check_batch([b"<"], [[3, 4], [3, 4]])
