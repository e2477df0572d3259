"""What segloop writes is read back by segloop's own readers: the same masks, categories and names."""

from pathlib import Path
from typing import Any

import pytest

from segloop.config import LabelledSetConfig
from segloop.data import masks
from segloop.data.formats import open_dataset
from segloop.data.skipped import SkipReport

from .conftest import CATEGORIES, NAMES, Exporter, MadeRun

CONFIGURATIONS: dict[str, dict[str, str]] = {
    "coco": {"format": "coco", "annotations": "out.json", "images": "data/photographs"},
    "lvis": {"format": "lvis", "annotations": "out.json", "images": "data/photographs"},
    "coco_results": {"format": "coco_results", "annotations": "out.json", "images": "data/photographs",
                     "categories": "truth.json"},
    "coco_folder": {"format": "coco", "annotations": "out/annotations/instances_train.json",
                    "images": "out/images/train"},
    "places_challenge": {"format": "places_challenge", "annotations": "out/annotations_instance/training",
                         "images": "out/images/training", "categories": "out/instanceInfo.txt"},
    "cityscapes": {"format": "cityscapes", "annotations": "out/gtFine/train", "images": "out/leftImg8bit/train"},
    "open_images": {"format": "open_images",
                    "annotations": "out/annotations/train-annotations-object-segmentation.csv",
                    "images": "out/images/train", "mask_folder": "out/masks/train",
                    "categories": "out/annotations/class-descriptions.csv"},
    "yolo": {"format": "yolo", "annotations": "out/labels/train", "images": "out/images/train",
             "categories": "out/data.yaml"},
}  # fmt: skip


@pytest.mark.parametrize("form", CONFIGURATIONS)
def test_the_same_masks_come_back(form: str, export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    wishes: dict[str, Any] = {"yolo": {"join": "holes", "images": "copy"}}.get(form, {})
    if form == "coco_results":
        export("coco", "truth.json")
    export(form, "out.json" if CONFIGURATIONS[form]["annotations"] == "out.json" else "out", **wishes)
    report = SkipReport(None, 1.0)
    config = LabelledSetConfig.model_validate(CONFIGURATIONS[form])
    dataset = open_dataset(config, data_root=tmp_path, report=report, check_images=True)
    scenes = list(dataset.labelled())
    assert report.skipped == []
    names = {category["id"]: category["name"] for category in dataset.categories}
    read = [(names[one["category_id"]], one["segmentation"]["counts"]) for _, found in scenes for one in found]
    known = {category["id"]: category["name"] for category in CATEGORIES}
    if form == "cityscapes":
        # The numbers are those of the export; the names are Cityscapes' own.
        known |= {26: "car"}
    expected = [(known[c], masks.to_json(masks.encode(m))["counts"]) for _, c, m in made_run.expected]
    if form == "yolo":
        # The parts of a mask are joined by bridges, which are pixels more.
        assert sorted(name for name, _ in read) == sorted(name for name, _ in expected)
        return
    assert sorted(read) == sorted(expected)
    assert len(scenes) == len(NAMES)
