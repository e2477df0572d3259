"""Each format through the registry: real samples where there are some, else files built here, as each test says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
from PIL import Image

from segloop.config import FormatName, LabelledSetConfig, SplitConfig
from segloop.data import masks
from segloop.data.coco import write_labelled_set
from segloop.data.formats import FORMATS, open_dataset
from segloop.data.guessing import guess_format
from segloop.data.labelled import whole
from segloop.data.places_challenge import write_instance_png
from segloop.data.skipped import SkipReport
from segloop.data.splits import part_of
from segloop.errors import SegloopError
from segloop.files import read_json

Read = Callable[..., tuple[dict[str, Any], SkipReport]]
Said = Callable[[SkipReport], list[str]]
Shown = Callable[[dict[str, Any]], npt.NDArray[np.bool_]]
Png = Callable[[Path, Any], Path]
Picture = Callable[..., Path]
Sample = Callable[[str], Path]

SQUARE = np.zeros((6, 8), bool)
SQUARE[1:4, 2:5] = True


def number(one: dict[str, Any]) -> int:
    """Return an annotation's number in its source; it is written where it is another than its own."""
    return int(one.get("source_id", one["id"]))


def test_every_word_of_the_configuration_has_a_reader() -> None:
    assert set(FORMATS) == set(get_args(FormatName))


@pytest.mark.parametrize("word", ["places_challenge", "scene_parse_150", "yolo", "coco_results"])
def test_formats_that_need_a_table_ask_for_it(tmp_path: Path, read_set: Read, word: str) -> None:
    with pytest.raises(SegloopError, match="needs its category table: set `categories`"):
        read_set(tmp_path, format=word)
    with pytest.raises(SegloopError, match="needs `mask_folder`"):
        read_set(tmp_path, format="open_images")


@pytest.mark.parametrize("word", sorted(get_args(FormatName)))
def test_a_missing_set_is_named_whatever_the_format(tmp_path: Path, read_set: Read, word: str) -> None:
    (tmp_path / "table.txt").write_text("1\tname\n")
    (tmp_path / "data.yaml").write_text("names: [name]\n")
    (tmp_path / "classes.csv").write_text("/m/0x,name\n")
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    tables = {"yolo": "data.yaml", "open_images": "classes.csv", "ade20k_2016": None, "ade20k_2021": None}
    with pytest.raises(SegloopError, match="nowhere"):
        read_set(
            tmp_path,
            format=word,
            annotations="nowhere",
            categories=tables.get(word, "table.txt"),
            mask_folder="masks",
        )


# --- ADE20K -----------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_ade20k_2021_whole_objects_are_those_of_the_segmentation(read_set: Read, sample: Sample) -> None:
    root = sample("ade20k_2021_17_01/dataset")
    found, report = read_set(root, format="ade20k_2021", annotations=".", images=".")
    assert (len(found["images"]), len(found["annotations"]), report.skipped, report.notes) == (3, 109, [], [])
    coded, _ = read_set(root, format="ade20k_2016", annotations=".", images=".")
    assert sorted((one["image_id"], one["category_id"]) for one in coded["annotations"]) == sorted(
        (one["image_id"], one["category_id"]) for one in found["annotations"]
    )
    # The order of B is not that of the objects: they are matched by overlap, and most masks are the same.
    for image in (1, 2, 3):
        ours = [masks.from_json(one["segmentation"]) for one in found["annotations"] if one["image_id"] == image]
        theirs = [masks.from_json(one["segmentation"]) for one in coded["annotations"] if one["image_id"] == image]
        assert np.median(masks.iou(ours, theirs).max(axis=1)) > 0.99


@pytest.mark.shared
def test_ade20k_2021_parts_and_hidden_regions_on_request(read_set: Read, sample: Sample) -> None:
    root = sample("ade20k_2021_17_01/dataset")
    keys = {"format": "ade20k_2021", "annotations": ".", "images": "."}
    visible, _ = read_set(root, **keys)
    amodal, _ = read_set(root, amodal=True, parts=True, **keys)
    assert len(amodal["annotations"]) == 139
    parts = [one for one in amodal["annotations"] if "part_level" in one]
    assert len(parts) == 30
    known = {(one["image_id"], number(one)): one["area"] for one in visible["annotations"]}
    larger = [
        one["area"] - known[one["image_id"], number(one)] for one in amodal["annotations"] if "part_level" not in one
    ]
    assert min(larger) == 0
    assert sum(more > 0 for more in larger) == 62


