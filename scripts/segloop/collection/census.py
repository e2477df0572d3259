"""What was collected against what the pool holds: the bias that every pseudo-labelled set has and few say."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segloop.data.pool import read_shard
from segloop.files import read_json, write_json
from segloop.store.index import read_index_columns

CENSUS_SCHEMA: Final = 1

SIZE_EDGES: Final = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the image that a mask covers, as bounds of bins; the last holds its upper bound."""
SCORE_EDGES: Final = tuple(round(0.05 * step, 2) for step in range(21))
CELLS: Final = 8
"""Rows and columns of the grid on which the middles of boxes are counted."""
MOST_A_IMAGE: Final = 10
"""Images with this many collected masks or more are counted together."""

Counts = npt.NDArray[np.int64]


@dataclass
class _Counted:
    """Masks of one kind (predicted, collected, true), counted by what they look like."""

    category: Counter[int] = field(default_factory=Counter)
    image: Counter[int] = field(default_factory=Counter)
    size: Counts = field(default_factory=lambda: np.zeros(len(SIZE_EDGES) - 1, np.int64))
    position: Counts = field(default_factory=lambda: np.zeros((CELLS, CELLS), np.int64))
    score: Counts = field(default_factory=lambda: np.zeros(len(SCORE_EDGES) - 1, np.int64))

    def add(
        self,
        category: npt.NDArray[np.integer],
        image: npt.NDArray[np.integer],
        area: npt.NDArray[np.float64],
        centre: npt.NDArray[np.float64],
        score: npt.NDArray[np.float64] | None,
    ) -> None:
        """Count masks, one entry each: shares of the image as area, centres in shares of width and height [n, 2]."""
        for number, count in zip(*np.unique(category, return_counts=True), strict=True):
            self.category[int(number)] += int(count)
        for number, count in zip(*np.unique(image, return_counts=True), strict=True):
            self.image[int(number)] += int(count)
        self.size += _binned(area, SIZE_EDGES)
        cell = np.clip((centre * CELLS).astype(np.int64), 0, CELLS - 1)
        np.add.at(self.position, (cell[:, 1], cell[:, 0]), 1)
        if score is not None:
            self.score += _binned(score, SCORE_EDGES)

    def record(self, scored: bool) -> dict[str, Any]:
        found = {"count": sum(self.category.values()), "size": self.size.tolist(), "position": self.position.tolist()}
        return found | {"score": self.score.tolist()} if scored else found


def take_census(
    *,
    indexes: list[Path],
    collected: list[Path],
    shards: list[Path],
    seed_set: Path,
    output: Path,
    truth: Path | None = None,
) -> None:
    """Count predictions, collected masks and, where it is known, truth of the pool.

    Memory grows with the images of the pool and with one iteration's predictions, not with the masks of the run.

    Parameters
    ----------
    indexes
        index.zarr of the iterations 1..last. Duplicates of earlier predictions are not counted again.
    collected
        collected.json of the same iterations.
    shards
        The pool's Parquet files, for the sizes of its images.
    seed_set
        Canonical COCO file, for the names of categories and how often they are in the seed set.
    truth
        Canonical truth of the pool; None where nobody knows it.
    output
        {"schema_version", "images": {"pool", "with": [images with 0, 1, ... masks], "per_image", "per_covered_image"},
        "categories": [{"id", "name", "seed", "predicted", "collected", "truth"}], "edges": {"size", "score"},
        "predicted", "collected", "truth": {"count", "size", "position", "score"} or null}. `position` counts the
        middles of boxes on a grid, row by row from the top.

    Raises
    ------
    SegloopError
        If a file is missing or damaged.
    """
    sizes = _Sizes.read(shards)
    predicted, taken = _Counted(), _Counted()
    for path in indexes:
        _count_index(path, sizes, predicted)
    for path in collected:
        content = read_json(path)
        _count_annotations(content["images"], content["annotations"], taken, scored=True)
    true = None if truth is None else _Counted()
    if truth is not None and true is not None:
        content = read_json(truth)
        kept = [one for one in content["annotations"] if not one["iscrowd"]]
        _count_annotations(content["images"], kept, true, scored=False)
    seed = read_json(seed_set)
    in_seed = Counter(int(one["category_id"]) for one in seed["annotations"] if not one.get("iscrowd"))
    write_json(
        output,
        {
            "schema_version": CENSUS_SCHEMA,
            "images": _images(len(sizes), taken.image),
            "categories": [_category(one, in_seed, predicted, taken, true) for one in seed["categories"]],
            "edges": {"size": list(SIZE_EDGES), "score": list(SCORE_EDGES)},
            "predicted": predicted.record(scored=True),
            "collected": taken.record(scored=True),
            "truth": None if true is None else true.record(scored=False),
        },
    )


