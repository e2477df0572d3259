"""What a labelled set holds: images, masks, categories, masks an image, shares of the image, holes."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segloop.data import masks
from segloop.data.labelled import Record
from segloop.data.on_disk import DiskNumbers

QUANTILES: Final = (1, 10, 25, 50, 75, 90, 99)
SMALL, MEDIUM = 32**2, 96**2
"""COCO's limits of small and medium masks in pixels."""
_BINS: Final = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 10**9))

Mask = npt.NDArray[np.bool_]


@dataclass
class OfCategory:
    """The masks of one category."""

    instances: int = 0
    images: int = 0
    with_holes: int = 0


class Statistics:
    """Gathers statistics image by image; what quantiles need waits on disk.

    Parameters
    ----------
    holes
        Draw each mask and measure its holes; False: areas are those that the set states.
    """

    def __init__(self, *, holes: bool = True) -> None:
        self._holes = holes
        self.images = 0
        self.crowds = 0
        self.instances = 0
        self.iterations: Counter[int] = Counter()
        self._masks_per_image: Counter[int] = Counter()
        self._sizes = {"small": 0, "medium": 0, "large": 0}
        self._share = DiskNumbers()
        self._hole_count = 0
        self._hole_share = DiskNumbers()
        self._categories: dict[int, OfCategory] = {}

    def add_all(self, scenes: Iterable[tuple[Record, list[Record]]]) -> None:
        """Add images with their annotations."""
        for image, annotations in scenes:
            self.add(image, annotations)

    def add(self, image: Record, annotations: list[Record]) -> None:
        """Add one image; crowds are counted and not measured."""
        ordinary = [one for one in annotations if not one["iscrowd"]]
        self.images += 1
        self.crowds += len(annotations) - len(ordinary)
        self._masks_per_image[len(ordinary)] += 1
        for category in {one["category_id"] for one in ordinary}:
            self._category(category).images += 1
        for one in ordinary:
            self._add_mask(one, image["width"] * image["height"])

    def _add_mask(self, one: Record, pixels: int) -> None:
        category = self._category(one["category_id"])
        category.instances += 1
        self.instances += 1
        if "provenance" in one:
            self.iterations[one["provenance"]["iteration"]] += 1
        if one["area"] is None or not math.isfinite(one["area"]) or not pixels:
            # A polygon that is not drawn, in a set that does not state areas.
            return
        area = float(one["area"])
        self._share.add(one["category_id"], area / pixels)
        self._sizes["small" if area < SMALL else "medium" if area < MEDIUM else "large"] += 1
        if self._holes and isinstance(one["segmentation"], dict):
            count, inside = holes_of(masks.decode(masks.from_json(one["segmentation"])))
            self._hole_count += count
            if count:
                category.with_holes += 1
                self._hole_share.add(one["category_id"], inside / (area + inside))

    def _category(self, number: int) -> OfCategory:
        return self._categories.setdefault(number, OfCategory())

    def record(self, categories: list[Record]) -> dict[str, Any]:
        """Return the statistics.

        Parameters
        ----------
        categories
            All categories of the set, those without masks included.
        """
        used = sum(1 for one in categories if one["id"] in self._categories)
        found: dict[str, Any] = {
            "schema_version": 1,
            "images": {"all": self.images, "with_masks": self.images - self._masks_per_image[0]},
            "instances": {"masks": self.instances, "crowds": self.crowds},
            "categories": {"listed": len(categories), "used": used},
            "masks_per_image": _masks_per_image(self._masks_per_image),
            "area_share": _quantiles(self._share),
            "sizes": dict(self._sizes),
            "holes": self._hole_record() if self._holes else None,
            "per_category": [self._row(one) for one in categories],
        }
        if self.iterations:
            found["collected"] = {str(number): count for number, count in sorted(self.iterations.items())}
        return found

    def _hole_record(self) -> dict[str, Any]:
        with_holes = len(self._hole_share)
        share = with_holes / self.instances if self.instances else None
        return {
            "masks": with_holes,
            "share_of_masks": share,
            "holes": self._hole_count,
            "share_of_filled_area": _quantiles(self._hole_share),
        }

    def _row(self, category: Record) -> dict[str, Any]:
        known = self._categories.get(category["id"], OfCategory())
        median = self._share.quantiles([0.5], category["id"])
        return {
            "id": category["id"],
            "name": category["name"],
            "instances": known.instances,
            "images": known.images,
            "median_area_share": median[0] if median else None,
            "with_holes": known.with_holes if self._holes else None,
        }


