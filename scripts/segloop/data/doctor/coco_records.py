"""The annotations of a COCO file, examined one by one and repaired where that is certain.

A repair is certain where nothing is guessed: a number that is written as text, an area that follows from the mask, a
size whose sides are swapped and whose box says so. All else is left out of the repaired copy and named.
"""

import hashlib
import json
import math
from typing import Any, Final

from segloop.data import masks
from segloop.data.coco_tables import whole_number
from segloop.data.doctor.coco_tables import Tables
from segloop.data.labelled import Record
from segloop.data.masks import MaskError, Rle

AREA_FACTOR: Final = 2.0
"""Polygons and their rasterised area differ by a third in COCO itself; beyond this factor it is another area."""
BOX_TOLERANCE: Final = 2.0
"""Pixels by which a stored box may differ from that of the mask."""


class Annotations:
    """Judges annotations in the order of the file.

    Parameters
    ----------
    tables
        The images and categories; results files examined alone have none.
    repeated
        Ids that several annotations have.
    next_id
        A number above every id of the file, from which on new ones are given.
    results
        Whether the records are those of a results file, which need a score and no id.
    """

    def __init__(self, tables: Tables, repeated: set[int], next_id: int, *, results: bool, alone: bool) -> None:
        self._tables = tables
        self._repeated = repeated
        self._next_id = max(1, next_id)
        self._results = results
        self._alone = alone
        self._first: dict[int, bytes] = {}
        self._taken: set[int] = set()
        self.usable = 0

    def judge(self, place: int, value: Any) -> Record | None:
        """Return the record of the repaired copy, or None where it is left out."""
        where = f"{'results' if self._results else 'annotations'}[{place}]"
        if not isinstance(value, dict):
            self._tables.bad(where, f"is {type(value).__name__}, not an object")
            return None
        number = whole_number(value.get("id"))
        where = f"annotation {number}" if number is not None else where
        kept = dict(value)
        try:
            size = self._size(value)
            good = self._results or self._identify(where, number, kept)
            rle, kept["segmentation"], repair = self._mask(value, size)
        except MaskError as error:
            self._tables.bad(where, str(error))
            return None
        if repair:
            self._tables.bad(where, *repair)
        elif whole_number(value["image_id"]) in self._tables.unusable:
            self._tables.bad(where, "belongs to an image that is skipped", "its image is repaired")
        if not self._score(where, kept):
            return None
        self._numbers(where, kept)
        self._measures(where, kept, rle)
        self.usable += good and not repair and kept["image_id"] not in self._tables.unusable
        return kept

    def _size(self, value: Record) -> tuple[int, int] | None:
        """Return height and width of the image of an annotation; None where images are not known."""
        image, category = whole_number(value.get("image_id")), whole_number(value.get("category_id"))
        if self._alone and image is not None and category is not None:
            return None
        record = self._tables.images.get(image) if image is not None else None
        if record is None:
            raise MaskError(f"belongs to the image {value.get('image_id')!r}, which is not listed or was skipped")
        if category not in self._tables.categories:
            raise MaskError(f"has the unknown category {value.get('category_id')!r}")
        return record["height"], record["width"]

    def _mask(self, value: Record, size: tuple[int, int] | None) -> tuple[Rle, Any, tuple[str, str] | None]:
        """Return the mask, the segmentation of the repaired copy, and what was wrong and is repaired."""
        given = value.get("segmentation")
        if given is None:
            raise MaskError("has no segmentation")
        try:
            rle = _read(given, size)
            if not masks.area([rle])[0]:
                raise MaskError("has an empty mask")
            return rle, given, None
        except MaskError as error:
            mended = _mended(given, *size, value.get("bbox")) if size is not None else None
            if mended is None:
                raise
            return mended[0], mended[1], (str(error), mended[2])

    def _score(self, where: str, kept: Record) -> bool:
        """Tell whether a record can stay with its score."""
        score = kept.get("score")
        if "score" not in kept and not self._results:
            return True
        good = not isinstance(score, bool) and isinstance(score, int | float) and math.isfinite(score)
        if not good and self._results:
            self._tables.bad(where, f"has the score {score!r}; a finite number is needed")
            return False
        if not good:
            self._tables.odd(where, f"has the score {score!r}, which is no finite number", "score removed")
            del kept["score"]
        elif not 0 <= score <= 1:  # type: ignore[operator]
            self._tables.odd(where, f"has the score {score!r} outside 0..1")
        return True

    def _numbers(self, where: str, kept: Record) -> None:
        for key in ("image_id", "category_id"):
            if type(kept[key]) is not int:
                self._tables.odd(where, f"has the {key} {kept[key]!r}, which is no whole number", "written as a number")
                kept[key] = whole_number(kept[key])
        crowd = kept.get("iscrowd", 0)
        if type(crowd) is not int or crowd not in (0, 1):
            means = int(crowd in (1, "1"))
            self._tables.odd(where, f"has iscrowd {crowd!r}, which is neither 0 nor 1", f"written as {means}")
            kept["iscrowd"] = means

    def _measures(self, where: str, kept: Record, rle: Rle) -> None:
        area, box = float(masks.area([rle])[0]), masks.boxes([rle])[0].tolist()
        if "area" in kept and not _is_area(kept["area"], area):
            words = f"has the area {kept['area']!r}, its mask has {area:.0f} pixels"
            self._tables.odd(where, words, "area of the mask")
            kept["area"] = area
        # A box that was taken from a polygon holds thin tips that no pixel centre lies in.
        outline = _outline_box(kept["segmentation"]) or box
        if "bbox" in kept and not (_is_box(kept["bbox"], box) or _is_box(kept["bbox"], outline)):
            self._tables.odd(where, f"has the box {kept['bbox']!r}, its mask has {box}", "box of the mask")
            kept["bbox"] = box

    def _identify(self, where: str, number: int | None, kept: Record) -> bool:
        """Give a record an id of its own; return whether readers take it.

        Raises
        ------
        MaskError
            If it is a copy of another annotation.
        """
        if number is None:
            self._tables.odd(where, f"has the id {kept.get('id')!r}", f"numbered {self._next_id}")
            kept["id"] = self._new_id()
            return True
        if number in self._repeated:
            key = _key(kept)
            if self._first.setdefault(number, key) == key and number in self._taken:
                raise MaskError("repeats the annotation with its id")
            if number in self._taken:
                self._tables.bad(where, "has the id of another annotation", f"numbered {self._next_id}")
                kept["id"] = self._new_id()
                return False
            self._taken.add(number)
        if number == 0:
            words = "has the id 0, which COCOeval takes for unmatched"
            self._tables.odd(where, words, f"numbered {self._next_id}")
            kept["id"] = self._new_id()
        elif type(kept["id"]) is not int:
            self._tables.odd(where, f"has the id {kept['id']!r}, which is no whole number", "written as a number")
            kept["id"] = number
        return True

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


