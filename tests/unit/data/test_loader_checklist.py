"""The checklist of loaders, line by line: what real files get wrong, and what becomes of it.

docs/formats.md has a table of these lines and tests. Formats without a real sample are built here, as each test says.
"""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segloop.data import masks
from segloop.data.categories import CategoryMap, read_category_map, read_category_table
from segloop.data.images import ImageError, image_size, open_image
from segloop.data.masks import MaskError
from segloop.data.places import read_places_list
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

Read = Callable[..., tuple[dict[str, Any], SkipReport]]
Said = Callable[[SkipReport], list[str]]

HOLED = np.zeros((6, 8), bool)
HOLED[1:5, 2:7] = True
HOLED[2:4, 3:5] = False
RLE = masks.to_json(masks.encode(HOLED))
POLYGON = [[2, 1, 5, 1, 5, 4, 2, 4]]


def coco(folder: Path, annotations: list[dict[str, Any]], **changes: Any) -> None:
    value = {
        "images": [{"id": 5, "file_name": "a.png", "width": 8, "height": 6}],
        "annotations": [{"id": n, "image_id": 5, "category_id": 1, **one} for n, one in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "train.json").write_text(json.dumps(value | changes))


# --- line 1: kinds of counts; swapped sizes; sums; empty, full, border-touching; missing last zero run ----------------


def test_line_1_counts_as_text_bytes_and_list_are_one_mask() -> None:
    packed = masks.encode(HOLED)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate(([0], HOLED.ravel(order="F"), [2])))), prepend=0).tolist()
    assert sum(runs) == 48
    for counts in (packed["counts"], packed["counts"].decode(), runs):
        assert masks.check({"size": [6, 8], "counts": counts}, (6, 8)) == packed


def test_line_1_a_swapped_size_is_named() -> None:
    with pytest.raises(MaskError, match="height and width are swapped"):
        masks.check(RLE | {"size": [8, 6]}, (6, 8))


@pytest.mark.parametrize("counts", [[10, 5], [10, 50], [], "00", "", [-2, 50]])
def test_line_1_runs_that_do_not_sum_up_never_reach_the_decoder(counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*values: Any) -> None:
        raise AssertionError("pycocotools was given unchecked runs")

    monkeypatch.setattr(masks.coco_mask, "frPyObjects", never)
    monkeypatch.setattr(masks.coco_mask, "decode", never)
    with pytest.raises(MaskError, match=r"sum to|negative"):
        masks.check({"size": [6, 8], "counts": counts})


def test_line_1_empty_full_and_border_touching_masks(tmp_path: Path, read_set: Read, said: Said) -> None:
    border = np.zeros((6, 8), bool)
    border[:, [0, -1]] = border[[0, -1]] = True
    kinds = [np.zeros((6, 8), bool), np.ones((6, 8), bool), border]
    coco(tmp_path, [{"segmentation": masks.to_json(masks.encode(one))} for one in kinds])
    found, report = read_set(tmp_path)
    assert said(report) == ["annotation 1: has an empty mask"]
    assert [one["area"] for one in found["annotations"]] == [48, 24]
    assert [one["bbox"] for one in found["annotations"]] == [[0, 0, 8, 6]] * 2


def test_line_1_a_missing_last_run_of_zeros_is_no_matter() -> None:
    assert masks.check({"size": [3, 4], "counts": [6, 6]}) == masks.check({"size": [3, 4], "counts": [6, 6, 0]})
    assert masks.check({"size": [3, 4], "counts": "<"})["counts"] == b"<"
    assert masks.area([masks.check({"size": [3, 4], "counts": "0<"})])[0] == 12


# --- line 2: polygons -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [[], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5]])
def test_line_2_a_polygon_of_fewer_than_six_numbers_is_named(
    tmp_path: Path, read_set: Read, said: Said, part: list[int]
) -> None:
    coco(tmp_path, [{"segmentation": [part]}, {"segmentation": POLYGON}])
    found, report = read_set(tmp_path)
    assert len(found["annotations"]) == 1
    assert said(report) == ["annotation 1: has a polygon (part 0) of fewer than three points"]


