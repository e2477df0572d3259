import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from segloop.data import masks
from segloop.data.statistics import Statistics, holes_of, text_of

Mask = np.ndarray[Any, np.dtype[np.bool_]]
SIDE = 20
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 9, "name": "unused"}]


def one(category: int, mask: Mask, **more: Any) -> dict[str, Any]:
    segmentation = masks.to_json(masks.encode(mask))
    return {"category_id": category, "segmentation": segmentation, "area": int(mask.sum()), "iscrowd": 0} | more


def square(side: int, hole: int = 0) -> Mask:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[1 : 1 + side, 1 : 1 + side] = True
    mask[3 : 3 + hole, 3 : 3 + hole] = False
    return mask


def image(number: int) -> dict[str, Any]:
    return {"id": number, "width": SIDE, "height": SIDE}


@pytest.fixture
def gathered() -> Statistics:
    statistics = Statistics()
    statistics.add(image(1), [one(1, square(10)), one(1, square(10, hole=4)), one(2, square(4))])
    statistics.add(image(2), [])
    statistics.add(image(3), [one(1, square(2)), one(2, square(18), iscrowd=1)])
    return statistics


def test_counts(gathered: Statistics) -> None:
    found = gathered.record(CATEGORIES)
    assert found["images"] == {"all": 3, "with_masks": 2}
    assert found["instances"] == {"masks": 4, "crowds": 1}
    assert found["categories"] == {"listed": 3, "used": 2}
    per_image = found["masks_per_image"]
    assert (per_image["mean"], per_image["median"], per_image["largest"]) == (pytest.approx(4 / 3), 1, 3)
    assert {name: count for name, count in per_image["histogram"].items() if count} == {"0": 1, "1": 1, "3-5": 1}
    assert found["sizes"] == {"small": 4, "medium": 0, "large": 0}
    assert found["per_category"][0] == {
        "id": 1,
        "name": "cat",
        "instances": 3,
        "images": 2,
        "median_area_share": pytest.approx(84 / 400),
        "with_holes": 1,
    }
    assert found["per_category"][2]["instances"] == 0
    json.dumps(found, allow_nan=False)


def test_shares_and_holes(gathered: Statistics) -> None:
    found = gathered.record(CATEGORIES)
    # Areas 100, 84, 16 and 4 of 400.
    assert found["area_share"]["50"] == pytest.approx(50 / 400)
    assert found["holes"]["masks"] == found["holes"]["holes"] == 1
    assert found["holes"]["share_of_masks"] == 0.25
    assert found["holes"]["share_of_filled_area"]["50"] == pytest.approx(16 / 100)


@pytest.mark.parametrize(("side", "size"), [(31, "small"), (32, "medium"), (95, "medium"), (96, "large")])
def test_sizes_have_cocos_limits(side: int, size: str) -> None:
    statistics = Statistics(holes=False)
    mask = np.zeros((100, 100), bool)
    mask[:side, :side] = True
    statistics.add({"id": 1, "width": 100, "height": 100}, [one(1, mask)])
    assert [name for name, count in statistics.record(CATEGORIES)["sizes"].items() if count] == [size]


def test_without_drawing_nothing_is_known_of_holes_nor_of_areas_that_are_not_stated() -> None:
    statistics = Statistics(holes=False)
    polygon = {"category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]], "iscrowd": 0}
    statistics.add(image(1), [polygon | {"area": None}, polygon | {"area": 40.0}])
    found = statistics.record(CATEGORIES)
    assert found["holes"] is None and found["per_category"][0]["with_holes"] is None
    assert found["instances"]["masks"] == 2 and found["area_share"]["50"] == pytest.approx(0.1)


def test_what_was_collected_is_counted_by_iteration() -> None:
    statistics = Statistics()
    provenances = [{"provenance": {"iteration": number}} for number in (1, 1, 2)]
    statistics.add(image(1), [one(1, square(5), **more) for more in provenances])
    assert statistics.record(CATEGORIES)["collected"] == {"1": 2, "2": 1}
    assert "collected: 2 in iteration 1, 1 in iteration 2" in text_of("run", statistics.record(CATEGORIES))


def test_the_text(gathered: Statistics) -> None:
    lines = text_of("my set", gathered.record(CATEGORIES)).splitlines()
    assert lines[0] == "my set: 3 images, 2 of them with masks"
    assert lines[1] == "masks: 4, and 1 crowds; categories: 2 of 3 used"
    assert "masks with holes: 1 (25.00%), 1 holes" in lines
    assert lines[-3:] == [
        "id  category  masks  images  median share  with holes",
        " 1  cat           3       2        21.00%           1",
        " 2  dog           1       1         4.00%           0",
    ]
    shorter = text_of("my set", gathered.record(CATEGORIES), most=1)
    assert shorter.endswith("and 1 more categories; --all lists them\n")


def test_an_empty_set() -> None:
    statistics = Statistics()
    found = statistics.record(CATEGORIES)
    assert found["masks_per_image"]["mean"] is None and found["area_share"] is None
    assert text_of("empty", found).startswith("empty: 0 images, 0 of them with masks\n")


@settings(max_examples=300)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(np.bool_, shape)))
def test_holes_are_what_filling_fills(mask: Mask) -> None:
    count, inside = holes_of(mask)
    filled = ndimage.binary_fill_holes(mask, np.ones((3, 3))) & ~mask
    assert inside == filled.sum()
    # Regions of holes that touch at a corner are one.
    assert count == ndimage.label(filled, np.ones((3, 3)))[1]