@pytest.mark.shared
def test_ade20k_2021_through_a_category_map(read_set: Read, sample: Sample) -> None:
    root = sample("ade20k_2021_17_01")
    target = {
        "file": "ade20k_instance_catid_mapping.txt",
        "source_column": 3,
        "target_column": 1,
        "categories": str(sample("placeschallenge2017/instanceInfo100_train.txt")),
    }
    found, report = read_set(root, format="ade20k_2021", annotations="dataset", images="dataset", category_map=target)
    assert len(found["categories"]) == 100
    assert {one["category_id"] for one in found["annotations"]} <= set(range(1, 101))
    left = sum(int(one["reason"].split()[0]) for one in report.notes if "left out by category_map" in one["reason"])
    assert left + len(found["annotations"]) == 109
    assert [one["id"] for one in found["annotations"]] == list(range(1, len(found["annotations"]) + 1))


@pytest.mark.shared
def test_ade20k_2016_toy_set_with_parts(read_set: Read, sample: Sample, said: Said) -> None:
    root = sample("toy_datumaro/ade20k2017_dataset")
    keys = {"format": "ade20k_2016", "annotations": ".", "images": "."}
    found, report = read_set(root, **keys)
    names = {one["id"]: one["name"] for one in found["categories"]}
    assert set(names.values()) <= {"sky", "person, individual, someone, somebody, mortal, soul", "car, auto"} | set(
        names.values()
    )
    assert said(report) == ["instance 2: has no class", "instance 2: has no class"]
    with_parts, _ = read_set(root, parts=True, **keys)
    assert len([one for one in with_parts["annotations"] if one.get("part_level")]) == 3


@pytest.mark.shared
def test_ade20k_2016_real_segmentation(tmp_path: Path, read_set: Read, sample: Sample, picture: Picture) -> None:
    """The PNG is real; the photograph and the index of names are built here."""
    path = sample("ade20k_full_2016/ADE_train_00000970_seg.png")
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg" / path.name).write_bytes(path.read_bytes())
    picture(tmp_path / "seg/ADE_train_00000970.jpg", 1024, 768)
    names = np.array([f"class of {n}" for n in range(1, 3149)], dtype=object)
    scipy.io.savemat(tmp_path / "index_ade20k.mat", {"index": {"objectnames": names}})
    found, report = read_set(
        tmp_path, format="ade20k_2016", annotations="seg", images="seg", categories="index_ade20k.mat"
    )
    assert (len(found["annotations"]), report.skipped) == (17, [])
    assert [number(one) for one in found["annotations"]] == list(range(1, 18))
    assert len({one["category_id"] for one in found["annotations"]}) == 6
    assert found["categories"][773] == {"id": 774, "name": "class of 774"}
    (tmp_path / "index_ade20k.mat").write_bytes(b"MATLAB 5.0 nothing")
    with pytest.raises(SegloopError, match="cannot be read as ADE20K's index"):
        read_set(tmp_path, format="ade20k_2016", annotations="seg", images="seg", categories="index_ade20k.mat")


