import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segloop.reporting.drawing import (
    Window,
    brighten,
    crop_window,
    cut,
    dim,
    draw_mask,
    inner_edge,
    mask_box,
    outline,
    rgb,
)

masks = arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(masks)
def test_the_window_holds_the_whole_mask(mask: np.ndarray) -> None:
    window = crop_window(mask)
    assert cut(mask, window).sum() == mask.sum()


@given(masks)
def test_the_window_leaves_the_image_only_where_it_is_too_narrow(mask: np.ndarray) -> None:
    window = crop_window(mask)
    for start, length in ((window.top, mask.shape[0]), (window.left, mask.shape[1])):
        if window.side <= length:
            assert 0 <= start <= length - window.side
        else:
            assert start <= 0
            assert start + window.side >= length


def test_the_window_has_room_around_the_mask() -> None:
    mask = np.zeros((200, 200), bool)
    mask[80:120, 90:110] = True
    window = crop_window(mask, context=0.5)
    assert window == Window(top=60, left=60, side=80)


def test_a_tiny_mask_gets_the_smallest_window() -> None:
    mask = np.zeros((100, 100), bool)
    mask[50, 50] = True
    assert crop_window(mask, smallest=24).side == 24


def test_an_empty_mask_shows_the_whole_image() -> None:
    mask = np.zeros((30, 50), bool)
    assert mask_box(mask) == (0, 0, 30, 50)
    assert crop_window(mask).side == 50


@given(masks)
def test_the_edge_is_the_pixels_that_touch_the_outside(mask: np.ndarray) -> None:
    edge = inner_edge(mask)
    padded = np.pad(mask, 1)
    for y, x in np.argwhere(mask):
        around = (padded[y, x + 1], padded[y + 2, x + 1], padded[y + 1, x], padded[y + 1, x + 2])
        assert edge[y, x] == (not all(around))
    assert not (edge & ~mask).any()


def test_the_inside_keeps_its_pixels_and_the_background_is_dimmed() -> None:
    image = np.full((10, 10, 3), (200, 100, 50), np.uint8)
    mask = np.zeros((10, 10), bool)
    mask[3:7, 3:7] = True
    drawn = dim(image, mask)
    assert (drawn[mask] == (200, 100, 50)).all()
    assert drawn[~mask].max() < 100
    red, _, blue = drawn[0, 0].astype(int)
    assert red - blue < 0.45 * 150  # less colourful than dimming alone would make it


def test_the_edge_has_its_colour_and_is_one_pixel_wide() -> None:
    mask = np.zeros((12, 12), bool)
    mask[2:10, 2:10] = True
    drawn = outline(np.zeros((12, 12, 3), np.uint8), mask, "#F0E442")
    coloured = (drawn == rgb("#F0E442")).all(axis=2)
    assert coloured.sum() == 28
    assert not coloured[3:9, 3:9].any()


def test_a_picture_has_the_wished_size_and_does_not_change_its_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    before = image.copy()
    mask = np.zeros((70, 50), bool)
    mask[10:60, 5:45] = True
    for side in (16, 192):
        drawn = draw_mask(image, mask, side=side)
        assert (drawn.shape, drawn.dtype) == ((side, side, 3), np.uint8)
        assert (drawn == rgb("#F0E442")).all(axis=2).any()
    assert (image == before).all()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(4, 5\)"):
        draw_mask(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), bool))


def test_only_dark_pictures_are_brightened_and_their_hue_stays() -> None:
    dark = np.full((8, 8, 3), (40, 20, 10), np.uint8)
    assert (brighten(dark) == (120, 60, 30)).all()
    assert (brighten(np.full((8, 8, 3), 10, np.uint8)) == 40).all()  # at most four times
    daylight = np.full((8, 8, 3), (200, 90, 10), np.uint8)
    assert brighten(daylight) is daylight
    assert not brighten(np.zeros((8, 8, 3), np.uint8)).any()
