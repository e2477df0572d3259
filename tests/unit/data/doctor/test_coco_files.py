import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segloop.data import masks
from segloop.data.coco import read_coco
from segloop.data.doctor.coco_files import examine_coco
from segloop.data.doctor.findings import Examination, Status
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

HEIGHT, WIDTH = 20, 30


def rle(top: int = 2, left: int = 3, bottom: int = 9, right: int = 14) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return masks.to_json(masks.encode(mask))


def good(number: int, image: int = 1, **more: Any) -> dict[str, Any]:
    box = {"area": 77, "bbox": [3, 2, 11, 7]}
    return {"id": number, "image_id": image, "category_id": 4, "segmentation": rle(), "iscrowd": 0, **box} | more


def dataset(*annotations: Any, **more: Any) -> dict[str, Any]:
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in (1, 2)]
    return {"images": images, "categories": [{"id": 4, "name": "cat"}], "annotations": list(annotations)} | more


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., Examination]:
    """Write a data set and examine it; the repaired copy is `repaired.json`."""

    def run(value: Any, **how: Any) -> Examination:
        path = tmp_path / "set.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        before = hashlib.sha256(path.read_bytes()).digest()
        (tmp_path / "repaired.json").unlink(missing_ok=True)
        settings = {"form": "coco", "images": None, "repaired": tmp_path / "repaired.json"} | how
        found = examine_coco(path, **settings)
        assert hashlib.sha256(path.read_bytes()).digest() == before
        return found

    return run


def reasons(found: Examination) -> list[tuple[str, str]]:
    return [(one.record, one.reason) for one in found.bad + found.odd]


def repaired(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "repaired.json").read_text())  # type: ignore[no-any-return]


def test_a_sound_set_is_usable(examine: Callable[..., Examination], tmp_path: Path) -> None:
    value = dataset(good(1), good(2, 2), licenses=[{"id": 1}], info={"year": 2019})
    found = examine(value)
    assert found.status is Status.USABLE and reasons(found) == []
    assert (found.usable_images, found.usable_annotations) == (2, 2)
    assert repaired(tmp_path) == value


BROKEN: dict[str, tuple[Any, str]] = {
    "no object": (7, "is int, not an object"),
    "unknown image": (good(5, 99), "belongs to the image 99, which is not listed"),
    "no image": ({"id": 5}, "belongs to the image None"),
    "unknown category": (good(5, category_id=9), "has the unknown category 9"),
    "no segmentation": (good(5, segmentation=None), "has no segmentation"),
    "runs too short": (good(5, segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 7, 9]}), "runs that sum to 21"),
    "text cut off": (good(5, segmentation={"size": [HEIGHT, WIDTH], "counts": "0o"}), "end in the middle of a number"),
    "other alphabet": (good(5, segmentation={"size": [HEIGHT, WIDTH], "counts": "!!"}), "outside the RLE alphabet"),
    "another size": (good(5, segmentation={"size": [9, 9], "counts": [40, 41]}), "size 9 x 9, the image has 20 x 30"),
    "negative run": (good(5, segmentation={"size": [HEIGHT, WIDTH], "counts": [700, -100]}), "has a negative run"),
    "empty": (good(5, segmentation={"size": [HEIGHT, WIDTH], "counts": [600]}), "has an empty mask"),
    "outside": (good(5, segmentation=[[100, 100, 110, 100, 110, 110]]), "has an empty mask"),
    "two points": (good(5, segmentation=[[1, 1, 5, 5]]), "fewer than three points"),
    "odd polygon": (good(5, segmentation=[[1, 1, 5, 5, 9, 1, 3]]), "odd number of coordinates"),
    "text in polygon": (good(5, segmentation=[["1", 1, 5, 5, 9, 1]]), "with the coordinate '1'"),
    "no polygon": (good(5, segmentation=[]), "has no polygon"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_annotation_is_named_and_the_rest_is_usable(
    case: str, examine: Callable[..., Examination], tmp_path: Path
) -> None:
    record, reason = BROKEN[case]
    found = examine(dataset(good(1), record, good(3)))
    (bad,) = found.bad
    assert reason in bad.reason
    assert bad.record == ("annotation 5" if isinstance(record, dict) else "annotations[1]")
    assert found.status is Status.USABLE_IN_PART
    assert (found.annotations, found.usable_annotations) == (3, 2)
    assert [one["id"] for one in repaired(tmp_path)["annotations"]] == [1, 3]


ODD: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "id 0": ({"id": 0}, "has the id 0, which COCOeval takes for unmatched", {"id": 8}),
    "no id": ({"id": None}, "has the id None", {"id": 8}),
    "id as text": ({"id": "5"}, "has the id '5', which is no whole number", {"id": 5}),
    "id as float": ({"id": 5.0}, "has the id 5.0, which is no whole number", {"id": 5}),
    "image id as text": ({"image_id": "2"}, "has the image_id '2'", {"image_id": 2}),
    "category id as text": ({"category_id": " 4"}, "has the category_id ' 4'", {"category_id": 4}),
    "crowd as text": ({"iscrowd": "1"}, "has iscrowd '1', which is neither 0 nor 1", {"iscrowd": 1}),
    "crowd as truth value": ({"iscrowd": False}, "has iscrowd False", {"iscrowd": 0}),
    "area of the box": ({"area": 7700}, "has the area 7700, its mask has 77 pixels", {"area": 77}),
    "area NaN": ({"area": float("nan")}, "has the area nan", {"area": 77}),
    "box elsewhere": ({"bbox": [9, 2, 11, 7]}, "has the box [9, 2, 11, 7]", {"bbox": [3, 2, 11, 7]}),
    "box of three": ({"bbox": [9, 2, 11]}, "has the box [9, 2, 11]", {"bbox": [3, 2, 11, 7]}),
    "score NaN": ({"score": float("nan")}, "has the score nan, which is no finite number", {"score": None}),
    "score of two": ({"score": 2}, "has the score 2 outside 0..1", {"score": 2}),
}


