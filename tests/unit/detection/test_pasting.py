import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloop.data import masks
from segloop.detection.pasting import encode_window, paste_mask


@given(st.data())
def test_a_window_encodes_like_the_whole_image(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    bits = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    window = np.array(bits).reshape(rows, columns)
    whole = np.zeros((height, width), dtype=bool)
    whole[top : top + rows, left : left + columns] = window
    encoded = encode_window(window, top, left, height, width)
    if not window.any():
        assert encoded is None
    else:
        assert encoded == masks.encode(whole)


def test_a_full_square_fills_exactly_its_box() -> None:
    rle = paste_mask(np.ones((28, 28), np.float32), np.array([3, 4, 9, 6], np.float32), 10, 12)
    expected = np.zeros((10, 12), dtype=bool)
    expected[4:6, 3:9] = True
    assert rle is not None
    assert np.array_equal(masks.decode(rle), expected)


def test_halves_fall_on_the_right_pixels() -> None:
    probability = np.zeros((4, 4), np.float32)
    probability[:, :2] = 1.0
    rle = paste_mask(probability, np.array([2, 0, 10, 8], np.float32), 8, 12)
    assert rle is not None
    assert np.array_equal(np.flatnonzero(masks.decode(rle).any(axis=0)), [2, 3, 4, 5])


def test_what_lies_outside_the_image_is_cut_off() -> None:
    rle = paste_mask(np.ones((8, 8), np.float32), np.array([-4, -4, 4, 4], np.float32), 6, 6)
    assert rle is not None
    assert masks.decode(rle).sum() == 16


@pytest.mark.parametrize("box", [[20, 20, 30, 30], [3, 3, 3, 3], [-9, 0, -2, 4]])
def test_no_pixel_no_mask(box: list[float]) -> None:
    assert paste_mask(np.ones((8, 8), np.float32), np.array(box, np.float32), 10, 10) is None


def test_no_probability_no_mask() -> None:
    assert paste_mask(np.full((8, 8), 0.4, np.float32), np.array([0, 0, 5, 5], np.float32), 10, 10) is None


def test_a_disc_survives_the_way_through_the_square() -> None:
    rows, columns = np.mgrid[:28, :28] + 0.5
    disc = ((rows - 14) ** 2 + (columns - 14) ** 2 <= 14**2).astype(np.float32)
    rle = paste_mask(disc, np.array([5.5, 5.5, 45.5, 45.5], np.float32), 60, 60)
    rows, columns = np.mgrid[:60, :60] + 0.5
    truth = (rows - 25.5) ** 2 + (columns - 25.5) ** 2 <= 20**2
    assert rle is not None
    pasted = masks.decode(rle)
    assert (pasted & truth).sum() / (pasted | truth).sum() > 0.95