def _read(given: Any, size: tuple[int, int] | None) -> Rle:
    if not isinstance(given, list):
        return masks.check(given, size)
    if size is None:
        raise MaskError("has polygons, which say nothing without the size of the image")
    return masks.from_polygons(given, *size)


def _mended(given: Any, height: int, width: int, box: Any) -> tuple[Rle, Any, str] | None:
    """Return the mask, its segmentation and what was done, where a mask can be repaired with certainty."""
    attempts: list[tuple[Any, str, bool]] = []
    if isinstance(given, list):
        good = [part for part in given if _is_good_part(part, height, width)]
        if 0 < len(good) < len(given):
            attempts.append((good, f"{len(given) - len(good)} unusable parts left out", False))
    elif isinstance(given, dict):
        if given.get("size") == [width, height] and height != width:
            attempts.append((given | {"size": [height, width]}, "height and width swapped back", True))
        counts = given.get("counts")
        if isinstance(counts, list) and len(counts) % 2 == 0 and all(type(run) is int and run >= 0 for run in counts):
            missing = height * width - sum(counts)
            if missing > 0:
                attempts.append((given | {"counts": [*counts, missing]}, "last run of zeros added", True))
    for segmentation, words, ask_the_box in attempts:
        try:
            rle = _read(segmentation, (height, width))
        except MaskError:
            continue
        # A mask that was mended by its numbers alone could be any mask; the box says whether it is this one.
        if masks.area([rle])[0] and (not ask_the_box or _is_box(box, masks.boxes([rle])[0].tolist())):
            return rle, segmentation, words
    return None


def _is_good_part(part: Any, height: int, width: int) -> bool:
    try:
        masks.check_polygons([part], height, width)
    except MaskError:
        return False
    return True


def _is_area(given: Any, area: float) -> bool:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given) or given < 0:
        return False
    return max(given, area) <= AREA_FACTOR * min(given, area) or abs(given - area) <= 10


def _is_box(given: Any, box: list[float]) -> bool:
    if not isinstance(given, list) or len(given) != 4:
        return False
    if any(isinstance(side, bool) or not isinstance(side, int | float) or not math.isfinite(side) for side in given):
        return False
    edges = [given[0], given[1], given[0] + given[2], given[1] + given[3]]
    mine = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(edges, mine, strict=True))


def _outline_box(segmentation: Any) -> list[float] | None:
    if not isinstance(segmentation, list):
        return None
    x = [value for part in segmentation for value in part[0::2]]
    y = [value for part in segmentation for value in part[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _key(record: Record) -> bytes:
    parts = [record["image_id"], record["category_id"], record["segmentation"]]
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).digest()