def test_ade20k_2016_descriptions(
    tmp_path: Path, read_set: Read, png: Png, picture: Picture, said: Said, noted: Said
) -> None:
    """Built here: no `_atr.txt` at full scale is among the samples."""
    picture(tmp_path / "urban/street/a.jpg", 6, 2)
    pixels = np.zeros((2, 6, 3), np.uint8)
    pixels[:, :2], pixels[:, 2:4], pixels[:, 4:] = (10, 5, 200), (20, 6, 30), (0, 0, 99)
    png(tmp_path / "urban/street/a_seg.png", pixels)
    (tmp_path / "urban/street/a_atr.txt").write_text(
        '001 # 0 # 1 # door, double door # door # "open, old"\n\nnonsense\n002 # 0 # 0 # C # not a comment # c # ""\n',
    )
    found, report = read_set(tmp_path, format="ade20k_2016", annotations=".", images=".")
    assert found["images"][0]["file_name"].endswith("urban/street/a.jpg")
    # Rank 1 is the B of 30.
    first, third = found["annotations"]
    assert (number(first), first["category_id"], first["occluded"], first["attributes"]) == (
        1,
        518,
        True,
        ["open", "old"],
    )
    assert (number(third), third["category_id"]) == (3, 261)
    assert {one["id"]: one["name"] for one in found["categories"]} == {518: "door, double door", 261: "class 261"}
    assert said(report) == ["line 3: 'nonsense' is no description of an instance", "instance 2: has no class"]
    assert any("has 3 instances, its _atr.txt has 2" in one for one in noted(report))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not valid JSON"),
        ("[]", "has no annotation.object"),
        ('{"annotation": {"object": 3}}', "has no annotation"),
    ],
)
def test_ade20k_2021_json_that_cannot_be_used(
    tmp_path: Path, read_set: Read, picture: Picture, said: Said, content: str, reason: str
) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_text(content)
    found, report = read_set(tmp_path, format="ade20k_2021", annotations=".", images=".")
    assert found["images"] == []
    assert reason in said(report)[0]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        ({"id": 3, "name": "door", "name_ndx": 774, "instance_mask": "../../etc/passwd"}, "leads out"),
        ({"id": 3, "name": "door", "name_ndx": 774, "instance_mask": "a/none.png"}, "does not exist"),
        ({"id": 3, "name": "door", "name_ndx": "x", "instance_mask": "a.png"}, "has the class 'x'"),
        ({"id": 3, "name": "door", "name_ndx": 774}, "has the file name None"),
        (7, "is int, not an object"),
    ],
)
def test_ade20k_2021_objects_that_cannot_be_used(
    tmp_path: Path, read_set: Read, picture: Picture, said: Said, one: Any, reason: str
) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_text(json.dumps({"annotation": {"object": [one]}}))
    found, report = read_set(tmp_path, format="ade20k_2021", annotations=".", images=".")
    assert (len(found["images"]), found["annotations"]) == (1, [])
    assert reason in said(report)[0]


# --- other PNGs -------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_scene_parse_150_has_one_mask_for_a_category_and_image(read_set: Read, sample: Sample, shown: Shown) -> None:
    root = sample("sceneparsing150")
    found, report = read_set(
        root,
        format="scene_parse_150",
        annotations="sampleData/annotations",
        images="sampleData/images",
        categories="objectInfo150.txt",
    )
    pairs = [(one["image_id"], one["category_id"]) for one in found["annotations"]]
    assert (len(found["images"]), len(pairs), len(set(pairs)), report.skipped) == (3, 25, 25, [])
    pixels = np.asarray(Image.open(root / "sampleData/annotations/ADE_val_00000001.png"))
    for one in found["annotations"]:
        if one["image_id"] == 1:
            np.testing.assert_array_equal(shown(one), pixels == one["category_id"])


def test_cityscapes_unknown_classes_are_named(
    tmp_path: Path, read_set: Read, png: Png, picture: Picture, said: Said
) -> None:
    """Built here: no Cityscapes file is among the samples."""
    picture(tmp_path / "img/ulm/ulm_2_leftImg8bit.png", 3, 1)
    png(tmp_path / "gt/ulm/ulm_2_gtFine_instanceIds.png", np.array([[26000, 40001, 1000]], np.uint16))
    found, report = read_set(tmp_path, format="cityscapes", annotations="gt", images="img")
    assert [one["source_id"] for one in found["annotations"]] == [26000]
    assert said(report) == [
        "instance 1000: has the unknown category 1",
        "instance 40001: has the unknown category 40",
    ]


def voc(folder: Path, objects: Any, classes: Any) -> None:
    for name, pixels in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        (folder / name).mkdir(exist_ok=True)
        image = Image.fromarray(np.asarray(pixels, np.uint8))
        image.putpalette(list(range(256)) * 3)
        image.save(folder / name / "2007_1.png")