def holes_of(mask: Mask) -> tuple[int, int]:
    """Return how many holes a mask has, and their pixels.

    A hole is a region of the background that no path leads out of, over sides and corners of pixels.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Above and below a hole there is mask: a column with one stretch of mask has none.
    stretches = np.count_nonzero(crop[1:] & ~crop[:-1]) + np.count_nonzero(crop[0])
    if stretches == np.count_nonzero(crop.any(axis=0)):
        return 0, 0
    labels, count = ndimage.label(np.pad(~crop, 1, constant_values=True), np.ones((3, 3)))
    return count - 1, int(np.count_nonzero(labels > 1))


def _masks_per_image(images: Counter[int]) -> dict[str, Any]:
    """Return how many masks images have, from the number of images that have so many."""
    total = images.total()
    if not total:
        return {"mean": None, "median": None, "largest": None, "histogram": {}}
    ends = list(accumulate(images[count] for count in sorted(images)))
    middle = [sorted(images)[bisect_right(ends, place)] for place in ((total - 1) // 2, total // 2)]
    bins = {
        _bin_name(low, high): sum(found for count, found in images.items() if low <= count <= high)
        for low, high in _BINS
    }
    return {
        "mean": sum(count * found for count, found in images.items()) / total,
        "median": sum(middle) / 2,
        "largest": max(images),
        "histogram": bins,
    }


def _bin_name(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}" if high < 10**9 else f"{low}-"


def _quantiles(values: DiskNumbers) -> dict[str, float] | None:
    found = values.quantiles([percent / 100 for percent in QUANTILES])
    return {str(percent): value for percent, value in zip(QUANTILES, found, strict=True)} if found else None


def text_of(name: str, found: dict[str, Any], most: int | None = 20) -> str:
    """Return statistics in words and a table; `most` categories by number of masks, None: all."""
    images, per_image = found["images"], found["masks_per_image"]
    lines = [
        f"{name}: {images['all']:,} images, {images['with_masks']:,} of them with masks",
        f"masks: {found['instances']['masks']:,}, and {found['instances']['crowds']:,} crowds; "
        f"categories: {found['categories']['used']:,} of {found['categories']['listed']:,} used",
    ]
    if "collected" in found:
        each = ", ".join(f"{count:,} in iteration {number}" for number, count in found["collected"].items())
        lines.append(f"collected: {each}")
    if per_image["mean"] is not None:
        lines.append(
            f"masks an image: mean {per_image['mean']:.2f}, median {per_image['median']:g}, "
            f"largest {per_image['largest']:,}"
        )
        lines.append("  " + ", ".join(f"{name}: {count:,}" for name, count in per_image["histogram"].items() if count))
    if found["area_share"]:
        lines.append("share of the image: " + _quantile_words(found["area_share"]))
        sizes = ", ".join(f"{count:,} {size}" for size, count in found["sizes"].items())
        lines.append(f"sizes by COCO's limits: {sizes}")
    holes = found["holes"]
    if holes is not None and found["instances"]["masks"]:
        lines.append(f"masks with holes: {holes['masks']:,} ({holes['share_of_masks']:.2%}), {holes['holes']:,} holes")
        if holes["masks"]:
            lines.append("  holes in the filled area: " + _quantile_words(holes["share_of_filled_area"]))
    return "\n".join([*lines, "", *_table(found["per_category"], most)]) + "\n"


def _quantile_words(found: dict[str, float]) -> str:
    return f"median {found['50']:.2%}, 10 % below {found['10']:.2%}, 90 % below {found['90']:.2%}"


def _table(rows: list[dict[str, Any]], most: int | None) -> list[str]:
    order = sorted(rows, key=lambda row: -row["instances"])
    shown = [row for row in order[:most] if row["instances"]]
    cells = [("id", "category", "masks", "images", "median share", "with holes")]
    for row in shown:
        holes = "-" if row["with_holes"] is None else f"{row['with_holes']:,}"
        share = "-" if row["median_area_share"] is None else f"{row['median_area_share']:.2%}"
        name = row["name"] if len(row["name"]) <= 40 else row["name"][:37] + "..."
        cells.append((str(row["id"]), name, f"{row['instances']:,}", f"{row['images']:,}", share, holes))
    widths = [max(len(line[place]) for line in cells) for place in range(6)]
    lines = []
    for line in cells:
        number, name, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        lines.append("  ".join([number, name.strip().ljust(widths[1]), *rest]))
    left = sum(1 for row in order if row["instances"]) - len(shown)
    return [*lines, *([f"and {left:,} more categories; --all lists them"] if left else [])]
