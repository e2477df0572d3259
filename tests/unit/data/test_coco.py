import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segloop.data import masks
from segloop.data.coco import read_coco, write_canonical
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import read_json

SHARED = Path(__file__).parents[3].parent / "shared" / "data"

SQUARE = np.zeros((6, 8), bool)
SQUARE[1:4, 2:5] = True
RLE = masks.to_json(masks.encode(SQUARE))
POLYGON = [[2, 1, 5, 1, 5, 4, 2, 4]]
RUNS = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]}


def data_set(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a/b ü.png", "width": 8, "height": 6}],
        "annotations": [{"id": n, "image_id": 5, "category_id": 0, **one} for n, one in enumerate(annotations, 1)],
        "categories": [{"id": 0, "name": "thing "}, {"id": 90, "name": "other", "supercategory": "x"}],
    } | changes


def read(folder: Path, value: Any, **options: Any) -> tuple[dict[str, Any], SkipReport]:
    path = folder / "set.json"
    path.write_text(json.dumps(value))
    report = SkipReport(folder / "skipped.json", 1.0)
    return read_coco(path, folder / "images", report, **options), report


def reasons(report: SkipReport) -> list[str]:
    return [f"{one['record']}: {one['reason']}" for one in report.skipped]


def test_the_three_kinds_of_masks_and_crowds_become_one(tmp_path: Path) -> None:
    found, report = read(
        tmp_path,
        data_set(
            {"segmentation": POLYGON},
            {"segmentation": RUNS, "iscrowd": 1},
            {"segmentation": RLE},
            {"segmentation": RLE, "iscrowd": 1, "area": 625.0, "bbox": [0, 0, 1, 1]},
        ),
    )
    assert report.skipped == []
    assert report.used == 5
    assert [one["segmentation"] for one in found["annotations"]] == [RLE] * 4
    assert [one["iscrowd"] for one in found["annotations"]] == [0, 1, 0, 1]
    assert all(one["area"] == 9 and one["bbox"] == [2.0, 1.0, 3.0, 3.0] for one in found["annotations"])
    assert found["images"][0]["file_name"] == str(tmp_path / "images" / "a/b ü.png")
    assert found["categories"] == [{"id": 0, "name": "thing"}, {"id": 90, "name": "other", "supercategory": "x"}]


def test_annotations_are_numbered_from_one_and_keep_their_old_number(tmp_path: Path) -> None:
    value = data_set(*[{"segmentation": RLE}] * 3)
    for one, number in zip(value["annotations"], (0, 2, "77"), strict=True):
        one["id"] = number
    found, _ = read(tmp_path, value)
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3]
    assert [one.get("source_id") for one in found["annotations"]] == [0, None, 77]


def test_ids_may_be_zero_text_or_missing(tmp_path: Path) -> None:
    value = data_set({"segmentation": RLE, "image_id": "0", "category_id": "0"}, {"segmentation": RLE, "image_id": 0.0})
    value["images"][0]["id"] = "0"
    del value["annotations"][0]["id"]
    found, report = read(tmp_path, value)
    assert report.skipped == []
    assert found["images"][0]["id"] == 0
    assert [one["image_id"] for one in found["annotations"]] == [0, 0]