@pytest.mark.parametrize("case", ODD)
def test_oddities_are_named_and_repaired(case: str, examine: Callable[..., Examination], tmp_path: Path) -> None:
    change, reason, after = ODD[case]
    found = examine(dataset(good(7), good(5) | change))
    (odd,) = found.odd
    assert odd.reason.startswith(reason) and found.bad == []
    assert found.status is Status.USABLE and found.usable_annotations == 2
    record = repaired(tmp_path)["annotations"][1]
    assert {key: record.get(key) for key in after} == after
    assert json.loads(json.dumps(record)) == record


def test_what_is_certain_is_repaired(examine: Callable[..., Examination], tmp_path: Path) -> None:
    swapped = good(2, segmentation=rle() | {"size": [WIDTH, HEIGHT]})
    guessed = good(3, segmentation=rle() | {"size": [WIDTH, HEIGHT]}, bbox=[0, 0, 1, 1])
    runs = [3 * HEIGHT + 2, 7, *[13, 7] * 10]
    cut = good(4, segmentation={"size": [HEIGHT, WIDTH], "counts": runs})
    parts = good(5, segmentation=[[1, 1, 4, 4], [3, 2, 14, 2, 14, 9, 3, 9]])
    found = examine(dataset(good(1), swapped, guessed, cut, parts))
    assert [(one.record, one.repair) for one in found.bad] == [
        ("annotation 2", "height and width swapped back"),
        ("annotation 3", "left out"),
        ("annotation 4", "last run of zeros added"),
        ("annotation 5", "1 unusable parts left out"),
    ]
    assert found.usable_annotations == 1
    copied = repaired(tmp_path)
    assert [one["id"] for one in copied["annotations"]] == [1, 2, 4, 5]
    report = SkipReport(None, 1.0)
    read = read_coco(tmp_path / "repaired.json", tmp_path, report)
    assert report.skipped == []
    assert [one["segmentation"] for one in read["annotations"]] == [rle()] * 4


def test_ids_that_are_taken(examine: Callable[..., Examination], tmp_path: Path) -> None:
    found = examine(dataset(good(6), good(6), good(6, 2), good(9)))
    assert [(one.record, one.reason, one.repair) for one in found.bad] == [
        ("annotation 6", "repeats the annotation with its id", "left out"),
        ("annotation 6", "has the id of another annotation", "numbered 10"),
    ]
    assert [(one["id"], one["image_id"]) for one in repaired(tmp_path)["annotations"]] == [(6, 1), (10, 2), (9, 1)]


