import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from segloop.data import masks
from segloop.data.exports.writing import Source, export_set
from segloop.files import write_json

from .conftest import CATEGORIES, HEIGHT, HOLED, NAMES, PARTS, WIDTH, Exporter, MadeRun, Mask
from .test_png import overlapping

CLASSES = [category["id"] for category in CATEGORIES]


def read_labels(path: Path) -> list[tuple[int, Mask]]:
    """Read a label file and draw its masks by the rules of ultralytics (`verify_image_label`, `polygon2mask`)."""
    found = []
    rows = [line.split() for line in path.read_text().splitlines() if line]
    for row in rows:
        assert len(row) > 6 and len(row) % 2 == 1, "a class and at least three points"
        points = np.array(row[1:], np.float32).reshape(-1, 2)
        assert points.min() >= 0 and points.max() <= 1
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(canvas, [(points * (WIDTH, HEIGHT)).astype(np.int32)], color=1)
        found.append((int(row[0]), canvas.astype(bool)))
    return found


def all_labels(folder: Path) -> list[tuple[int, int, Mask]]:
    found = []
    for number, name in NAMES.items():
        path = (folder / "labels" / "train" / name).with_suffix(".txt")
        found += [(number, CLASSES[label], mask) for label, mask in read_labels(path)]
    return found


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def losses_of(folder: Path) -> dict[int, dict[str, str]]:
    with (folder / "losses.csv").open() as file:
        return {int(row["annotation"]): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("join", ["none", "parts", "holes"])
def test_the_loss_that_is_stated_is_what_ultralytics_draws(
    join: str, export: Exporter, made_run: MadeRun, tmp_path: Path
) -> None:
    account = export("yolo", join=join, images="none")
    stated = losses_of(tmp_path / "out")
    read = all_labels(tmp_path / "out")
    assert [(image, category) for image, category, _ in read] == [one[:2] for one in made_run.expected]
    lost = []
    for number, ((_, _, drawn), (_, _, mask)) in enumerate(zip(read, made_run.expected, strict=True), start=1):
        found = iou(drawn, mask)
        assert float(stated[number]["iou"] if number in stated else 1) == pytest.approx(found, abs=1e-4)
        lost.append(found)
    assert account["losses"]["iou"]["mean"] == pytest.approx(np.mean(lost), abs=1e-6)


def test_what_each_join_keeps(export: Exporter, tmp_path: Path) -> None:
    counts = {}
    ious = {}
    for join in ("none", "parts", "holes"):
        counts[join] = export("yolo", join, join=join, images="none")["losses"]["counts"]
        read = {(image, category): mask for image, category, mask in all_labels(tmp_path / join)}
        ious[join] = iou(read[3, 26], HOLED), iou(read[3, 33], PARTS)
    # A filled hole of 36 pixels in 288; the largest of three parts has 30 of 43 pixels.
    assert ious["none"] == (pytest.approx(288 / 324), pytest.approx(30 / 43))
    assert ious["parts"][0] == pytest.approx(288 / 324) and 0.8 < ious["parts"][1] < 1
    assert ious["holes"][0] == 1.0 and ious["holes"][1] == ious["parts"][1]
    assert counts["none"] == {
        "several parts, the largest is kept": 2,
        "has parts of at most 4 pixels": 2,
        "holes, filled": 1,
    }
    assert counts["holes"]["holes, joined by bridges"] == 1
    assert losses_of(tmp_path / "none")[2]["why"] == "holes, filled"


def test_the_folder_is_what_ultralytics_reads(export: Exporter, tmp_path: Path) -> None:
    export("yolo")
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert data["names"] == {0: "person", 1: "potted plant, flower", 2: "bicycle"}
    images = sorted((tmp_path / "out" / data["train"]).rglob("*.*g"))
    assert len(images) == 3
    for path in images:
        # ultralytics replaces the last /images/ of a path by /labels/.
        label = Path("/labels/".join(str(path).rsplit("/images/", 1))).with_suffix(".txt")
        assert label.is_file() and path.resolve().is_file()


def test_two_images_whose_labels_would_share_a_file(tmp_path: Path, made_run: MadeRun) -> None:
    full = masks.to_json(masks.encode(np.ones((4, 4), bool)))
    value = {
        "images": [{"id": n, "file_name": name, "width": 4, "height": 4} for n, name in ((1, "a.jpg"), (2, "a.png"))],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": full,
             "area": 16, "bbox": [0, 0, 4, 4], "iscrowd": 0}
            for n in (1, 2)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    write_json(tmp_path / "twins" / "results" / "iter_1" / "collected.json", value)
    from segloop.data.exports.base import Wishes

    export_set(Source(run=tmp_path / "twins"), "yolo", tmp_path / "out", Wishes(images="none"))
    assert sorted(path.name for path in (tmp_path / "out" / "labels").rglob("*.txt")) == ["a.txt", "a__2.txt"]


def test_masks_that_ultralytics_takes_for_one_are_counted(tmp_path: Path) -> None:
    from segloop.data.exports.base import Wishes

    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:8, 2:8] = True
    other = mask.copy()
    other[3, 3] = False
    source = overlapping(tmp_path, [(mask, 0.5), (other, 0.6)])
    account = export_set(source, "yolo", tmp_path / "out", Wishes(images="none"))
    assert account["losses"]["counts"]["class and box of another mask: ultralytics drops the second"] == 1
