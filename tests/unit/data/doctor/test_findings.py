from pathlib import Path

import pytest

from segloop.data.doctor.findings import STATUS_WORDS, Examination, Finding, Status


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("has runs that sum to 21, its size is 20 x 3", "has runs that sum to N, its size is N x N"),
        ("has the file name '../a b.jpg', which leads out", "has the file name ..., which leads out"),
        ("/data/x y/1.jpg does not exist", "... does not exist"),
        ("has the box [1, 2.5, nan, 4], its mask has [1.0]", "has the box ..., its mask has ..."),
        ("has the score nan, which is no finite number", "has the score N, which is no finite number"),
        ("has the name \"it's\" of category 7", "has the name ... of category N"),
    ],
)  # fmt: skip
def test_reasons_that_differ_by_numbers_and_names_are_one_kind(reason: str, kind: str) -> None:
    assert Finding("f", "r", reason).kind == kind


def made(**known: int) -> Examination:
    return Examination(Path("set.json"), "coco", **known)


def test_the_verdict() -> None:
    full = {"images": 2, "annotations": 3, "usable_images": 2}
    assert made(**full, usable_annotations=3).status is Status.USABLE
    part = made(**full, usable_annotations=1)
    part.bad.append(Finding("set.json", "annotation 3", "is empty"))
    assert part.status is Status.USABLE_IN_PART
    assert made(**full, usable_annotations=0).status is Status.UNUSABLE
    assert made(images=2, annotations=0, usable_images=2).status is Status.USABLE, "a list of images is a set"
    assert made(images=2, annotations=0, usable_images=0).status is Status.UNUSABLE
    broken = made(**full, usable_annotations=3)
    broken.fatal = "two categories have the id 4"
    assert broken.status is Status.UNUSABLE
    assert {int(status) for status in STATUS_WORDS} == {0, 3, 4}


def test_the_text_lists_what_is_asked_for() -> None:
    found = made(images=1, annotations=30, usable_images=1, usable_annotations=6)
    found.bad += [Finding("set.json", f"annotation {n}", f"has a negative run {n}", "left out") for n in range(24)]
    found.odd.append(Finding("other.json", "annotation 3", "has the id '3'"))
    found.unchecked.append("image files")
    text = found.text(10)
    assert text.splitlines()[:5] == [
        "set.json: coco, 1 images, 30 annotations",
        "bad: 24",
        "         24 x has a negative run N",
        "odd, but used: 1",
        "          1 x has the id ...",
    ]
    assert "bad: annotation 9: has a negative run 9 (repaired copy: left out)\n" in text
    assert "bad: annotation 10:" not in text and "bad: 14 more of the same kinds; --all lists them\n" in text
    assert "odd: other.json, annotation 3: has the id '3'\n" in text
    assert text.endswith("usable without its bad records: 1 images and 6 annotations can be used\n")
    assert sum(line.startswith("bad: annotation") for line in found.text(None).splitlines()) == 24


def test_the_record_lists_everything() -> None:
    found = made(images=1, annotations=2, usable_images=1, usable_annotations=1)
    found.bad.append(Finding("set.json", "annotation 2", "has a negative run", "left out"))
    record = found.record()
    assert record["status"] == 3 and record["counts"] == {"bad": {"has a negative run": 1}, "odd": {}}
    assert record["bad"] == [
        {"file": "set.json", "record": "annotation 2", "reason": "has a negative run", "repair": "left out"}
    ]