def test_pascal_voc_borders_belong_to_nothing(
    tmp_path: Path, read_set: Read, picture: Picture, said: Said, shown: Shown
) -> None:
    """Built here: no file of Pascal VOC is among the samples."""
    picture(tmp_path / "JPEGImages/2007_1.jpg", 4, 2)
    voc(tmp_path, [[1, 255, 2, 3], [1, 255, 2, 3]], [[15, 255, 12, 0], [15, 15, 15, 0]])
    keys = {"format": "pascal_voc", "annotations": "SegmentationObject", "images": "JPEGImages"}
    found, report = read_set(tmp_path, **keys)
    names = {one["id"]: one["name"] for one in found["categories"]}
    assert [names[one["category_id"]] for one in found["annotations"]] == ["person", "dog"]
    np.testing.assert_array_equal(shown(found["annotations"][0]), [[1, 0, 0, 0]] * 2)
    assert said(report) == ["object 3: has the unknown category 0"]
    Image.new("RGB", (4, 2)).save(tmp_path / "SegmentationObject/2007_1.png")
    found, report = read_set(tmp_path, **keys)
    assert found["images"] == []
    assert "holds colours; the PNGs of Pascal VOC hold palette indices" in said(report)[0]


@pytest.mark.shared
def test_mask_folders_are_those_of_the_data_science_bowl(read_set: Read, sample: Sample, shown: Shown) -> None:
    root = sample("dsb2018")
    found, report = read_set(root, format="mask_folders", annotations="stage1_train")
    assert (len(found["images"]), len(found["annotations"]), report.skipped) == (1, 9, [])
    paths = sorted((root / "stage1_train").glob("*/masks/*.png"))
    for one, path in zip(found["annotations"], paths, strict=True):
        np.testing.assert_array_equal(shown(one), np.asarray(Image.open(path)) > 0)


@pytest.mark.shared
def test_panoptic_things_are_those_of_the_converted_file(read_set: Read, sample: Sample) -> None:
    root = sample("coco")
    keys = {"mask_folder": "sample_data/panoptic_examples", "images": "sample_data/input_images"}
    found, report = read_set(root, format="coco_panoptic", annotations="panoptic_examples.json", **keys)
    theirs, _ = read_set(root, annotations="panoptic_sample.compressed_rle+crowd.json")
    things = {one["id"] for one in found["categories"] if one["isthing"]}

    def known(dataset: dict[str, Any]) -> set[Any]:
        return {
            (one["image_id"], one["category_id"], one["segmentation"]["counts"], one["iscrowd"])
            for one in dataset["annotations"]
            if one["category_id"] in things
        }

    assert known(found) == known(theirs)
    assert report.skipped == []
    assert [one["reason"] for one in report.notes] == ["segments of stuff, left out"]


def test_panoptic_segments_of_one_side_alone_are_named(tmp_path: Path, read_set: Read, png: Png, said: Said) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[0] = (1, 1, 0)
    pixels[1] = (9, 0, 0)
    png(tmp_path / "panoptic/a.png", pixels)
    segments = [{"id": 257, "category_id": 1}, {"id": 5, "category_id": 1}]
    value = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "thing", "isthing": 1}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(value))
    found, report = read_set(tmp_path, format="coco_panoptic", annotations="panoptic.json")
    assert [one["source_id"] for one in found["annotations"]] == [257]
    assert said(report) == [
        "image 1, segment 5: has no pixel in the PNG, or repeats a segment",
        "image 1, segment 9: is in the PNG alone",
    ]


# --- other JSON and text ----------------------------------------------------------------------------------------------


def test_sa1b_masks_are_objects(tmp_path: Path, read_set: Read, picture: Picture, said: Said) -> None:
    """Built here: no SA-1B file is among the samples."""
    picture(tmp_path / "sa_1.jpg")
    good = {"id": 5, "segmentation": masks.to_json(masks.encode(SQUARE)), "predicted_iou": 0.9, "stability_score": 0.95}
    bad = {"id": 6, "segmentation": {"size": [6, 8], "counts": "00"}}
    value = {"image": {"file_name": "sa_1.jpg", "width": 8, "height": 6}, "annotations": [good, bad, good, 3]}
    (tmp_path / "sa_1.json").write_text(json.dumps(value))
    keys = {"format": "sa1b", "annotations": ".", "images": "."}
    found, report = read_set(tmp_path, **keys)
    (one,) = found["annotations"]
    assert (one["category_id"], one["source_id"], one["predicted_iou"], one["area"]) == (1, 5, 0.9, 9)
    assert found["categories"] == [{"id": 1, "name": "object"}]
    assert [line.split(":")[0] for line in said(report)] == ["annotation 6", "annotation 5", "annotations[3]"]
    value["image"]["file_name"] = "sa_2.jpg"  # type: ignore[index,call-overload]
    (tmp_path / "sa_1.json").write_text(json.dumps(value))
    _, report = read_set(tmp_path, **keys)
    assert "is about the image 'sa_2.jpg', not about sa_1.jpg" in said(report)[0]


