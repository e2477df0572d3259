"""YOLO segmentation: one text file an image, one line a mask: class from 0, ring in shares of the size.

A line holds one ring: no holes and no second part. What that costs is measured on the ring as it is written, drawn as
ultralytics draws it.
"""

from collections import Counter

import numpy as np
import yaml

from segloop.data import outlines
from segloop.data.exports.base import Export, Names, mask_of, suffix_of
from segloop.data.exports.coco import NO_CROWDS, write_category_table
from segloop.data.labelled import Record
from segloop.data.outlines import Part, Ring

_DECIMALS = 7


def write_yolo(export: Export) -> None:
    """Write `data.yaml`, `images/SPLIT/` and `labels/SPLIT/`, as ultralytics reads them."""
    split = export.wishes.split
    index = {category["id"]: number for number, category in enumerate(export.gathered.categories)}
    names = Names()
    for image, path, annotations in export.gathered.scenes():
        name = names.stem(image)
        export.place_image(path, f"images/{split}/{name}{suffix_of(image)}")
        label = export.out / "labels" / split / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(_lines(export, image, annotations, index)), encoding="utf-8")
    head = (
        f"# Training needs another part to validate on: point `val` to it. `{split}` stands there because ultralytics\n"
        "# reads no file without the key.\n"
    )
    known = {number: category["name"] for number, category in enumerate(export.gathered.categories)}
    content = {"path": ".", "train": f"images/{split}", "val": f"images/{split}", "names": known}
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (export.out / "data.yaml").write_text(text, encoding="utf-8")
    write_category_table(export)


def _lines(export: Export, image: Record, annotations: list[Record], index: dict[int, int]) -> list[str]:
    lines = []
    same: Counter[tuple[int, tuple[float, ...]]] = Counter()
    for one in annotations:
        if one["iscrowd"]:
            export.losses.leave_out(image, one, NO_CROWDS)
            continue
        mask = mask_of(one)
        ring, why = _ring(outlines.parts_of(mask), export)
        size = np.array([image["width"], image["height"]])
        shares = np.clip(ring / size, 0, 1).round(_DECIMALS)
        export.losses.compare(image, one, mask, outlines.filled(shares * size, *mask.shape), "; ".join(why))
        export.losses.count(*why)
        same[one["category_id"], tuple(one["bbox"])] += 1
        numbers = " ".join(f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".") for value in shares.ravel())
        lines.append(f"{index[one['category_id']]} {numbers}\n")
    export.losses.counts["class and box of another mask: ultralytics drops the second"] += same.total() - len(same)
    return lines


def _ring(parts: list[Part], export: Export) -> tuple[Ring, list[str]]:
    """Return the ring that is written for a mask, and what is lost."""
    join = export.wishes.join
    why = []
    if len(parts) > 1:
        why.append("several parts, the largest is kept" if join == "none" else "several parts, joined by bridges")
    if len(parts) > 1 and min(part.area for part in parts) <= 4:
        why.append("has parts of at most 4 pixels")
    if any(part.holes for part in parts):
        why.append("holes, joined by bridges" if join == "holes" else "holes, filled")
    kept = parts[:1] if join == "none" else parts
    rings = [ring for part in kept for ring in (part.outer, *(part.holes if join == "holes" else ()))]
    return outlines.joined(rings), why
