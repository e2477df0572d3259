"""Open Images V5 masks: one binary PNG a mask, and a table that says what each of them is."""

import csv
import shlex
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from PIL import Image

from segloop.data.exports.base import Export, Names, Origins, mask_of, suffix_of
from segloop.data.exports.coco import NO_CROWDS, write_category_table
from segloop.data.labelled import Record

COLUMNS: Final = (
    "MaskPath", "ImageID", "LabelName", "BoxID", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax", "PredictedIoU", "Clicks",
)  # fmt: skip


IMAGE_COLUMNS: Final = (
    "ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author", "Title",
    "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation",
)  # fmt: skip


def write_open_images(export: Export) -> None:
    """Write `annotations/` with the tables of masks, images and classes, `masks/SPLIT/` and `images/SPLIT/`."""
    split, names, origins = export.wishes.split, Names(), Origins()
    labels = {one["id"]: label_name(one) for one in export.gathered.categories}
    tables, masks = export.out / "annotations", export.out / "masks" / split
    tables.mkdir()
    masks.mkdir(parents=True)
    with (tables / f"{split}-annotations-object-segmentation.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for image, path, annotations in export.gathered.scenes():
            name = names.flat(image)
            export.place_image(path, f"images/{split}/{name}{suffix_of(image)}")
            origins.add(f"{name}{suffix_of(image)}", image)
            for one in annotations:
                if one["iscrowd"]:
                    export.losses.leave_out(image, one, NO_CROWDS)
                    continue
                row = _row(name, image, one, labels[one["category_id"]])
                table.writerow(row)
                Image.fromarray(mask_of(one)).save(masks / row[0], bits=1)
    _write_table(tables / "class-descriptions.csv", ((labels[c["id"]], c["name"]) for c in export.gathered.categories))
    _write_images(tables, split, origins)
    origins.write(export)
    write_category_table(export)


def _write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_images(tables: Path, split: str, origins: Origins) -> None:
    """Write the table of images, and their sizes, which datumaro wants to know before it reads a mask."""
    rows = ((_stem(name), split, "", "", "", "", "", image["file_name"], "", "", "", "") for name, image in origins)
    _write_table(tables / "image_ids_and_rotation.csv", chain([IMAGE_COLUMNS], rows))
    with (tables / "images.meta").open("w", encoding="utf-8") as file:
        for name, image in origins:
            file.write(f"{shlex.quote(_stem(name))} {image['height']} {image['width']}\n")


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def label_name(category: Record) -> str:
    """Return the machine name of a category: its own where it comes from Open Images, else `/x/ID`."""
    own = category.get("label")
    return own if isinstance(own, str) and own.startswith("/") else f"/x/{category['id']}"


def _row(name: str, image: Record, one: Record, label: str) -> tuple[str, ...]:
    x, y, width, height = one["bbox"]
    box_id = f"{one['id']:08x}"
    shares = (x / image["width"], (x + width) / image["width"], y / image["height"], (y + height) / image["height"])
    iou = one.get("predicted_iou")
    return (
        f"{name}_{label.removeprefix('/').replace('/', '')}_{box_id}.png",
        name,
        label,
        box_id,
        *(f"{share:.6f}" for share in shares),
        f"{iou:.5f}" if isinstance(iou, float) else "",
        "",
    )