@pytest.mark.parametrize("names", ["names: [cat, dog]\n", "names:\n  0: cat\n  1: dog\n"])
def test_yolo_outlines(tmp_path: Path, read_set: Read, picture: Picture, said: Said, shown: Shown, names: str) -> None:
    """Built here: no YOLO file is among the samples."""
    picture(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text(
        "1 0.25 0.16666667 0.625 0.16666667 0.625 0.66666667 0.25 0.66666667\n\n0 0.5 0.5 0.2 0.2\n7 0 0 1 0 1 1\n"
        "0 0 0 nan 0 1 1\n0 0 0 640 0 1 1\n0 0 0 x 0 1 1\n0 0 0 1\n"
    )
    (tmp_path / "data.yaml").write_text(names)
    found, report = read_set(
        tmp_path, format="yolo", annotations="labels/train", images="images/train", categories="data.yaml"
    )
    (one,) = found["annotations"]
    assert (one["category_id"], found["categories"][1]["name"]) == (1, "dog")
    np.testing.assert_array_equal(shown(one), SQUARE)
    reasons = dict(line.split(": ", 1) for line in said(report))
    assert reasons == {
        "line 3": "is a box, not an outline",
        "line 4": "has the unknown class '7'",
        "line 5": "has coordinates that are no shares of the image's sides",
        "line 6": "has coordinates that are no shares of the image's sides",
        "line 7": "has a coordinate that is no number (could not convert string to float: 'x')",
        "line 8": "has a polygon (part 0) of fewer than three points",
    }


@pytest.mark.parametrize("content", ["names: 3\n", "{", "train: x\n", "names: {a: cat}\n"])
def test_yolo_names_that_are_none(tmp_path: Path, read_set: Read, content: str) -> None:
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(SegloopError, match=r"data\.yaml"):
        read_set(tmp_path, format="yolo", annotations=".", categories="data.yaml")


def open_images(folder: Path, rows: list[str], header: str = "MaskPath,ImageID,LabelName") -> dict[str, str]:
    (folder / "classes.csv").write_text("LabelName,DisplayName\n/m/0x,Cat\n/m/0y,Dog\n")
    (folder / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "masks").mkdir(exist_ok=True)
    return {"format": "open_images", "annotations": "train.csv", "mask_folder": "masks", "categories": "classes.csv"}


def test_open_images_rows_in_any_order_and_bad_ones_named(
    tmp_path: Path, read_set: Read, png: Png, picture: Picture, said: Said
) -> None:
    """Built here: no Open Images file is among the samples."""
    for name in ("1b", "0a"):
        picture(tmp_path / f"images/train_{name[0]}/{name}.jpg")
        png(tmp_path / f"masks/train-masks-{name[0]}/{name}.png", SQUARE)
    png(tmp_path / "masks/tall.png", np.ones((8, 6), bool))
    keys = open_images(
        tmp_path,
        [
            "1b.png,1b,/m/0y",
            "0a.png,0a,/m/0x",
            "1b.png,1b",
            "1b.png,1b,/m/0z",
            "../x.png,1b,/m/0x",
            "tall.png,1b,/m/0x",
            "none.png,0a,/m/0x",
            "c.png,2c,/m/0x",
        ],
    )
    found, report = read_set(tmp_path, **keys)
    assert [one["image_name"] for one in found["images"]] == ["0a", "1b"]
    assert [(one["image_id"], one["category_id"], one["area"]) for one in found["annotations"]] == [
        (1, 1, 9),
        (2, 2, 9),
    ]
    assert found["categories"][0] == {"id": 1, "name": "Cat", "label": "/m/0x"}
    text = "\n".join(said(report))
    for reason in (
        "2 cells, not 3",
        "label '/m/0z'",
        "leads out",
        "has 6 x 8 pixels",
        "none.png does not exist",
        "image 2c",
    ):
        assert reason in text, reason
    assert len(report.skipped) == 6


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "MaskPath,ImageID", "no column LabelName"),
        ([], "", "no column MaskPath"),
        (['"open'], "MaskPath,ImageID,LabelName", ""),
    ],
)
def test_open_images_tables_that_are_none(
    tmp_path: Path, read_set: Read, picture: Picture, rows: list[str], header: str, message: str
) -> None:
    picture(tmp_path / "images/0a.jpg")
    keys = open_images(tmp_path, rows, header)
    try:
        found, report = read_set(tmp_path, **keys)
    except SegloopError as error:
        assert message in str(error)
    else:
        assert found["annotations"] == []
        assert message == ""
        assert report.skipped