BAD = [
    ({"segmentation": {"size": [6, 8], "counts": [13, 3]}}, "sum to 16"),
    ({"segmentation": {"size": [8, 6], "counts": RLE["counts"]}}, "swapped"),
    ({"segmentation": {"size": [6, 9], "counts": [54]}}, "6 x 9, the image has 6 x 8"),
    ({"segmentation": {"size": [6, 8], "counts": [48]}}, "empty mask"),
    ({"segmentation": [[1, 2, 3, 4]]}, "fewer than three points"),
    ({"segmentation": [[30, 30, 40, 30, 40, 40]]}, "empty mask"),
    ({"segmentation": []}, "no polygon"),
    ({"segmentation": None}, "no segmentation"),
    ({}, "no segmentation"),
    ({"segmentation": RLE, "category_id": 7}, "unknown category 7"),
    ({"segmentation": RLE, "category_id": None}, "unknown category None"),
    ({"segmentation": RLE, "category_id": [1]}, r"unknown category \[1\]"),
    ({"segmentation": RLE, "image_id": 6}, "image 6"),
    ({"segmentation": RLE, "image_id": "--6"}, "image '--6'"),
    ({"segmentation": RLE, "image_id": 1e400}, "image inf"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_annotation_is_named_and_the_rest_goes_on(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    found, report = read(tmp_path, data_set({"segmentation": RLE}, bad, {"segmentation": POLYGON}))
    assert [one["id"] for one in found["annotations"]] == [1, 2]
    assert found["annotations"][1]["source_id"] == 3
    (skipped,) = report.skipped
    assert skipped["record"] == "annotation 2"
    assert skipped["file"].endswith("set.json")
    assert re.search(reason, skipped["reason"])


def test_repeated_ids_and_records_that_are_no_objects(tmp_path: Path) -> None:
    value = data_set({"segmentation": RLE}, {"segmentation": RLE, "id": 1})
    value["annotations"] += [None, 7, "x", []]
    value["images"] += [{"id": 5, "file_name": "c.png", "width": 1, "height": 1}, {"file_name": "d.png"}, 3]
    found, report = read(tmp_path, value)
    assert len(found["annotations"]) == len(found["images"]) == 1
    assert [line.split(":")[0] for line in reasons(report)] == [
        "image 5",
        "images[2]",
        "images[3]",
        "annotation 1",
        *(f"annotations[{place}]" for place in (2, 3, 4, 5)),
    ]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.png", "a/../../up.png", "", None, 5, "a\0b", "\ud800.png"])
def test_a_file_name_that_leads_out_of_the_folder_is_skipped(tmp_path: Path, name: Any) -> None:
    value = data_set({"segmentation": RLE})
    value["images"][0]["file_name"] = name
    found, report = read(tmp_path, value)
    assert found["images"] == found["annotations"] == []
    assert "has the file name" in report.skipped[0]["reason"]


def test_a_missing_size_is_read_from_the_image(tmp_path: Path) -> None:
    (tmp_path / "images/a").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "images/a/b ü.png")
    value = data_set({"segmentation": RLE})
    del value["images"][0]["width"]
    found, report = read(tmp_path, value)
    assert (found["images"][0]["width"], found["images"][0]["height"]) == (8, 6)
    assert report.skipped == []


def test_checking_images_finds_missing_ones_and_other_sizes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images/good.png")
    Image.new("RGB", (6, 8)).save(tmp_path / "images/turned.png")
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    names = ["good.png", "turned.png", "broken.png", "missing.png"]
    images = [{"id": n, "file_name": name, "width": 8, "height": 6} for n, name in enumerate(names)]
    value = data_set({"segmentation": RLE, "image_id": 0}, {"segmentation": RLE, "image_id": 1}, images=images)
    found, report = read(tmp_path, value, check_images=True)
    assert [image["id"] for image in found["images"]] == [0]
    assert [line.split(":")[0] for line in reasons(report)] == ["image 1", "image 2", "image 3", "annotation 2"]
    assert "6 x 8 pixels, the data set says 8 x 6" in report.skipped[0]["reason"]
    assert "skipped" in report.skipped[3]["reason"]
    assert len(read(tmp_path, value)[0]["images"]) == 4


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "results files"),
        ({"images": []}, "no COCO data set"),
        (data_set(categories=[]), "no categories"),
        (data_set(categories=[{"id": "x", "name": "a"}]), "whole number as id"),
        (data_set(categories=[{"id": 1}]), "name"),
        (data_set(categories=[{"id": 1 << 31, "name": "a"}]), "32 bits"),
        (data_set(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "two categories have the id 1"),
    ],
)
def test_a_file_that_is_no_data_set_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(SegloopError, match=message):
        read(tmp_path, value)


def test_lvis_names_by_url(tmp_path: Path) -> None:
    value = data_set({"segmentation": RLE})
    value["images"][0] |= {"coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg"}
    value["images"][0]["file_name"] = "COCO_val2014_000000397133.jpg"
    found, _ = read(tmp_path, value)
    assert found["images"][0]["file_name"].endswith("images/val2017/000000397133.jpg")