def test_images_and_categories(examine: Callable[..., Examination], tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT},
        {"id": 1, "file_name": "other.png", "width": WIDTH, "height": HEIGHT},
        {"id": "2", "file_name": "2.png", "width": WIDTH, "height": HEIGHT},
        {"id": 3, "file_name": "../../3.png", "width": WIDTH, "height": HEIGHT},
        {"id": 4, "file_name": "/etc/4.png", "width": WIDTH, "height": HEIGHT},
        {"id": 5, "file_name": None, "width": WIDTH, "height": HEIGHT},
        {"id": 6, "file_name": "6.png", "width": 10**6, "height": 10**6},
        {"id": 7, "file_name": "1.png", "width": WIDTH, "height": HEIGHT},
        {"id": None, "file_name": "8.png"},
        {"id": 9, "file_name": "9.png"},
        12,
    ]
    categories = [{"id": 4, "name": " cat  "}, {"id": "5", "name": "CAT"}]
    found = examine(dataset(good(1), good(2, 3), good(3, 2), images=images, categories=categories))
    assert [(one.record, one.reason) for one in found.bad] == [
        ("image 1", "has the id of another image"),
        ("image 3", "has the file name '../../3.png', which leads out of the image folder"),
        ("image 4", "has the file name '/etc/4.png', which leads out of the image folder"),
        ("image 5", "has the file name None"),
        ("image 6", "has 1000000 x 1000000 pixels, more than the limit of 178956970"),
        ("images[8]", "has no usable id: {'id': None, 'file_name': '8.png'}"),
        ("images[10]", "has no usable id: 12"),
        ("image 9", "has no size, and there is no file to take it from"),
        ("annotation 2", "belongs to the image 3, which is not listed or was skipped"),
    ]
    assert [(one.record, one.reason) for one in found.odd] == [
        ("category 4", "has the name ' cat  ' with blanks around it"),
        ("category 5", "has the id '5', which is no whole number"),
        ("category 5", "has the name 'CAT' of category 4"),
        ("image 2", "has the id '2', which is no whole number"),
        ("image 7", "has the file name '1.png' of image 1"),
    ]
    assert (found.images, found.usable_images) == (11, 3)
    copied = repaired(tmp_path)
    assert [one["id"] for one in copied["images"]] == [1, 2, 7]
    assert copied["categories"] == [{"id": 4, "name": "cat"}, {"id": 5, "name": "CAT"}]


FATAL = {
    "no file of this kind": ({"images": []}, "without lists of images and annotations"),
    "a list": ([], "a list, as results files are"),
    "no JSON": ("{", "not valid JSON"),
    "no categories": (dataset(good(1), categories=[]), "it has no categories"),
    "a category twice": (dataset(good(1), categories=[{"id": 4, "name": "a"}, {"id": 4, "name": "b"}]), "has the id"),
    "a category without name": (dataset(good(1), categories=[{"id": 4}]), "has the name None"),
    "no usable mask": (dataset(BROKEN["empty"][0]), ""),
    "no usable image": (dataset(images=[{"id": 1}]), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", FATAL)
def test_a_set_that_is_not_usable(case: str, examine: Callable[..., Examination], tmp_path: Path) -> None:
    value, reason = FATAL[case]
    found = examine(value)
    assert found.status is Status.UNUSABLE
    assert reason in (found.fatal or "")
    report = SkipReport(None, 1.0)
    try:
        read = read_coco(tmp_path / "set.json", tmp_path, report)
    except SegloopError:
        return
    assert not read["annotations"] and report.skipped, "the reader agrees"


@pytest.mark.parametrize("case", ["no categories", "a category twice", "a category without name"])
def test_a_repaired_copy_of_a_set_without_usable_categories(
    case: str, examine: Callable[..., Examination], tmp_path: Path
) -> None:
    examine(FATAL[case][0])
    again = examine_coco(tmp_path / "repaired.json", "coco", images=None)
    assert again.status is Status.USABLE and again.usable_annotations == 1


def write_images(folder: Path) -> None:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for number in (1, 2, 3, 4):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    Image.fromarray(pixels).save(folder / "2.png", format="JPEG")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:-100])
    Image.fromarray(pixels).rotate(90, expand=True).save(folder / "3.png")


def test_images_are_decoded_and_measured(examine: Callable[..., Examination], tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in (1, 2, 3, 5)]
    images.append({"id": 4, "file_name": "4.png"})  # type: ignore[dict-item]
    value = dataset(*(good(n, n) for n in (1, 2, 3, 4, 5)), images=images)
    found = examine(value, images=tmp_path / "images")
    bad = [(one.record, one.reason.replace(str(tmp_path), "")) for one in found.bad]
    assert bad[0][0] == "image 2" and "cannot be read as an image" in bad[0][1]
    assert bad[1:] == [
        ("image 3", "has 20 x 30 pixels; width and height are swapped"),
        ("image 5", "/images/5.png does not exist"),
        ("annotation 2", "belongs to the image 2, which is not listed or was skipped"),
        ("annotation 3", "has size 20 x 30, the image has 30 x 20; height and width are swapped"),
        ("annotation 5", "belongs to the image 5, which is not listed or was skipped"),
    ]
    assert [(one.record, one.reason) for one in found.odd] == [("image 4", "has no size in the file of annotations")]
    assert (found.usable_images, found.usable_annotations) == (2, 2)
    report = SkipReport(None, 1.0)
    read = read_coco(tmp_path / "repaired.json", tmp_path / "images", report, check_images=True)
    assert (report.skipped == [] and [one["id"] for one in read["images"]] == [1, 4]) or len(read["images"]) == 3
    # Heads alone do not tell that the second image is cut off; without a look at files nothing is known of them.
    assert examine(value, images=tmp_path / "images", check="head").usable_images == 3
    assert examine(value, images=tmp_path / "images", check="none").unchecked != []