def test_bundles_of_one_folder_are_read_once_and_without_what_was_refused(
    tmp_path: Path, read_set: Read, noted: Said
) -> None:
    def one(number: int, **more: Any) -> dict[str, Any]:
        rle = masks.to_json(masks.encode(SQUARE))
        return {"id": number, "image_id": 9, "category_id": 59, "segmentation": rle, "score": 0.5} | more

    image = {"id": 9, "file_name": "c/hall/a.jpg", "width": 8, "height": 6}
    base = {"images": [image], "categories": [{"id": 59, "name": "potted plant"}]}
    accepted = {"completed_task": {"type": "yesno", "accepted": True, "annotationTime": 900}}
    refused = {"completed_task": {"type": "yesno", "accepted": False, "annotationTime": 900}}
    (tmp_path / "a.json").write_text(json.dumps(base | {"annotations": [one(1, **accepted), one(2, **refused)]}))
    (tmp_path / "b.json").write_text(json.dumps(base | {"annotations": [one(1), one(3)]}))
    found, report = read_set(tmp_path, format="question_bundle", annotations=".")
    assert [number(one) for one in found["annotations"]] == [1, 3]
    assert all("completed_task" not in one for one in found["annotations"])
    assert len(found["images"]) == 1
    assert sorted(noted(report)) == [
        "1 records: masks that a person did not accept, left out",
        "1 records: masks that an earlier bundle has, too, read once",
    ]
    (tmp_path / "c.json").write_text(json.dumps(base | {"annotations": [], "categories": [{"id": 59, "name": "cat"}]}))
    with pytest.raises(SegloopError, match="calls category 59 'cat', another bundle 'potted plant'"):
        read_set(tmp_path, format="question_bundle", annotations=".")


def test_lvis_v1_has_urls_alone(tmp_path: Path, read_set: Read) -> None:
    """Built here: no file of LVIS v1 is among the samples."""
    url = "http://images.cocodataset.org/train2017/000000391895.jpg"
    image = {"id": 391895, "coco_url": url, "width": 8, "height": 6, "neg_category_ids": [2]}
    image |= {"not_exhaustive_category_ids": []}
    one = {"id": 1, "image_id": 391895, "category_id": 1, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]]}
    category = {"id": 1, "name": "acorn", "synset": "acorn.n.01", "frequency": "r", "synonyms": ["acorn"], "def": "nut"}
    value = {"images": [image], "annotations": [one], "categories": [category]}
    (tmp_path / "lvis_v1_train.json").write_text(json.dumps(value))
    found, report = read_set(tmp_path, format="lvis", annotations="lvis_v1_train.json")
    assert report.skipped == []
    assert found["images"][0]["file_name"].endswith("images/train2017/000000391895.jpg")
    assert found["images"][0]["neg_category_ids"] == [2]
    assert found["categories"] == [category]