@pytest.mark.parametrize("name", ["renamed.png", "COCO_val2014_000000397133.jpg"])
def test_other_sets_keep_their_names_beside_a_url(tmp_path: Path, name: str) -> None:
    value = data_set({"segmentation": RLE})
    value["images"][0] |= {"file_name": name, "coco_url": "http://host/val2014/COCO_val2014_000000397133.jpg"}
    assert read(tmp_path, value)[0]["images"][0]["file_name"] == str(tmp_path / "images" / name)


def test_an_image_of_absurd_size_is_skipped(tmp_path: Path) -> None:
    value = data_set({"segmentation": POLYGON})
    value["images"][0] |= {"width": 1 << 20, "height": 1 << 20}
    _, report = read(tmp_path, value)
    assert "more than the limit" in report.skipped[0]["reason"]


def test_reading_what_was_written_changes_nothing(tmp_path: Path) -> None:
    value = data_set({"segmentation": POLYGON}, {"segmentation": RUNS, "iscrowd": 1})
    first, _ = read(tmp_path, value)
    write_canonical(tmp_path / "written.json", first)
    again = copy.deepcopy(first)
    for image in again["images"]:
        image["file_name"] = str(Path(image["file_name"]).relative_to(tmp_path / "images"))
    second, report = read(tmp_path, again)
    assert report.skipped == []
    assert second["annotations"] == first["annotations"]
    assert read_json(tmp_path / "written.json") == first


def test_pycocotools_opens_the_canonical_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = read(tmp_path, data_set({"segmentation": POLYGON}, {"segmentation": RUNS, "iscrowd": 1}))
    write_canonical(tmp_path / "written.json", found)
    coco = COCO(str(tmp_path / "written.json"))
    capsys.readouterr()
    for one in coco.loadAnns(coco.getAnnIds()):
        assert coco_mask.area(coco.annToRLE(one)) == one["area"] == 9


# --- real files ------------------------------------------------------------------------------------------------------


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the sample data beside the project has no {name}")
    return path


REAL = [
    ("formats/coco/coco128_instances_train2017.polygon+uncompressed_rle_crowd.json", 128, 939, 10),
    ("formats/coco/nwpu_vhr10_annotations_only.json", 650, 3921, 0),
    ("formats/lvis/lvis_val_100.json", 100, 977, 0),
    ("nuclei/val.json", 132, None, 0),
]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "images", "annotations", "crowds"), REAL)
def test_real_files_are_read_whole(
    tmp_path: Path, name: str, images: int, annotations: int | None, crowds: int
) -> None:
    path = shared(name)
    source = read_json(path)
    report = SkipReport(tmp_path / "skipped.json", 0.01)
    found = read_coco(path, tmp_path, report)
    report.finish()
    assert len(found["images"]) == images
    expected = annotations if annotations is not None else len(source["annotations"])
    assert len(found["annotations"]) + sum("annotation" in one["record"] for one in report.skipped) == expected
    assert sum(one["iscrowd"] for one in found["annotations"]) == crowds
    assert [one["id"] for one in found["annotations"]] == list(range(1, len(found["annotations"]) + 1))


@pytest.mark.shared
def test_real_masks_agree_with_pycocotools(tmp_path: Path) -> None:
    path = shared(REAL[0][0])
    source = read_json(path)
    sizes = {image["id"]: (image["height"], image["width"]) for image in source["images"]}
    found = read_coco(path, tmp_path, SkipReport(tmp_path / "skipped.json", 0.01))
    mine = {one.get("source_id", one["id"]): one for one in found["annotations"]}
    for one in source["annotations"][::7]:
        height, width = sizes[one["image_id"]]
        rle = coco_mask.frPyObjects(one["segmentation"], height, width)
        merged = coco_mask.merge(rle) if isinstance(rle, list) else rle
        assert mine[one["id"]]["segmentation"]["counts"] == merged["counts"].decode()
