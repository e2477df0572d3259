"""Cases of `fuzz.py`: run lengths, COCO files and pictures with pieces of them changed, read as segloop reads them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segloop.config import LabelledSetConfig
from segloop.data import masks
from segloop.data.formats import open_dataset
from segloop.data.images import image_size, open_image, open_labels
from segloop.data.mask_batches import check_batch
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

SIZE = (23, 31)


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, numbers: np.random.Generator) -> bytes:
    """Return bytes with one to four changes: bits, bytes, cuts, doublings, pieces moved."""
    changed = bytearray(data)
    for _ in range(numbers.integers(1, 5)):
        if not changed:
            break
        start = int(numbers.integers(0, len(changed)))
        end = min(len(changed), start + int(numbers.integers(1, 9)))
        match int(numbers.integers(0, 7)):
            case 0:
                changed[start] ^= 1 << int(numbers.integers(0, 8))
            case 1:
                changed[start] = int(numbers.integers(0, 256))
            case 2:
                del changed[start:end]
            case 3:
                changed[start:start] = changed[start:end]
            case 4:
                changed[start:start] = numbers.bytes(int(numbers.integers(1, 9)))
            case 5:
                del changed[start:]
            case 6:
                other = int(numbers.integers(0, len(changed)))
                changed[start:end], changed[other:other] = b"", changed[start:end]
    return bytes(changed)


Case = Callable[[np.random.Generator], str]


def with_empty_runs(good: masks.Rle, numbers: np.random.Generator) -> bytes:
    """Return a mask's string with one of its runs cut in two by an empty one, which pycocotools would not write."""
    pixels = masks.decode(good).ravel(order="F")
    borders = np.flatnonzero(np.diff(pixels.astype(np.int8), prepend=0))
    runs = np.diff(borders, prepend=0, append=len(pixels)).tolist()
    place = int(numbers.integers(0, len(runs)))
    first = int(numbers.integers(0, runs[place] + 1))
    runs[place : place + 1] = [first, 0, runs[place] - first]
    made = coco_mask.frPyObjects({"size": good["size"], "counts": runs}, *good["size"])
    return bytes(made["counts"])


ODD = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    1 << 70,
    "",
    "7",
    "\ud800",
    "../x",
    "/x",
    [],
    [[]],
    {},
    "a\0",
]
"""Values that stand where others should."""


def odd_value(value: Any, numbers: np.random.Generator) -> Any:
    """Return a value of JSON with one thing in it, at any depth, made odd, doubled or left out."""
    if isinstance(value, dict | list) and value and numbers.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[numbers.integers(0, len(keys))]
        copy = value.copy()
        match int(numbers.integers(0, 8)):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, list):
                copy.append(copy[key])
            case _:
                copy[key] = odd_value(copy[key], numbers)
        return copy
    return ODD[numbers.integers(0, len(ODD))]


def mask_cases(folder: Path) -> Case:
    """Return a function that damages a mask: the check refuses it, or area, box and pixels agree."""

    def case(numbers: np.random.Generator) -> str:
        good = masks.encode(numbers.random(SIZE) < numbers.uniform(0, 1))
        counts = damaged(good["counts"], numbers) if numbers.random() < 0.8 else with_empty_runs(good, numbers)
        size = list(SIZE) if numbers.random() < 0.9 else numbers.integers(-1, 40, 2).tolist()
        batch = check_batch([good["counts"], counts, good["counts"]], [SIZE, size, SIZE])
        assert set(batch.problems) <= {1}
        try:
            rle = masks.check({"size": size, "counts": counts})
        except masks.MaskError:
            assert 1 in batch.problems
            return "refused"
        pixels = masks.decode(rle)
        assert pixels.shape == tuple(size)
        assert pixels.sum() == masks.area([rle])[0] == batch.area[1]
        assert masks.boxes([rle])[0].tolist() == batch.box[1].tolist()
        return "sound"

    return case


def json_cases(folder: Path) -> Case:
    """Return a function that damages a COCO file: it is refused, or each record is used or named."""
    square = np.zeros((6, 8), bool)
    square[1:4, 2:5] = True
    base = {"image_id": 5, "category_id": 1}
    value = {
        "images": [{"id": 5, "file_name": "a/ü b.png", "width": 8, "height": 6}, {"id": 6, "file_name": "c.png"}],
        "annotations": [
            base | {"id": 1, "segmentation": masks.to_json(masks.encode(square))},
            base | {"id": 2, "segmentation": [[2, 1, 5, 1, 5.5, 4, 2, 4]], "iscrowd": 0},
            base | {"id": 3, "segmentation": {"size": [6, 8], "counts": [13, 3, 3, 3, 26]}, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "thing", "supercategory": "x"}],
    }
    good = json.dumps(value, ensure_ascii=False).encode()
    path = folder / "train.json"
    config = LabelledSetConfig(annotations="train.json")

    def case(numbers: np.random.Generator) -> str:
        if numbers.random() < 0.5:
            path.write_bytes(damaged(good, numbers))
        else:
            path.write_text(json.dumps(odd_value(value, numbers)), encoding="utf-8")
        report = SkipReport(None, 1.0)
        try:
            dataset = open_dataset(config, data_root=folder, report=report)
            found = list(dataset.labelled())
        except SegloopError:
            return "refused"
        for image, annotations in found:
            for one in annotations:
                pixels = masks.decode(masks.check(one["segmentation"], (image["height"], image["width"])))
                assert pixels.sum() == one["area"] > 0
        return "read with records skipped" if report.skipped else "read whole"

    return case


def image_cases(folder: Path) -> Case:
    """Return a function that damages a picture: it is refused, or has the size that its head says."""
    colours = np.arange(19 * 17 * 3).reshape(19, 17, 3).astype(np.uint8)
    pictures = [
        ("PNG", Image.fromarray(colours)),
        ("PNG", Image.fromarray(colours[:, :, 0])),
        ("PNG", Image.fromarray(colours[:, :, 0].astype(np.uint16) * 256)),
        ("PNG", Image.fromarray(colours).convert("P")),
        ("PNG", Image.fromarray(colours[:, :, 0] > 99)),
        ("JPEG", Image.fromarray(colours)),
    ]
    good = []
    for form, picture in pictures:
        stream = io.BytesIO()
        picture.save(stream, form)
        good.append(stream.getvalue())
    path = folder / "a.png"

    def case(numbers: np.random.Generator) -> str:
        path.write_bytes(damaged(good[numbers.integers(0, len(good))], numbers))
        try:
            width, height = image_size(path)
            pixels = open_image(path)
            labels = open_labels(path) if numbers.random() < 0.5 else pixels
        except SegloopError:
            return "refused"
        assert pixels.shape == (height, width, 3)
        assert labels.ndim in (2, 3)
        return "read"

    return case


CASES = {"masks": mask_cases, "json": json_cases, "images": image_cases}
