"""A run that has collected masks of every shape, and what other projects' readers are called with."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segloop.data import masks
from segloop.data.exports.base import Wishes
from segloop.data.exports.writing import Source, export_set
from segloop.files import write_json

HEIGHT, WIDTH = 24, 40
NAMES = {3: "a/airfield/00000001.png", 7: "a/airfield/00000001 b.jpg", 12: "b/bar/00000001.png"}
CATEGORIES = [
    {"id": 24, "name": "person", "supercategory": "human"},
    {"id": 26, "name": "potted plant, flower"},
    {"id": 33, "name": "bicycle"},
]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@contextmanager
def other_projects() -> Iterator[None]:
    """Their warnings are theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


PLAIN = box(2, 3, 12, 15)
HOLED = box(2, 20, 20, 38) & ~box(6, 24, 12, 30)
PARTS = box(14, 1, 20, 6) | box(15, 9, 19, 12) | box(22, 0, 23, 1)
RIGHT = box(3, 16, 13, 19)
LOW = box(21, 5, 24, 38)

SHAPES = {1: [(3, 24, PLAIN, 0.9), (3, 26, HOLED, 0.8), (7, 26, PARTS, 0.7)],
          2: [(3, 33, PARTS, 0.6), (12, 24, LOW, 0.95), (7, 24, RIGHT, 0.5)]}  # fmt: skip
"""Of each iteration: image, category, mask, score."""


@dataclass(frozen=True)
class MadeRun:
    """A run directory, and the masks that it collected: (image, category, mask), in the order of an export."""

    directory: Path
    expected: list[tuple[int, int, Mask]]


def collected(iteration: int, shapes: list[tuple[int, int, Mask, float]], folder: Path) -> dict[str, Any]:
    annotations = []
    for number, (image, category, mask, score) in enumerate(shapes, start=1):
        rle = masks.encode(mask)
        provenance = {"iteration": iteration, "shard": 0, "row": number, "prediction": str((iteration << 56) + number)}
        annotations.append(
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "segmentation": masks.to_json(rle),
                "area": int(mask.sum()),
                "bbox": masks.boxes([rle])[0].tolist(),
                "iscrowd": 0,
                "score": score,
                "provenance": provenance | {"verdict_reason": "cluster", "answers": ["q1"]},
            }
        )
    used = sorted({image for image, *_ in shapes})
    images = [
        {"id": number, "file_name": str(folder / NAMES[number]), "width": WIDTH, "height": HEIGHT} for number in used
    ]
    info = {"iteration": iteration}
    return {"info": info, "images": images, "annotations": annotations, "categories": CATEGORIES}


def write_images(folder: Path) -> None:
    for number, name in NAMES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((HEIGHT, WIDTH, 3), number * 10, np.uint8)
        Image.fromarray(pixels).save(path)


@pytest.fixture
def made_run(tmp_path: Path) -> MadeRun:
    """Two iterations; the images lie beside the run directory, as the configuration says."""
    run, photographs = tmp_path / "run", tmp_path / "data" / "photographs"
    write_images(photographs)
    for iteration, shapes in SHAPES.items():
        target = run / "results" / f"iter_{iteration}" / "collected.json"
        write_json(target, collected(iteration, shapes, photographs))
    config = {"data_root": "../data", "pool": {"images": "photographs"}}
    (run / "results" / "config.yaml").write_text(yaml.safe_dump(config))
    both = [one[:3] for shapes in SHAPES.values() for one in shapes]
    return MadeRun(run, sorted(both, key=lambda one: one[0]))


Exporter = Callable[..., dict[str, Any]]


@pytest.fixture
def export(made_run: MadeRun, tmp_path: Path) -> Exporter:
    """Export the run to `tmp_path / "out"` (or `name`), and return the account."""

    def write(form: str, name: str = "out", *, force: bool = False, source: Source | None = None, **wishes: Any) -> Any:
        wished = Wishes(**wishes) if wishes else None
        return export_set(source or Source(run=made_run.directory), form, tmp_path / name, wished, force=force)

    return write
