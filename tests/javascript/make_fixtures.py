"""Write fixtures/coco.json: masks, polygons, boxes and pairs with what pycocotools makes of them.

Command: `python tests/javascript/make_fixtures.py`. The JavaScript tests and test_javascript.py read the file.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FIXTURES = Path(__file__).with_name("fixtures") / "coco.json"


def text(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode(mask: np.ndarray) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def named_masks() -> dict[str, np.ndarray]:
    rings = np.zeros((11, 13), bool)
    for inset in range(0, 6, 2):
        rings[inset : 11 - inset, inset : 13 - inset] = True
        rings[inset + 1 : 10 - inset, inset + 1 : 12 - inset] = False
    border = np.ones((6, 4), bool)
    border[1:-1, 1:-1] = False
    one = np.zeros((5, 7), bool)
    one[3, 2] = True
    last = np.zeros((3, 4), bool)
    last[2, 3] = True
    first = np.zeros((3, 4), bool)
    first[0, 0] = True
    diagonal = np.zeros((4, 4), bool)
    diagonal[[0, 1, 3], [0, 1, 2]] = True
    columns = np.zeros((4, 9), bool)
    columns[:, 2:5] = True
    wide = np.zeros((3, 700), bool)
    wide[1, 5:690] = True
    return {
        "an empty mask": np.zeros((4, 5), bool),
        "a full mask": np.ones((4, 5), bool),
        "the border": border,
        "one pixel": one,
        "the first pixel": first,
        "the last pixel": last,
        "diagonal pixels": diagonal,
        "nested holes": rings,
        "whole columns": columns,
        "a wide mask": wide,
        "a checkerboard": np.indices((6, 7)).sum(0) % 2 == 0,
        "one pixel that is all": np.ones((1, 1), bool),
    }


def mask_record(name: str, mask: np.ndarray) -> dict[str, Any]:
    rle = encode(mask)
    return {
        "name": name,
        "height": mask.shape[0],
        "width": mask.shape[1],
        "pixels": mask.astype(int).ravel().tolist(),
        "counts": rle["counts"].decode("ascii"),
        "area": int(coco_mask.area(rle)),
        "box": [int(value) for value in coco_mask.toBbox(rle)],
    }


def polygon_record(rng: np.random.Generator) -> dict[str, Any]:
    height, width = (int(side) for side in rng.integers(3, 30, 2))
    polygons = []
    for _ in range(rng.integers(1, 3)):
        points = rng.uniform(-4, 34, 2 * int(rng.integers(3, 9)))
        # Whole, half and tenth coordinates meet the rounding of the finer grid in all its ties.
        step = float(rng.choice([1.0, 0.5, 0.1, 0.001]))
        polygons.append([round(float(value) / step) * step for value in points])
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return {"polygons": polygons, "height": height, "width": width, "counts": rle["counts"].decode("ascii")}


def box_record(rng: np.random.Generator) -> dict[str, Any]:
    height, width = (int(side) for side in rng.integers(3, 30, 2))
    box = [round(float(value), 1) for value in (*rng.uniform(-2, 20, 2), *rng.uniform(0.5, 20, 2))]
    rle = coco_mask.frPyObjects(np.array([box]), height, width)[0]
    return {"box": box, "height": height, "width": width, "counts": rle["counts"].decode("ascii")}


def pair_record(rng: np.random.Generator) -> dict[str, Any]:
    height, width = (int(side) for side in rng.integers(1, 12, 2))
    a, b = (encode(rng.random((height, width)) < rng.random()) for _ in range(2))
    return {
        "a": text(a),
        "b": text(b),
        "iou": float(coco_mask.iou([a], [b], [0])[0, 0]),
        "crowd": float(coco_mask.iou([a], [b], [1])[0, 0]),
        "union": coco_mask.merge([a, b])["counts"].decode("ascii"),
        "intersection": coco_mask.merge([a, b], intersect=True)["counts"].decode("ascii"),
    }


def make() -> dict[str, Any]:
    rng = np.random.default_rng(6)
    return {
        "masks": [mask_record(name, mask) for name, mask in named_masks().items()],
        "polygons": [polygon_record(rng) for _ in range(150)],
        "boxes": [box_record(rng) for _ in range(40)],
        "pairs": [pair_record(rng) for _ in range(60)],
    }


if __name__ == "__main__":
    FIXTURES.parent.mkdir(exist_ok=True)
    FIXTURES.write_text(json.dumps(make(), separators=(",", ":")) + "\n", encoding="utf-8")
