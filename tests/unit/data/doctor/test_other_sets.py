import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segloop.config import LabelledSetConfig
from segloop.data.coco import read_coco
from segloop.data.doctor.findings import Status
from segloop.data.doctor.other_sets import examine_image_folder, examine_set
from segloop.data.skipped import SkipReport

SIDE = 16


@pytest.fixture
def places(tmp_path: Path) -> LabelledSetConfig:
    """Three scenes: a sound one, one with an unknown category, one whose photograph is cut off."""
    for folder in ("annotations", "images"):
        (tmp_path / folder).mkdir()
    for number, category in ((1, 3), (2, 9), (3, 3)):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[2:9, 2:9] = 3, 1, 0
        pixels[10:14, 2:9] = category, 2, 0
        Image.fromarray(pixels).save(tmp_path / "annotations" / f"{number}.png")
        photograph = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(photograph).save(tmp_path / "images" / f"{number}.jpg")
    third = tmp_path / "images" / "3.jpg"
    third.write_bytes(third.read_bytes()[:-60])
    (tmp_path / "table.txt").write_text("Idx\tNames\n3\tchair\n")
    return LabelledSetConfig(
        format="places_challenge",
        annotations=str(tmp_path / "annotations"),
        images=str(tmp_path / "images"),
        categories=str(tmp_path / "table.txt"),
    )


def test_what_the_reader_skips_is_bad(places: LabelledSetConfig, tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    found = examine_set(tmp_path / "annotations", places, repaired=copy)
    reasons = [one.reason for one in found.bad]
    assert len(reasons) == 2
    assert any("unknown category 9" in reason for reason in reasons)
    assert any("3.jpg cannot be read as an image" in reason for reason in reasons)
    assert found.status is Status.USABLE_IN_PART
    assert (found.usable_images, found.usable_annotations) == (2, 3)
    report = SkipReport(None, 1.0)
    read = read_coco(copy, tmp_path / "images", report, check_images=True)
    assert report.skipped == [] and len(read["annotations"]) == 3
    assert json.loads(copy.read_text())["images"][0]["file_name"] == "1.jpg"


def test_heads_alone_do_not_find_it(places: LabelledSetConfig, tmp_path: Path) -> None:
    found = examine_set(tmp_path / "annotations", places, check="head")
    assert found.usable_images == 3 and len(found.bad) == 1


def test_a_set_that_cannot_be_opened(places: LabelledSetConfig, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "annotations")
    found = examine_set(tmp_path / "annotations", places)
    assert found.status is Status.UNUSABLE and "is no folder" in (found.fatal or "")


def test_a_folder_of_photographs(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path)
    paths[1].write_bytes(b"no image")
    found = examine_image_folder(tmp_path, paths)
    assert found.status is Status.USABLE_IN_PART and found.usable_images == 2
    assert [one.record for one in found.bad] == ["b.png"]