def test_a_guessed_folder_counts_only_if_it_holds_an_image_of_the_set(
    examine: Callable[..., Examination], tmp_path: Path
) -> None:
    write_images(tmp_path / "images")
    named = dataset(good(1), images=[{"id": 1, "file_name": "elsewhere.png", "width": WIDTH, "height": HEIGHT}])
    assert examine(named, images=tmp_path / "images", images_are_there=False).status is Status.USABLE
    assert examine(named, images=tmp_path / "images").status is Status.UNUSABLE
    here = examine(dataset(good(1)), images=tmp_path / "images", images_are_there=False)
    assert here.unchecked == [] and here.usable_images == 1


def test_results_files(examine: Callable[..., Examination], tmp_path: Path) -> None:
    def result(image: int = 1, **more: Any) -> dict[str, Any]:
        return {"image_id": image, "category_id": 4, "segmentation": rle(), "score": 0.5} | more

    broken = [
        result(9),
        result(score=float("nan")),
        result(score=None),
        result(segmentation={"size": [2, 2], "counts": "0"}),
    ]
    catalogue = tmp_path / "truth.json"
    catalogue.write_text(json.dumps(dataset()))
    found = examine([result(), *broken], form="coco_results", catalogue=catalogue)
    assert [one.record for one in found.bad] == [f"results[{place}]" for place in (1, 2, 3, 4)]
    assert found.status is Status.USABLE_IN_PART and found.usable_annotations == 1
    assert repaired(tmp_path) == [result()]
    alone = examine([result(), *broken], form="coco_results")
    assert [one.record for one in alone.bad] == [f"results[{place}]" for place in (2, 3, 4)]
    assert examine(dataset(), form="coco_results").status is Status.UNUSABLE


changes = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["id", "image_id", "category_id", "segmentation", "iscrowd", "area", "bbox", "score"]),
        st.one_of(
            st.none(), st.booleans(), st.integers(-2, 7), st.text(max_size=3), st.floats(), st.just([]), st.just({}),
            st.just(rle()), st.just([[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]]), st.just({"size": [20, 30], "counts": [600]}),
        ),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_doctor_and_reader_agree_and_the_copy_is_sound(
    examine: Callable[..., Examination], tmp_path: Path, changed: list[tuple[int, str, Any]]
) -> None:
    value = copy.deepcopy(dataset(*(good(n, 1 + n % 2) for n in range(6))))
    for place, key, what in changed:
        value["annotations"][place][key] = what
    found = examine(value)
    report = SkipReport(None, 1.0)
    read = read_coco(tmp_path / "set.json", tmp_path, report)
    assert len(read["annotations"]) == found.usable_annotations
    assert (found.status is Status.USABLE) == (report.skipped == [])
    again = examine_coco(tmp_path / "repaired.json", "coco", images=None)
    # What has no certain remedy (a name that two share) may stay odd; nothing is bad.
    assert again.bad == [] and again.usable_annotations >= found.usable_annotations
    assert [one for one in again.odd if one.repair] == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "image_id", "category_id", "segmentation", "counts", "size", "bbox", "area", "name", "file_name",
                 "width", "height", "score", "iscrowd", "coco_url", "images", "annotations", "categories"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(anything, max_size=3), st.lists(anything, max_size=3), st.lists(anything, max_size=4), st.booleans())
def test_any_records_are_examined_without_an_error(
    examine: Callable[..., Examination],
    tmp_path: Path,
    images: list[Any],
    categories: list[Any],
    annotations: list[Any],
    results: bool,
) -> None:
    value = dataset(*annotations, good(3))
    value["images"] += images
    value["categories"] += categories
    found = examine(annotations if results else value, form="coco_results" if results else "coco")
    json.dumps(found.record())
    found.text(None).encode("utf-8", "backslashreplace")
    if found.fatal is None:
        json.loads((tmp_path / "repaired.json").read_text())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 600), st.binary(min_size=1, max_size=3))
def test_any_damage_to_the_file_is_a_finding(
    examine: Callable[..., Examination], tmp_path: Path, place: int, bytes_: bytes
) -> None:
    whole = json.dumps(dataset(good(1), good(2))).encode()
    place %= len(whole)
    path = tmp_path / "damaged.json"
    path.write_bytes(whole[:place] + bytes_ + whole[place + len(bytes_) :])
    found = examine_coco(path, "coco", images=None)
    assert found.status in set(Status)
    # Half a file is no file.
    path.write_bytes(whole[:place])
    assert examine_coco(path, "coco", images=None).status is Status.UNUSABLE