@pytest.mark.parametrize(
    ("polygons", "area"),
    [
        pytest.param([[1, 1, 7, 5, 7, 1, 1, 5]], None, id="crosses itself"),
        pytest.param([[0, 0, 2, 0, 2, 2, 0, 2], [4, 3, 6, 3, 6, 5, 4, 5]], 8, id="two parts"),
        pytest.param([[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]], 28, id="parts that overlap count once"),
        pytest.param([[4, 3, 20, 3, 20, 20, 4, 20]], 12, id="reaches out of the image"),
        pytest.param([[2, 1, 5, 1, 5, 4, 2, 4]], 9, id="whole numbers"),
    ],
)
def test_line_2_polygons_of_all_kinds_become_masks(
    tmp_path: Path, read_set: Read, polygons: list[Any], area: int | None
) -> None:
    coco(tmp_path, [{"segmentation": polygons}])
    found, report = read_set(tmp_path)
    assert report.skipped == []
    (one,) = found["annotations"]
    theirs = coco_mask.merge(coco_mask.frPyObjects(polygons, 6, 8))
    assert one["segmentation"]["counts"].encode() == theirs["counts"]
    assert area is None or one["area"] == area


def test_line_2_a_polygon_wholly_outside_is_empty(tmp_path: Path, read_set: Read, said: Said) -> None:
    coco(tmp_path, [{"segmentation": [[30, 30, 40, 30, 40, 40]]}, {"segmentation": POLYGON}])
    found, report = read_set(tmp_path)
    assert len(found["annotations"]) == 1
    assert said(report) == ["annotation 1: has an empty mask"]


# --- line 3: ids ------------------------------------------------------------------------------------------------------


def test_line_3_ids_of_zero_are_ids(tmp_path: Path, read_set: Read) -> None:
    image = {"id": 0, "file_name": "a.png", "width": 8, "height": 6}
    one = {"id": 0, "image_id": 0, "category_id": 0, "segmentation": RLE}
    coco(tmp_path, [one], images=[image], categories=[{"id": 0, "name": "thing"}])
    found, report = read_set(tmp_path)
    assert report.skipped == []
    # COCOeval takes a truth with id 0 for unmatched.
    assert [(a["id"], a["source_id"], a["image_id"], a["category_id"]) for a in found["annotations"]] == [(1, 0, 0, 0)]


def test_line_3_duplicate_annotation_ids_keep_the_first(tmp_path: Path, read_set: Read, said: Said) -> None:
    coco(tmp_path, [{"id": 7, "segmentation": RLE}, {"id": 7, "segmentation": POLYGON}, {"id": 8, "segmentation": RLE}])
    found, report = read_set(tmp_path)
    assert [one["source_id"] for one in found["annotations"]] == [7, 8]
    assert said(report) == ["annotation 7: has the id of another annotation"]


def test_line_3_ids_written_as_text(tmp_path: Path, read_set: Read) -> None:
    coco(tmp_path, [{"id": "3", "image_id": "5", "category_id": "1", "segmentation": RLE}])
    found, report = read_set(tmp_path)
    assert report.skipped == []
    assert found["annotations"][0]["image_id"] == 5


def test_line_3_an_annotation_without_its_image_is_named(tmp_path: Path, read_set: Read, said: Said) -> None:
    coco(tmp_path, [{"image_id": 6, "segmentation": RLE}, {"segmentation": RLE}, {"image_id": None}])
    found, report = read_set(tmp_path)
    assert len(found["annotations"]) == 1
    assert said(report) == [
        "annotation 1: belongs to the image 6, which is not listed or was skipped",
        "annotation 3: belongs to the image None, which is not listed or was skipped",
    ]


def test_line_3_optional_keys_may_be_missing(tmp_path: Path, read_set: Read, picture: Callable[..., Path]) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "train.json").write_text(
        json.dumps(
            {
                "images": [{"id": 5, "file_name": "a.png"}],
                "annotations": [{"image_id": 5, "category_id": 1, "segmentation": RLE}],
                "categories": [{"id": 1, "name": "thing"}],
            }
        )
    )
    found, report = read_set(tmp_path)
    assert report.skipped == []
    (one,) = found["annotations"]
    assert (one["iscrowd"], one["area"], one["bbox"]) == (0, 16, [2, 1, 5, 4])