def _binned(values: npt.NDArray[np.float64], edges: tuple[float, ...]) -> Counts:
    # A number at the upper end belongs to the last bin; scores and shares never lie outside but by rounding.
    place = np.searchsorted(np.array(edges), np.clip(values, edges[0], edges[-1]), side="right") - 1
    return np.bincount(np.minimum(place, len(edges) - 2), minlength=len(edges) - 1).astype(np.int64)


@dataclass(frozen=True)
class _Sizes:
    """Width and height of the pool's images; 0 where their source does not say."""

    image: npt.NDArray[np.int64]
    width_height: npt.NDArray[np.int32]

    @staticmethod
    def read(shards: list[Path]) -> "_Sizes":
        listed = [read_shard(path) for path in shards]
        image = np.concatenate([np.zeros(0, np.int64), *(one.image_id for one in listed)])
        both = [np.stack([one.width, one.height], axis=1) for one in listed]
        order = np.argsort(image, kind="stable")
        return _Sizes(image[order], np.concatenate([np.zeros((0, 2), np.int32), *both])[order])

    def __len__(self) -> int:
        return len(self.image)

    def of(self, image: npt.NDArray[np.int64], box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return width and height of the image of each mask [n, 2].

        Lists such as Places365's do not say how large images are: there an image's furthest box stands for its end.
        """
        found = np.zeros((len(image), 2))
        if len(self):
            place = np.minimum(np.searchsorted(self.image, image), len(self) - 1)
            found = np.where((self.image[place] == image)[:, None], self.width_height[place], 0).astype(np.float64)
        unknown = (found <= 0).any(axis=1)
        if unknown.any():
            numbers, place = np.unique(image[unknown], return_inverse=True)
            furthest = np.zeros((len(numbers), 2))
            np.maximum.at(furthest, place, box[unknown, 2:])
            found[unknown] = furthest[place]
        return np.maximum(found, 1.0)


def _count_index(path: Path, sizes: _Sizes, counted: _Counted) -> None:
    image, category, score, box, area, duplicate = read_index_columns(
        path, "image_id", "category", "score", "box", "area", "duplicate_of"
    )
    new = duplicate == 0
    image, box = image[new], box[new].astype(np.float64)
    width_height = sizes.of(image, box)
    share = area[new] / width_height.prod(axis=1)
    middle = (box[:, :2] + box[:, 2:]) / 2 / width_height
    counted.add(category[new], image, share, middle, score[new].astype(np.float64))


def _count_annotations(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], counted: _Counted, *, scored: bool
) -> None:
    if not annotations:
        return
    sizes = {int(image["id"]): (float(image["width"]), float(image["height"])) for image in images}
    xywh = np.array([one["bbox"] for one in annotations], np.float64)
    image = np.array([one["image_id"] for one in annotations], np.int64)
    width_height = np.array([sizes[number] for number in image.tolist()])
    share = np.array([one["area"] for one in annotations], np.float64) / width_height.prod(axis=1)
    middle = (xywh[:, :2] + xywh[:, 2:] / 2) / width_height
    category = np.array([one["category_id"] for one in annotations], np.int64)
    score = np.array([one["score"] for one in annotations], np.float64) if scored else None
    counted.add(category, image, share, middle, score)


def _images(pool: int, each: Counter[int]) -> dict[str, Any]:
    """Return how many images have 0, 1, ... collected masks; the last entry counts all with more as well."""
    having = np.zeros(MOST_A_IMAGE + 1, np.int64)
    having[0] = pool - len(each)
    for count in each.values():
        having[min(count, MOST_A_IMAGE)] += 1
    total = sum(each.values())
    return {
        "pool": pool,
        "with": having.tolist(),
        "per_image": total / pool if pool else None,
        "per_covered_image": total / len(each) if each else None,
    }


def _category(
    one: dict[str, Any], seed: Counter[int], predicted: _Counted, taken: _Counted, true: _Counted | None
) -> dict[str, Any]:
    number = int(one["id"])
    return {
        "id": number,
        "name": str(one["name"]),
        "seed": seed[number],
        "predicted": predicted.category[number],
        "collected": taken.category[number],
        "truth": None if true is None else true.category[number],
    }
