from typing import Any

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from segloop.data import masks, outlines

Mask = np.ndarray[Any, np.dtype[np.bool_]]
bitmaps = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(lambda shape: arrays(np.bool_, shape))


def by_opencv(ring: outlines.Ring, shape: tuple[int, ...]) -> Mask:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [ring.astype(np.int32)], 1)
    return canvas.astype(bool)


def by_coco(ring: outlines.Ring, shape: tuple[int, ...]) -> Mask:
    return masks.decode(masks.from_polygons([ring.ravel().tolist()], *shape))


@settings(max_examples=300)
@given(bitmaps)
def test_each_part_comes_back_with_its_holes_filled(mask: Mask) -> None:
    parts = outlines.parts_of(mask)
    labels, count = ndimage.label(mask)
    assert len(parts) == count
    found = set()
    for part in parts:
        drawn = by_opencv(part.outer, mask.shape)
        np.testing.assert_array_equal(drawn, by_coco(part.outer, mask.shape))
        np.testing.assert_array_equal(drawn, outlines.filled(part.outer, *mask.shape))
        x, y = part.outer[0]
        label = labels[int(y), int(x)]
        found.add(label)
        # A hole is what no path of sides and corners leads out of.
        np.testing.assert_array_equal(drawn, ndimage.binary_fill_holes(labels == label, np.ones((3, 3))))
        assert part.area == int((labels == label).sum())
    assert found == set(range(1, count + 1))


@settings(max_examples=300)
@given(bitmaps)
def test_corners_lie_in_pixels_of_the_mask(mask: Mask) -> None:
    for part in outlines.parts_of(mask):
        for ring in (part.outer, *part.holes):
            x, y = np.floor(ring).astype(int).T
            assert mask[y, x].all()
            assert len(ring) >= 4


@settings(max_examples=200)
@given(bitmaps)
def test_holes_are_as_many_as_there_are(mask: Mask) -> None:
    holes = sum(len(part.holes) for part in outlines.parts_of(mask))
    # The background is joined by corners too, where parts are joined by sides alone.
    _, regions = ndimage.label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3)))
    assert holes == regions - 1


def test_a_ring_with_bridges_keeps_hole_and_parts() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:14, 2:14] = True
    mask[5:9, 5:9] = False
    mask[10:12, 20:25] = True
    first, second = outlines.parts_of(mask)
    ring = outlines.joined([first.outer, *first.holes, second.outer])
    drawn = by_opencv(ring, mask.shape)
    assert not drawn[6:8, 6:8].any()
    extra = drawn & ~mask
    # The bridge over the gap from column 14 to 19 is all that is drawn besides.
    assert not (mask & ~drawn).any() and extra.sum() == 6 and extra[:, 14:20].sum() == 6


def test_an_empty_mask_has_no_part() -> None:
    assert outlines.parts_of(np.zeros((3, 4), bool)) == []