# --- line 4: crowds and results ---------------------------------------------------------------------------------------


def test_line_4_crowds_in_both_kinds_of_runs(tmp_path: Path, read_set: Read) -> None:
    runs = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]}
    coco(tmp_path, [{"segmentation": RLE, "iscrowd": 1}, {"segmentation": runs, "iscrowd": 1}, {"segmentation": RLE}])
    found, _ = read_set(tmp_path)
    assert [one["iscrowd"] for one in found["annotations"]] == [1, 1, 0]


def results(folder: Path, read_set: Read, *values: dict[str, Any]) -> tuple[dict[str, Any], SkipReport]:
    coco(folder, [])
    (folder / "results.json").write_text(json.dumps(values))
    return read_set(folder, format="coco_results", annotations="results.json", categories="train.json")


def test_line_4_an_empty_results_list_is_an_empty_set(tmp_path: Path, read_set: Read) -> None:
    # pycocotools raises IndexError.
    found, report = results(tmp_path, read_set)
    assert (len(found["images"]), found["annotations"], report.skipped) == (1, [], [])


def test_line_4_results_with_boxes_take_area_and_box_of_the_mask(tmp_path: Path, read_set: Read) -> None:
    # pycocotools takes width times height of the box for the area, and writes into the list it is given.
    one = {"image_id": 5, "category_id": 1, "segmentation": RLE, "bbox": [0, 0, 8, 6], "score": 0.5}
    found, _ = results(tmp_path, read_set, one)
    (made,) = found["annotations"]
    assert (made["area"], made["bbox"], made["score"], made["iscrowd"]) == (16, [2, 1, 5, 4], 0.5, 0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"image_id": 6}, "belongs to the image 6, which is not listed or was skipped"),
        ({"score": float("nan")}, "has the score nan; a finite number is needed"),
        ({"score": None}, "has the score None; a finite number is needed"),
        ({"segmentation": None, "bbox": [1, 1, 2, 2]}, "has no segmentation"),
    ],
)
def test_line_4_unknown_images_and_scores_that_are_no_number_are_named(
    tmp_path: Path, read_set: Read, said: Said, wrong: dict[str, Any], reason: str
) -> None:
    good = {"image_id": 5, "category_id": 1, "segmentation": RLE, "score": 0.5}
    found, report = results(tmp_path, read_set, good | wrong, good)
    assert len(found["annotations"]) == 1
    assert said(report) == [f"results[0]: {reason}"]


def test_line_4_a_missing_score_is_named(tmp_path: Path, read_set: Read, said: Said) -> None:
    _, report = results(tmp_path, read_set, {"image_id": 5, "category_id": 1, "segmentation": RLE})
    assert said(report) == ["results[0]: has the score None; a finite number is needed"]


@pytest.mark.shared
def test_line_4_real_results_are_read_and_boxes_alone_are_not(
    tmp_path: Path, read_set: Read, sample: Callable[[str], Path]
) -> None:
    path = sample("coco/results_instances_val2014_fakesegm100.json")
    values = json.loads(path.read_text())
    sizes = {one["image_id"]: one["segmentation"]["size"] for one in values}
    coco(
        tmp_path,
        [],
        images=[{"id": n, "file_name": f"{n}.jpg", "height": h, "width": w} for n, (h, w) in sizes.items()],
        categories=[{"id": n, "name": str(n)} for n in {one["category_id"] for one in values}],
    )
    keys = {"format": "coco_results", "categories": str(tmp_path / "train.json")}
    found, report = read_set(path.parent, annotations=path.name, **keys)
    assert (len(found["annotations"]), report.skipped) == (734, [])
    assert {one["score"] for one in found["annotations"]} == {one["score"] for one in values}
    _, report = read_set(path.parent, annotations="results_instances_val2014_fakebbox100.json", **keys)
    assert {one["reason"] for one in report.skipped} == {"has no segmentation"}


# --- line 5: categories -----------------------------------------------------------------------------------------------


