"""Formats with one value a pixel: the instance PNG of the Places Challenge 2017, and PNGs in the style of Cityscapes.

A pixel belongs to one mask. Where masks overlap, a person says which lies on top, and each mask that lost pixels is
named.
"""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from segloop.data.exports.base import Export, Names, Origins, mask_of, suffix_of
from segloop.data.exports.coco import write_category_table
from segloop.data.images import open_image
from segloop.data.labelled import Record
from segloop.errors import SegloopError

HIDDEN: Final = "hidden by masks above it"
COVERED: Final = "covered in part"
TOO_MANY: Final = "beyond the number of instances that the format holds"
CITY: Final = "segloop"
_OTHER_FORMAT: Final = "or take a format that holds overlapping masks (coco)"

Values = npt.NDArray[np.int32]


def write_places_challenge(export: Export) -> None:
    """Write `annotations_instance/SPLIT/NAME.png` and `images/SPLIT/`, as the Places Challenge 2017 has them.

    R is the category, G the instance in the image (1..255), B is 1 for a crowd.
    """
    split = {"train": "training", "val": "validation"}.get(export.wishes.split, export.wishes.split)
    folder = export.out / "annotations_instance" / split
    folder.mkdir(parents=True)
    for category in export.gathered.categories:
        if not 1 <= category["id"] <= 255:
            raise SegloopError(
                f"category {category['id']} ({category['name']}) does not fit the red channel of the PNG, 1..255. "
                "Choose categories (--categories), or another format."
            )
    names, origins, counts = Names(), Origins(), Counter[int]()
    for image, path, annotations in export.gathered.scenes():
        name = names.flat(image)
        layers = _layers(export, image, annotations, lambda one: 0, most=255)
        values = _painted(export, image, layers, list(range(1, len(layers) + 1)))
        red = np.array([0, *(one["category_id"] for one in layers)], np.uint8)
        blue = np.array([0, *(one["iscrowd"] for one in layers)], np.uint8)
        pixels = np.stack([red[values], values.astype(np.uint8), blue[values]], axis=2)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        export.place_image(path, f"images/{split}/{name}{suffix_of(image)}")
        origins.add(f"{name}{suffix_of(image)}", image)
        counts.update(one["category_id"] for one in layers)
    table = "".join(f"{one['id']}\t{one['name']}\t{counts[one['id']]}\n" for one in export.gathered.categories)
    (export.out / "instanceInfo.txt").write_text(f"Idx\tObject Names\t#Inst.\n{table}", encoding="utf-8")
    origins.write(export)
    write_category_table(export)


def write_cityscapes(export: Export) -> None:
    """Write `gtFine/SPLIT/segloop/*_gtFine_{instanceIds,labelIds}.png` and `leftImg8bit/SPLIT/segloop/*.png`.

    A value of `instanceIds` is class x 1000 + number of the instance from 0, or the class alone for a crowd. Classes
    are the ids of the categories where all fit (1..64), else they are numbered from 1; `categories.csv` has both.
    """
    split, classes = export.wishes.split, _classes(export.gathered.categories)
    folder = export.out / "gtFine" / split / CITY
    folder.mkdir(parents=True)
    origins = Origins()
    for image, path, annotations in export.gathered.scenes():
        name = f"{CITY}_{image['id'] // 10**6:06d}_{image['id'] % 10**6:06d}"
        layers = _layers(export, image, annotations, lambda one: one["category_id"], most=1000)
        used: Counter[int] = Counter()
        ids = []
        for one in layers:
            label = classes[one["category_id"]]
            ids.append(label if one["iscrowd"] else 1000 * label + used[label])
            used[label] += not one["iscrowd"]
        values = _painted(export, image, layers, ids)
        labels = np.where(values >= 1000, values // 1000, values)
        Image.fromarray(values.astype(np.uint16)).save(folder / f"{name}_gtFine_instanceIds.png")
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{name}_gtFine_labelIds.png")
        _place_as_png(export, path, f"leftImg8bit/{split}/{CITY}/{name}_leftImg8bit.png")
        origins.add(f"{name}_leftImg8bit.png", image)
    origins.write(export)
    with (export.out / "categories.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("class", "id", "name"))
        table.writerows((classes[one["id"]], one["id"], one["name"]) for one in export.gathered.categories)


def _classes(categories: list[Record]) -> dict[int, int]:
    """Return the class of each category; 16 bits hold 64 classes of 1000 instances."""
    if all(1 <= one["id"] <= 64 for one in categories):
        return {one["id"]: one["id"] for one in categories}
    if len(categories) > 64:
        raise SegloopError(
            f"there are {len(categories)} categories; PNGs of 16 bits hold 64 classes of 1000 instances. Choose some "
            "(--categories), or take another format."
        )
    return {one["id"]: number for number, one in enumerate(categories, start=1)}


def _layers(
    export: Export, image: Record, annotations: list[Record], group: Callable[[Record], int], most: int
) -> list[Record]:
    """Return the masks in the order in which they are painted: crowds first, then from the lowest to the top one."""
    order = export.wishes.order
    ranked = sorted(annotations, key=lambda one: (not one["iscrowd"], _height(one, order)))
    kept: list[Record] = []
    counts: Counter[int] = Counter()
    for one in reversed(ranked):
        counts[group(one)] += 1
        if counts[group(one)] <= most:
            kept.append(one)
        elif order is None:
            raise SegloopError(
                f"{image['file_name']} (image {image['id']}) has more than {most} instances, which the format cannot "
                f"hold. Say by --order which ones go first, {_OTHER_FORMAT}."
            )
        else:
            export.losses.leave_out(image, one, TOO_MANY)
    return kept[::-1]


def _height(one: Record, order: str | None) -> float:
    """Return how high a mask lies among those that overlap it; a mask without score is taken for certain."""
    if order == "score":
        score = one.get("score")
        return float(score) if isinstance(score, int | float) else 1.0
    return -float(one["area"]) if order == "small" else 0.0


def _painted(export: Export, image: Record, layers: list[Record], ids: list[int]) -> Values:
    """Return the value of each pixel, int32 of shape (height, width), and account for what was covered."""
    values: Values = np.zeros((image["height"], image["width"]), np.int32)
    for one, number in zip(layers, ids, strict=True):
        mask = mask_of(one)
        if export.wishes.order is None and values[mask].any():
            below = layers[ids.index(int(values[mask].max()))]["id"]
            raise SegloopError(
                f"masks {below} and {one['id']} of {image['file_name']} (image {image['id']}) overlap, and a pixel of "
                f"the format holds one. Say by --order which mask lies on top (score, small, last), {_OTHER_FORMAT}."
            )
        values[mask] = number
    for one, number in zip(layers, ids, strict=True):
        mask = mask_of(one)
        # Crowds of one class share their value, so a pixel of another one is not told apart.
        written = mask & (values == number)
        why = "" if np.array_equal(mask, written) else COVERED if written.any() else HIDDEN
        export.losses.compare(image, one, mask, written, why)
        export.losses.count(*([why] if why else []))
    return values


def _place_as_png(export: Export, source: Path, name: str) -> None:
    """Link or copy an image that is to be a PNG; others are converted."""
    if export.wishes.images == "none" or source.suffix.lower() == ".png":
        export.place_image(source, name)
        return
    target = export.out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(open_image(source)).save(target)