def test_polygons_may_stay_polygons(tmp_path: Path, read_set: Read, said: Said) -> None:
    polygon = [[2, 1, 5, 1, 5, 4, 2, 4]]
    image = {"id": 1, "file_name": "a.png", "width": 8, "height": 6}
    base = {"image_id": 1, "category_id": 1}
    value = {
        "images": [image],
        "annotations": [
            base | {"id": 1, "segmentation": polygon, "area": 8.5, "bbox": [2, 1, 3, 3], "score": 0.5},
            base | {"id": 2, "segmentation": [[1, 2]]},
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(value))
    found, report = read_set(tmp_path, {"rasterise": False, "extra": ("score",)})
    (one,) = found["annotations"]
    assert (one["segmentation"], one["area"], one["bbox"], one["score"]) == (polygon, 8.5, [2, 1, 3, 3], 0.5)
    assert len(report.skipped) == 1


# --- what of a set is read --------------------------------------------------------------------------------------------


def scenes(folder: Path, picture: Picture, names: list[str]) -> dict[str, str]:
    """Write a set like the Places Challenge with one instance an image."""
    for name in names:
        picture(folder / f"images/{name}.jpg")
        write_instance_png(folder / f"png/{name}.png", [(1, SQUARE)], (6, 8))
    (folder / "table.txt").write_text("1\tthing\n")
    return {"format": "places_challenge", "annotations": "png", "categories": "table.txt"}


def ids(dataset: dict[str, Any]) -> set[int]:
    return {one["id"] for one in dataset["images"]}


def test_halves_are_apart_and_together_all(tmp_path: Path, read_set: Read, picture: Picture) -> None:
    keys = scenes(tmp_path, picture, [f"{n:03}" for n in range(40)])
    everything = ids(read_set(tmp_path, **keys)[0])
    halves = [ids(read_set(tmp_path, split={"part": part}, **keys)[0]) for part in "AB"]
    assert halves[0] | halves[1] == everything
    assert not halves[0] & halves[1]
    assert 10 < len(halves[0]) < 30
    assert halves[0] != ids(read_set(tmp_path, split={"part": "A", "seed": 1}, **keys)[0])
    # A picture that is gone moves no other one.
    (tmp_path / "png/000.png").unlink()
    stems = {Path(one["file_name"]).stem for one in read_set(tmp_path, split={"part": "A"}, **keys)[0]["images"]}
    assert stems == {f"{number - 1:03}" for number in halves[0]} - {"000"}


def test_a_part_reports_only_its_own_records(tmp_path: Path, read_set: Read, picture: Picture) -> None:
    keys = scenes(tmp_path, picture, [f"{n:03}" for n in range(12)])
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    skipped = [{one["record"] for one in read_set(tmp_path, split={"part": p}, **keys)[1].skipped} for p in "AB"]
    assert not skipped[0] & skipped[1]
    assert len(skipped[0] | skipped[1]) == 12


def test_coco_images_of_the_other_part_are_no_errors(tmp_path: Path, read_set: Read) -> None:
    polygon = [[2, 1, 5, 1, 5, 4, 2, 4]]
    value = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 6} for n in range(20)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "segmentation": polygon} for n in range(20)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(value))
    parts = [read_set(tmp_path, split={"part": part, "shares": [0.2, 0.3, 0.5]}) for part in "ABC"]
    assert sorted(number for found, _ in parts for number in ids(found)) == list(range(20))
    assert all(len(found["annotations"]) == len(found["images"]) for found, _ in parts)
    assert all(report.skipped == [] for _, report in parts)


def test_groups_stay_together(tmp_path: Path, read_set: Read, picture: Picture) -> None:
    keys = scenes(tmp_path, picture, [f"{n:03}" for n in range(30)])
    (tmp_path / "scenes.txt").write_text("".join(f"{n:03}.jpg scene {n % 6}\n" for n in range(30)))
    split = {"by": "table", "table": "scenes.txt", "part": "B"}
    found = ids(read_set(tmp_path, split=split, **keys)[0])
    assert {number % 6 for number in found} & {n % 6 for n in set(range(1, 31)) - found} == set()
    assert len(found) % 5 == 0
    (tmp_path / "scenes.txt").write_text("001 a\n")
    with pytest.raises(SegloopError, match=r"scenes\.txt has no line for 000"):
        read_set(tmp_path, split=split, **keys)