def test_line_5_names_that_clash_between_lists_are_mapped_by_id(tmp_path: Path, read_set: Read) -> None:
    (tmp_path / "target.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n45\t.1\t1\t2\tchest of drawers, dresser \n")
    (tmp_path / "map.txt").write_text("Instacne100\tSceneParse150\n1\t\t45\n")
    coco(tmp_path, [{"segmentation": RLE}], categories=[{"id": 1, "name": "chest of drawer"}])
    target = {"file": "map.txt", "categories": "target.txt"}
    found, report = read_set(tmp_path, category_map=target)
    assert found["annotations"][0]["category_id"] == 45
    assert found["categories"] == [{"id": 45, "name": "chest of drawers, dresser"}]
    assert report.notes == []


@pytest.mark.shared
def test_line_5_many_to_one_and_the_header_with_a_typing_error(tmp_path: Path, sample: Callable[[str], Path]) -> None:
    path = sample("placeschallenge2017/categoryMapping.txt")
    table = sample("placeschallenge2017/instanceInfo100_train.txt")
    assert path.read_text().startswith("Instacne100")
    from_ade = read_category_map(path, table, source=3, target=1)
    assert from_ade.target(774) == from_ade.target(783) == 5
    assert from_ade.target(1) is None
    assert len(from_ade.categories) == 100
    # Back, one id would have to become two.
    (tmp_path / "full.txt").write_text("".join(f"{n}\tclass {n}\n" for n in range(1, 3149)))
    with pytest.raises(SegloopError, match="the id 5 leads to both 774 and 783"):
        read_category_map(path, tmp_path / "full.txt", source=1, target=3)
    scene = read_category_map(
        sample("ade20k_full_2016/mapFromADE.txt"), sample("sceneparsing150/objectInfo150.txt"), 2, 1
    )
    assert scene.target(774) == scene.target(783) == 15
    assert scene.categories[15]["name"] == "door, double door"


@pytest.mark.shared
def test_line_5_the_names_of_both_lists_are_compared(sample: Callable[[str], Path]) -> None:
    path = sample("placeschallenge2017/categoryMapping.txt")
    ours = {one["id"]: one for one in read_category_table(sample("placeschallenge2017/instanceInfo100_train.txt"))}
    theirs = sample("sceneparsing150/objectInfo150.txt")
    report = SkipReport(None, 1.0)
    read_category_map(path, theirs, source=1, target=2).check_names(path, ours, report)
    assert len(report.notes) < 5, report.notes
    shifted = {number: ours.get(number + 1, one) for number, one in ours.items()}
    with pytest.raises(SegloopError, match="does not fit these categories"):
        read_category_map(path, theirs, source=1, target=2).check_names(path, shifted, report)


@pytest.mark.shared
def test_line_5_padded_names(sample: Callable[[str], Path]) -> None:
    for name, count in (
        ("placeschallenge2017/instanceInfo100_train.txt", 100),
        ("sceneparsing150/objectInfo150.txt", 150),
    ):
        table = read_category_table(sample(name))
        assert len(table) == count
        assert all(one["name"] == one["name"].strip() and not one["name"].isdecimal() for one in table)


def test_line_5_a_name_without_a_word_in_common_is_noted() -> None:
    one = CategoryMap({n: n for n in range(1, 7)}, {n: {"id": n, "name": f"thing {n}"} for n in range(1, 7)})
    known = {n: {"id": n, "name": f"thing {n}"} for n in range(1, 6)} | {6: {"id": 6, "name": "sofa"}}
    report = SkipReport(None, 1.0)
    one.check_names(Path("map.txt"), known, report)
    assert [note["reason"] for note in report.notes] == [
        "6 (sofa) becomes 6 (thing 6): the names have no word in common"
    ]


# --- line 6: ADE ------------------------------------------------------------------------------------------------------


def challenge(folder: Path, pixels: Any, png: Callable[[Path, Any], Path], picture: Callable[..., Path]) -> None:
    height, width = np.shape(pixels)[:2]
    picture(folder / "images/a.jpg", width, height)
    png(folder / "png/a.png", np.asarray(pixels, np.uint8))
    (folder / "table.txt").write_text("".join(f"{n}\tname {n}\n" for n in range(1, 101)))


CHALLENGE = {"format": "places_challenge", "annotations": "png", "categories": "table.txt"}


