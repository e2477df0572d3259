import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segloop.data import masks
from segloop.data.exports.writing import Source, export_set
from segloop.data.images import open_image
from segloop.errors import SegloopError
from segloop.files import write_json

from .conftest import HEIGHT, NAMES, WIDTH, Exporter, MadeRun, Mask, box, other_projects

FLAT = {number: name.replace("/", "__").rpartition(".")[0] for number, name in NAMES.items()}


def overlapping(tmp_path: Path, shapes: list[tuple[Mask, float]], **more: Any) -> Source:
    """A run that collected masks of category 24 on one image."""
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 24,
            "segmentation": masks.to_json(masks.encode(mask)),
            "area": int(mask.sum()),
            "bbox": masks.boxes([masks.encode(mask)])[0].tolist(),
            "iscrowd": 0,
            "score": score,
        }
        | more
        for number, (mask, score) in enumerate(shapes, start=1)
    ]
    value = {
        "images": [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": annotations,
        "categories": [{"id": 24, "name": "person"}],
    }
    write_json(tmp_path / "crowded" / "results" / "iter_1" / "collected.json", value)
    return Source(run=tmp_path / "crowded")


def test_the_instance_png_holds_every_mask(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    account = export("places_challenge", images="copy")
    folder = tmp_path / "out" / "annotations_instance" / "training"
    found = []
    for number, name in FLAT.items():
        pixels = open_image(folder / f"{name}.png")
        for instance in range(1, int(pixels[:, :, 1].max()) + 1):
            mask = pixels[:, :, 1] == instance
            (category,) = set(pixels[:, :, 0][mask].tolist())
            found.append((number, category, masks.encode(mask)["counts"]))
        assert not pixels[:, :, 2].any()
        assert not pixels[pixels[:, :, 1] == 0].any()
    assert found == [(image, category, masks.encode(mask)["counts"]) for image, category, mask in made_run.expected]
    assert account["losses"]["iou"] == {
        "masks": 6, "unchanged": 6, "mean": 1.0, "lowest": 1.0, "below_0.50": 0, "below_0.90": 0, "below_0.99": 0,
    }  # fmt: skip
    assert not (tmp_path / "out" / "losses.csv").exists()


def test_the_projects_own_reader_reads_the_challenge_form(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    from segloop.config import LabelledSetConfig
    from segloop.data.formats import open_dataset
    from segloop.data.skipped import SkipReport

    source = Source(run=made_run.directory, categories=("person", "bicycle"))
    export("places_challenge", source=source, images="none")
    out = tmp_path / "out"
    # The challenge's images are JPEGs.
    images = tmp_path / "jpg"
    images.mkdir()
    for name in FLAT.values():
        Image.new("RGB", (WIDTH, HEIGHT)).save(images / f"{name}.jpg")
    config = LabelledSetConfig(
        format="places_challenge",
        annotations=str(out / "annotations_instance" / "training"),
        images=str(images),
        categories=str(out / "instanceInfo.txt"),
    )
    report = SkipReport(None, 1.0)
    dataset = open_dataset(config, data_root=Path("/"), report=report)
    read = [(one["category_id"], one["segmentation"]["counts"]) for _, found in dataset.labelled() for one in found]
    expected = [(c, masks.to_json(masks.encode(m))["counts"]) for _, c, m in made_run.expected if c != 26]
    assert sorted(read) == sorted(expected) and report.skipped == []
    assert [one["name"] for one in dataset.categories] == ["person", "bicycle"]


def test_renamed_images_keep_their_origin(export: Exporter, tmp_path: Path) -> None:
    export("places_challenge")
    with (tmp_path / "out" / "origins.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["source_name"] for row in rows} == set(NAMES.values())
    for row in rows:
        linked = tmp_path / "out" / "images" / "training" / row["name"]
        assert linked.is_symlink() and linked.resolve().is_file()
        assert linked.resolve().as_posix().endswith(row["source_name"])
    table = (tmp_path / "out" / "instanceInfo.txt").read_text().splitlines()
    assert table == ["Idx\tObject Names\t#Inst.", "24\tperson\t3", "26\tpotted plant, flower\t2", "33\tbicycle\t1"]


@pytest.mark.parametrize("form", ["places_challenge", "cityscapes"])
def test_overlapping_masks_are_refused_unless_an_order_is_given(form: str, tmp_path: Path) -> None:
    big, small = box(0, 0, 20, 30), box(5, 5, 15, 15)
    source = overlapping(tmp_path, [(small, 0.4), (big, 0.9)])
    with pytest.raises(SegloopError, match=r"masks 1 and 2 of 1\.png \(image 1\) overlap.*--order"):
        export_to(source, form, tmp_path, "refused")
    assert not (tmp_path / "refused").exists()
    for order, lost in (("score", 1), ("last", 1), ("small", 2)):
        account = export_to(source, form, tmp_path, order, order=order)
        with (tmp_path / order / "losses.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row["annotation"] == str(lost)
        # The covered small mask is gone; the big one under it lost 100 of 600 pixels.
        assert float(row["iou"]) == pytest.approx(0.0 if lost == 1 else 500 / 600, abs=1e-4)
        why = "hidden by masks above it" if lost == 1 else "covered in part"
        assert account["losses"]["counts"] == {why: 1} and row["why"] == why


def export_to(source: Source, form: str, folder: Path, name: str, **wishes: Any) -> dict[str, Any]:
    from segloop.data.exports.base import Wishes

    return export_set(source, form, folder / name, Wishes(images="none", **wishes))


def test_more_instances_than_the_png_holds(tmp_path: Path) -> None:
    many = [(box(n // 38, n % 38, n // 38 + 1, n % 38 + 1), n / 300) for n in range(300)]
    source = overlapping(tmp_path, many)
    with pytest.raises(SegloopError, match=r"more than 255 instances.*--order"):
        export_to(source, "places_challenge", tmp_path, "refused")
    account = export_to(source, "places_challenge", tmp_path, "cut", order="score")
    assert account["losses"]["counts"] == {"beyond the number of instances that the format holds": 45}
    pixels = open_image(tmp_path / "cut" / "annotations_instance" / "training" / "1.png")
    assert pixels[:, :, 1].max() == 255
    # The lowest scores went.
    assert not pixels[0, :38].any() and not pixels[1, :7].any() and pixels[1, 7].any()


def test_a_category_beyond_a_byte_is_refused(tmp_path: Path) -> None:
    source = overlapping(tmp_path, [(box(0, 0, 2, 2), 0.5)], category_id=300)
    path = tmp_path / "crowded" / "results" / "iter_1" / "collected.json"
    write_json(path, json.loads(path.read_text().replace('"id": 24', '"id": 300')))
    with pytest.raises(SegloopError, match=r"category 300 \(person\) does not fit the red channel"):
        export_to(source, "places_challenge", tmp_path, "refused")
    # Cityscapes' classes are numbered anew where ids are too large.
    export_to(source, "cityscapes", tmp_path, "anew")
    assert (tmp_path / "anew" / "categories.csv").read_text() == "class,id,name\n1,300,person\n"
    (png,) = (tmp_path / "anew").rglob("*instanceIds.png")
    assert set(np.unique(np.asarray(Image.open(png)))) == {0, 1000}


def test_a_crowd_is_marked_and_lies_below(tmp_path: Path) -> None:
    source = overlapping(tmp_path, [(box(5, 5, 10, 10), 0.2), (box(0, 0, 20, 20), 0.9)])
    path = tmp_path / "crowded" / "results" / "iter_1" / "collected.json"
    value = json.loads(path.read_text())
    value["annotations"][1]["iscrowd"] = 1
    write_json(path, value)
    export_to(source, "places_challenge", tmp_path, "places", order="score")
    pixels = open_image(tmp_path / "places" / "annotations_instance" / "training" / "1.png")
    assert pixels[7, 7].tolist() == [24, 2, 0] and pixels[1, 1].tolist() == [24, 1, 1]
    export_to(source, "cityscapes", tmp_path, "cityscapes", order="score")
    (png,) = (tmp_path / "cityscapes").rglob("*instanceIds.png")
    values = np.asarray(Image.open(png))
    assert values[7, 7] == 24000 and values[1, 1] == 24


def test_cityscapes_own_tool_finds_the_instances(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    export("cityscapes", images="link")
    with other_projects():
        from cityscapesscripts.evaluation.instances2dict import instances2dict

        files = sorted(str(path) for path in (tmp_path / "out" / "gtFine").rglob("*_instanceIds.png"))
        found = instances2dict(files, False)
    counts = [
        (Path(file).name.split("_")[2], label, one["instID"], one["pixelCount"])
        for file, labels in found.items()
        for label, instances in labels.items()
        for one in instances
        if one["instID"] > 0
    ]
    area = {(image, category): int(mask.sum()) for image, category, mask in made_run.expected}
    # 26 and 33 are cars and bicycles in Cityscapes' table.
    assert sorted(counts) == sorted(
        [
            ("000003", "person", 24000, area[3, 24]),
            ("000003", "car", 26000, area[3, 26]),
            ("000003", "bicycle", 33000, area[3, 33]),
            ("000007", "person", 24000, area[7, 24]),
            ("000007", "car", 26000, area[7, 26]),
            ("000012", "person", 24000, area[12, 24]),
        ]
    )


def test_cityscapes_pngs_hold_every_mask_and_images_are_pngs(
    export: Exporter, made_run: MadeRun, tmp_path: Path
) -> None:
    export("cityscapes", images="link", split="val")
    found = []
    for number in NAMES:
        name = f"val/segloop/segloop_000000_{number:06d}"
        with Image.open(tmp_path / "out" / "gtFine" / f"{name}_gtFine_instanceIds.png") as image:
            assert image.mode == "I;16"
            values = np.asarray(image)
        with Image.open(tmp_path / "out" / "gtFine" / f"{name}_gtFine_labelIds.png") as image:
            np.testing.assert_array_equal(np.asarray(image), values // 1000)
        with Image.open(tmp_path / "out" / "leftImg8bit" / f"{name}_leftImg8bit.png") as image:
            assert (image.format, image.size) == ("PNG", (WIDTH, HEIGHT))
        found += [(number, v // 1000, masks.encode(values == v)["counts"]) for v in np.unique(values) if v]
    assert sorted(found) == sorted((i, c, masks.encode(m)["counts"]) for i, c, m in made_run.expected)


def test_datumaro_finds_the_same_pixels_of_each_class(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    export("cityscapes", images="copy")
    with other_projects():
        import datumaro

        read = datumaro.Dataset.import_from(str(tmp_path / "out"), "cityscapes")
        items = {item.id: item.media.data.shape for item in read}
    assert items == {f"segloop/segloop_000000_{number:06d}": (HEIGHT, WIDTH, 3) for number in NAMES}