def test_folders_stay_together(tmp_path: Path, read_set: Read) -> None:
    value = {
        "images": [{"id": n, "file_name": f"{n % 7}/{n}.png", "width": 8, "height": 6} for n in range(70)],
        "annotations": [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(value))
    found = ids(read_set(tmp_path, split={"by": "folder"})[0])
    assert 0 < len(found) < 70
    assert {n % 7 for n in found} & {n % 7 for n in set(range(70)) - found} == set()


def test_parts_have_their_shares() -> None:
    parts = np.bincount([part_of(f"image {n}", (0.5, 0.3, 0.2), 3) for n in range(20_000)])
    np.testing.assert_allclose(parts / 20_000, (0.5, 0.3, 0.2), atol=0.015)


@pytest.mark.parametrize(
    "values",
    [{"shares": [0.5, 0.4]}, {"part": "C"}, {"by": "table"}, {"table": "x"}, {"shares": [1.0]}, {"part": "a"}],
)
def test_splits_that_cannot_be_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SplitConfig.model_validate(values)


def test_a_list_chooses_images_with_or_without_folder_and_suffix(
    tmp_path: Path, read_set: Read, picture: Picture
) -> None:
    keys = scenes(tmp_path, picture, ["a", "b.c", "d", "e"])
    (tmp_path / "list.txt").write_text("a.jpg\n\n/b.c\nd\n")
    found, _ = read_set(tmp_path, image_list="list.txt", **keys)
    assert [Path(one["file_name"]).stem for one in found["images"]] == ["a", "b.c", "d"]
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(SegloopError, match="is empty"):
        read_set(tmp_path, image_list="list.txt", **keys)


def test_writing_while_reading_gives_what_reading_at_once_gives(tmp_path: Path, picture: Picture) -> None:
    keys = scenes(tmp_path, picture, ["a", "b"])

    def opened() -> Any:
        config = LabelledSetConfig.model_validate(keys)
        return open_dataset(config, data_root=tmp_path, report=SkipReport(None, 0.0))

    write_labelled_set(tmp_path / "out.json", opened())
    assert read_json(tmp_path / "out.json") == whole(opened())

    def refuse(images: int, annotations: int) -> None:
        raise SegloopError(f"{images} and {annotations}")

    with pytest.raises(SegloopError, match="2 and 2"):
        write_labelled_set(tmp_path / "none.json", opened(), refuse)
    assert not (tmp_path / "none.json").exists()


# --- guessing ---------------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ade20k_2021_17_01/dataset", "ade20k_2021"),
        ("toy_datumaro/ade20k2017_dataset", "ade20k_2016"),
        ("coco/coco128_instances_train2017.polygon+uncompressed_rle_crowd.json", "coco"),
        ("coco/panoptic_examples.json", "coco_panoptic"),
        ("lvis/lvis_val_100.json", "lvis"),
        ("thesis_yn_bundle", "question_bundle"),
        ("dsb2018/stage1_train", "mask_folders"),
    ],
)
def test_real_sets_are_recognised(sample: Sample, name: str, word: str) -> None:
    assert guess_format(sample(name)).format == word


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"info": {}}')
    (tmp_path / "b.json").write_text("[]")
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.json", "no format that can be told"),
        ("b.json", "Use format coco_results"),
        ("c.txt", "no format that can be told"),
        ("empty", "no format that can be told"),
        ("none", "does not exist"),
    ):
        with pytest.raises(SegloopError, match=message):
            guess_format(tmp_path / name)


def test_built_sets_are_recognised(tmp_path: Path, png: Png) -> None:
    png(tmp_path / "gtFine/ulm/x_gtFine_instanceIds.png", np.zeros((1, 1), np.uint16))
    (tmp_path / "leftImg8bit").mkdir()
    found = guess_format(tmp_path / "gtFine")
    assert (found.format, found.images) == ("cityscapes", str(tmp_path / "leftImg8bit"))
    png(tmp_path / "voc/SegmentationObject/x.png", np.zeros((1, 1), np.uint8))
    found = guess_format(tmp_path / "voc")
    assert (found.format, found.images) == ("pascal_voc", str(tmp_path / "voc/JPEGImages"))
    assert guess_format(tmp_path / "voc/SegmentationObject") == found
    (tmp_path / "yolo/labels/train").mkdir(parents=True)
    (tmp_path / "yolo/labels/train/a.txt").write_text("")
    (tmp_path / "yolo/data.yaml").write_text("names: [a]")
    found = guess_format(tmp_path / "yolo")
    assert (found.format, found.annotations) == ("yolo", str(tmp_path / "yolo/labels"))
    assert (found.images, found.categories) == (str(tmp_path / "yolo/images"), str(tmp_path / "yolo/data.yaml"))
    (tmp_path / "sa").mkdir()
    (tmp_path / "sa/sa_1.json").write_text("{}")
    assert guess_format(tmp_path / "sa").format == "sa1b"