def test_line_6_blue_that_is_not_0_marks_a_crowd(
    tmp_path: Path, read_set: Read, png: Callable[[Path, Any], Path], picture: Callable[..., Path]
) -> None:
    """Built here: the challenge's own PNGs are not among the samples."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :, :] = (3, 1, 0)
    pixels[2:, :, :] = (3, 2, 9)
    challenge(tmp_path, pixels, png, picture)
    found, _ = read_set(tmp_path, **CHALLENGE)
    assert [one["iscrowd"] for one in found["annotations"]] == [0, 1]


def test_line_6_channels_are_red_green_blue_and_not_the_other_way(
    tmp_path: Path, read_set: Read, png: Callable[[Path, Any], Path], picture: Callable[..., Path]
) -> None:
    """Built here. A reader that swaps the channels would find category 0 and no instance."""
    challenge(tmp_path, np.full((4, 6, 3), (7, 200, 0)), png, picture)
    found, report = read_set(tmp_path, **CHALLENGE)
    (one,) = found["annotations"]
    assert (one["category_id"], one["source_id"], one["iscrowd"], report.skipped) == (7, 200, 0, [])


def test_line_6_all_255_instances_are_told_apart_and_more_are_not_written(
    tmp_path: Path, read_set: Read, png: Callable[[Path, Any], Path], picture: Callable[..., Path]
) -> None:
    """Built here. G has eight bits, so that an image of more instances cannot be in this format."""
    from segloop.data.places_challenge import write_instance_png

    one = np.zeros((1, 300), bool)
    one[0, 0] = True
    with pytest.raises(SegloopError, match="256 instances, an instance PNG holds at most 255"):
        write_instance_png(tmp_path / "more.png", [(1, one)] * 256, (1, 300))
    pixels = np.zeros((1, 300, 3), np.uint8)
    pixels[0, :255, 0] = 4
    pixels[0, :255, 1] = np.arange(1, 256)
    challenge(tmp_path, pixels, png, picture)
    found, _ = read_set(tmp_path, **CHALLENGE)
    assert [one["bbox"] for one in found["annotations"]] == [[x, 0, 1, 1] for x in range(255)]


def test_line_6_a_segmentation_of_another_size_is_scaled_by_nearest_and_counted(
    tmp_path: Path,
    read_set: Read,
    png: Callable[[Path, Any], Path],
    picture: Callable[..., Path],
    noted: Said,
    shown: Callable[[dict[str, Any]], Any],
) -> None:
    """Built here: at full scale the samples have no pair of other sizes."""
    picture(tmp_path / "a.jpg", 12, 8)
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3], pixels[:, 3:] = (10, 5, 77), (20, 6, 80)
    png(tmp_path / "a_seg.png", pixels)
    (tmp_path / "a_atr.txt").write_text('001 # 0 # 0 # wall # wall # ""\n002 # 0 # 1 # door # door # "open, old"\n')
    found, report = read_set(tmp_path, format="ade20k_2016", annotations=".", images=".")
    # No colour between the two: 261 and 518 alone.
    assert [(one["category_id"], one["area"]) for one in found["annotations"]] == [(261, 48), (518, 48)]
    np.testing.assert_array_equal(shown(found["annotations"][0]), np.arange(12)[None, :].repeat(8, 0) < 6)
    assert noted(report) == ["1 records: segmentation PNGs of another size than their image, scaled to it"]
    picture(tmp_path / "a.jpg", 12, 12)
    found, report = read_set(tmp_path, format="ade20k_2016", annotations=".", images=".")
    assert (found["images"], len(report.skipped)) == ([], 1)


@pytest.mark.parametrize(("amodal", "area"), [(False, 4), (True, 10)])
def test_line_6_masks_of_0_128_and_255_are_visible_or_amodal(
    tmp_path: Path,
    read_set: Read,
    png: Callable[[Path, Any], Path],
    picture: Callable[..., Path],
    amodal: bool,
    area: int,
) -> None:
    later(tmp_path, png, picture, {})
    found, _ = read_set(tmp_path, format="ade20k_2021", annotations=".", images=".", amodal=amodal)
    assert [one["area"] for one in found["annotations"]] == [area]


def later(
    folder: Path, png: Callable[[Path, Any], Path], picture: Callable[..., Path], changes: dict[str, Any]
) -> dict[str, Any]:
    """Write a set like ADE20K 2021_17_01 of one image with one object."""
    picture(folder / "a.jpg")
    pixels = np.zeros((6, 8), np.uint8)
    pixels[0, :4] = 255
    pixels[1, :6] = 128
    png(folder / "a/instance_000_a.png", pixels)
    one = {
        "id": 0,
        "name": "door",
        "name_ndx": 774,
        "attributes": [],
        "occluded": "no",
        "crop": "0",
        "parts": {"hasparts": [], "ispartof": [], "part_level": 0},
        "instance_mask": "a/instance_000_a.png",
    }
    (folder / "a.json").write_text(json.dumps({"annotation": {"object": [one | changes]}}))
    return one


@pytest.mark.parametrize(
    "changes",
    [
        {"occluded": []},
        {"crop": 0},
        {"attributes": "open"},
        {"attributes": ["open"]},
        {"parts": {"hasparts": 3, "ispartof": [], "part_level": 0}},
        {"parts": {"hasparts": [3, 4], "ispartof": 7, "part_level": 0}},
        {"parts": []},
        {"id": 41},
    ],
)
def test_line_6_fields_that_are_a_list_or_a_bare_value(
    tmp_path: Path,
    read_set: Read,
    png: Callable[[Path, Any], Path],
    picture: Callable[..., Path],
    changes: dict[str, Any],
) -> None:
    later(tmp_path, png, picture, changes)
    found, report = read_set(tmp_path, format="ade20k_2021", annotations=".", images=".")
    assert report.skipped == []
    (one,) = found["annotations"]
    assert one["category_id"] == 774
    assert one.get("attributes", []) == (["open"] if "attributes" in changes else [])


def test_line_6_json_that_is_not_utf_8_is_read_with_replacement(
    tmp_path: Path, read_set: Read, png: Callable[[Path, Any], Path], picture: Callable[..., Path], noted: Said
) -> None:
    later(tmp_path, png, picture, {"raw_name": "caf@"})
    content = (tmp_path / "a.json").read_bytes().replace(b"caf@", b"caf\xe9")
    (tmp_path / "a.json").write_bytes(content)
    found, report = read_set(tmp_path, format="ade20k_2021", annotations=".", images=".")
    assert (len(found["annotations"]), report.skipped) == (1, [])
    assert noted(report) == ["1 records: JSON files with bytes that are not UTF-8, which were replaced"]


# --- line 7: images and their names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "I;16", "P", "1"])
def test_line_7_images_of_all_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (8, 6)).save(path)
    pixels = open_image(path)
    assert (pixels.shape, pixels.dtype) == ((6, 8, 3), np.uint8)


def test_line_7_a_rotated_photograph_has_the_size_that_people_see(tmp_path: Path, read_set: Read) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 8)).save(tmp_path / "images/a.png", exif=exif)
    coco(tmp_path, [{"segmentation": RLE}])
    assert image_size(tmp_path / "images/a.png") == (8, 6)
    found, report = read_set(tmp_path, {"check_images": True})
    assert (len(found["annotations"]), report.skipped) == (1, [])


def test_line_7_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(stream, "JPEG")
    (tmp_path / "a.jpg").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(ImageError, match=r"a\.jpg cannot be read as an image"):
        open_image(tmp_path / "a.jpg")


def test_line_7_names_with_blanks_and_unicode(tmp_path: Path, read_set: Read, picture: Callable[..., Path]) -> None:
    name = "ein Bild/größer 日本 #1 .png"
    picture(tmp_path / "images" / name)
    coco(tmp_path, [{"segmentation": RLE}], images=[{"id": 5, "file_name": name, "width": 8, "height": 6}])
    found, report = read_set(tmp_path, {"check_images": True})
    assert report.skipped == []
    assert open_image(found["images"][0]["file_name"]).shape == (6, 8, 3)


def test_line_7_scenes_of_places_may_be_nested(tmp_path: Path) -> None:
    path = tmp_path / "places365_train_standard.txt"
    path.write_text(
        "/a/airfield/00000001.jpg 0\n/a/apartment_building/outdoor/00000002.jpg 8\nPlaces365_val_00000001.jpg 165"
    )
    assert list(read_places_list(path)) == [
        "a/airfield/00000001.jpg",
        "a/apartment_building/outdoor/00000002.jpg",
        "Places365_val_00000001.jpg",
    ]


# --- line 8: Open Images, LVIS, Cityscapes, bundles -------------------------------------------------------------------


def test_line_8_open_images_masks_are_scaled_and_boxes_are_xmin_xmax_ymin_ymax(
    tmp_path: Path, read_set: Read, png: Callable[[Path, Any], Path], picture: Callable[..., Path], noted: Said
) -> None:
    """Built here: no Open Images file is among the samples."""
    picture(tmp_path / "images/0a.jpg", 20, 10)
    half = np.zeros((5, 10), np.uint8)
    half[1:3, 5:] = 255
    png(tmp_path / "masks/0/0a_m0x_1.png", half)
    (tmp_path / "classes.csv").write_text("/m/0x,Traffic light\n")
    (tmp_path / "train.csv").write_text(
        "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"
        "0a_m0x_1.png,0a,/m/0x,1,0.5,1.0,0.2,0.6,0.75,0.1 0.2 1;0.3 0.4 0\n"
    )
    keys = {"format": "open_images", "annotations": "train.csv", "mask_folder": "masks", "categories": "classes.csv"}
    found, report = read_set(tmp_path, **keys)
    (one,) = found["annotations"]
    assert one["bbox"] == pytest.approx(one["box"]) == [10, 2, 10, 4]
    assert (one["area"], one["predicted_iou"]) == (40, 0.75)
    assert noted(report) == ["1 records: masks of another size than their image, scaled to it"]


@pytest.mark.shared
def test_line_8_lvis_images_are_found_by_their_url(read_set: Read, sample: Callable[[str], Path]) -> None:
    path = sample("lvis/lvis_val_100.json")
    found, report = read_set(path.parent, format="lvis", annotations=path.name)
    assert (len(found["images"]), len(found["annotations"]), len(found["categories"])) == (100, 977, 1230)
    assert report.skipped == []
    assert all(Path(one["file_name"]).parent.name == "val2017" for one in found["images"])
    assert all("not_exhaustive_category_ids" in one and "neg_category_ids" in one for one in found["images"])
    assert {one["frequency"] for one in found["categories"]} == {"r", "c", "f"}


def test_line_8_numbers_below_1000_are_crowds_in_cityscapes(
    tmp_path: Path, read_set: Read, png: Callable[[Path, Any], Path], picture: Callable[..., Path], noted: Said
) -> None:
    """Built here: no Cityscapes file is among the samples."""
    picture(tmp_path / "leftImg8bit/ulm/ulm_1_leftImg8bit.png", 6, 2)
    pixels = np.array([[26003, 26003, 26, 26, 7, 0], [26003, 24001, 26, 26, 7, 0]], np.uint16)
    png(tmp_path / "gtFine/ulm/ulm_1_gtFine_instanceIds.png", pixels)
    found, report = read_set(tmp_path, format="cityscapes", annotations="gtFine", images="leftImg8bit")
    known = [(one["category_id"], one["iscrowd"], one["area"], one["source_id"]) for one in found["annotations"]]
    assert known == [(26, 1, 4, 26), (24, 0, 1, 24001), (26, 0, 3, 26003)]
    assert report.skipped == []
    assert noted(report) == ["1 records: regions of classes without instances, left out"]


def bundle() -> dict[str, Any]:
    one = {"id": 82497, "image_id": 2950, "category_id": 59, "segmentation": RLE, "score": 0.56}
    return {
        "images": [{"id": 2950, "file_name": "c/hall/nsun_1.jpg"}, {"id": 2951, "file_name": "c/hall/nsun_2.jpg"}],
        "annotations": [one],
        "categories": [{"id": 59, "name": "potted plant"}],
    }


def test_line_8_a_bundle_without_sizes_takes_those_of_its_masks(tmp_path: Path, read_set: Read, said: Said) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps(bundle()))
    found, report = read_set(tmp_path, format="question_bundle", annotations="bundle.json")
    assert [(one["id"], one["width"], one["height"]) for one in found["images"]] == [(2950, 8, 6)]
    assert found["annotations"][0]["score"] == 0.56
    assert len(report.skipped) == 1
    assert "image 2951: has no size, and " in said(report)[0]


def test_line_8_colons_in_names_of_answered_bundles_are_read_and_never_written(tmp_path: Path, read_set: Read) -> None:
    from segloop.data.bundles import result_name

    try:
        (tmp_path / "6f_2019-05-01T10:20:30.json").write_text(json.dumps(bundle()))
    except OSError:
        pytest.skip("this file system takes no colons in names")
    found, _ = read_set(tmp_path, format="question_bundle", annotations=".")
    assert len(found["annotations"]) == 1
    assert result_name("6f", "2019-05-01T10:20:30") == "6f_2019-05-01T10-20-30.json"


@pytest.mark.shared
def test_line_8_the_real_bundle(read_set: Read, sample: Callable[[str], Path]) -> None:
    path = sample("thesis_yn_bundle/033367d2221f4f9f961995e18c979282.json")
    found, report = read_set(path.parent, format="question_bundle", annotations=path.name)
    assert (len(found["images"]), len(found["annotations"]), report.skipped) == (17, 30, [])
    theirs = {one["id"]: one for one in json.loads(path.read_text())["annotations"]}
    for one in found["annotations"]:
        known = theirs[one["source_id"]]
        assert (one["area"], one["bbox"], one["score"]) == (known["area"], known["bbox"], known["score"])


# --- line 9: large files, round trips ---------------------------------------------------------------------------------

LARGE_MB = 60
LIMIT_MB = 30


def test_line_9_a_large_file_is_streamed_under_a_limit_of_memory(tmp_path: Path) -> None:
    """A file of 60 MB makes the process grow by less than 30 MB; `make bench-formats` can read one of 2 GB."""
    path = tmp_path / "large.json"
    polygon = ", ".join(f"{n % 7}.{n % 97:02}, {n % 5}.5" for n in range(500))
    annotation = f'{{"id": %d, "image_id": %d, "category_id": 1, "segmentation": [[{polygon}]]}}'
    count = LARGE_MB * 1_000_000 // len(annotation)
    with path.open("w") as file:
        images = ", ".join(f'{{"id": {n}, "file_name": "{n}.jpg", "width": 8, "height": 6}}' for n in range(count))
        file.write(f'{{"images": [{images}], "categories": [{{"id": 1, "name": "thing"}}], "annotations": [')
        file.writelines((", " if n else "") + annotation % (n, n) for n in range(count))
        file.write("]}")
    code = f"""
import resource
from pathlib import Path
from segloop.config import LabelledSetConfig
from segloop.data.formats import open_dataset
from segloop.data.skipped import SkipReport

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = used()
report = SkipReport(None, 0.0)
config = LabelledSetConfig(annotations={str(path)!r}, images=".")
dataset = open_dataset(config, data_root=Path("."), report=report, rasterise=False)
found = sum(len(annotations) for _, annotations in dataset.labelled())
print(found, len(report.skipped), used() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, skipped, grown = done.stdout.split()
    assert (int(found), int(skipped)) == (count, 0)
    assert float(grown) < LIMIT_MB


def test_line_9_each_kind_of_coco_mask_comes_back_equal(
    tmp_path: Path, read_set: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    from segloop.data.coco import write_canonical

    runs = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]}
    coco(tmp_path, [{"segmentation": RLE}, {"segmentation": runs, "iscrowd": 1}, {"segmentation": POLYGON}])
    first, _ = read_set(tmp_path)
    write_canonical(tmp_path / "train.json", first)
    again, report = read_set(tmp_path)
    assert report.skipped == []
    assert [one["segmentation"] for one in again["annotations"]] == [
        one["segmentation"] for one in first["annotations"]
    ]
    theirs = COCO(str(tmp_path / "train.json"))
    capsys.readouterr()
    for one in first["annotations"]:
        assert theirs.annToRLE(theirs.anns[one["id"]])["counts"] == one["segmentation"]["counts"]
