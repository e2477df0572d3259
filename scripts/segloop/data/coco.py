"""COCO files: read with every record checked, written in the one form the loop uses.

The canonical form: annotations numbered from 1 (COCOeval takes a truth with id 0 for unmatched), masks as compressed
run lengths, area and box recomputed from the mask, image paths that open from the run directory.

A file is read twice. The first reading finds where each annotation lies, and checks ids; the second one takes the
annotations of one image after the other, so that memory does not grow with the masks.
"""

import json
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.data import masks
from segloop.data.coco_tables import CocoTables, Sizes, read_categories, read_images, whole_number
from segloop.data.images import ImageError, image_size
from segloop.data.json_stream import JsonFile
from segloop.data.labelled import Choice, LabelledSet, Reader, Record, annotation, every_image, whole
from segloop.data.masks import MaskError
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_file, write_json

_NO_NUMBER = -(1 << 63)


class CocoReader(Reader):
    """Reads COCO data sets: polygons, uncompressed and compressed RLE, crowds.

    Parameters
    ----------
    path
        The JSON file.
    images
        The folder that `file_name` is relative to.
    report
        Takes the records that cannot be used: a mask whose runs do not add up, an unknown category or image, a
        repeated id, an annotation without a mask.
    catalogue
        Another COCO file; then the first one is a list of results, which refer to its images and categories. Their
        scores are kept, and their boxes are not used.
    check_images
        Open the head of every image file, and skip images that are missing, unreadable or of another size.
    sizes_from_masks
        An image without size has that of its file or, without file, that of its first mask.
    rasterise
        False leaves polygons as they are once they are checked, with the source's area and box.
    image_keys, category_keys, annotation_keys
        Further keys of the file's records that are kept.

    Raises
    ------
    SegloopError
        If the file is no COCO data set.
    """

    def __init__(
        self,
        path: Path,
        images: Path,
        report: SkipReport,
        *,
        chosen: Choice = every_image,
        catalogue: Path | None = None,
        check_images: bool = False,
        sizes_from_masks: bool = False,
        rasterise: bool = True,
        image_keys: Sequence[str] = (),
        category_keys: Sequence[str] = (),
        annotation_keys: Sequence[str] = (),
    ) -> None:
        super().__init__(path, report, chosen=chosen)
        self._rasterise = rasterise
        self._keys = annotation_keys
        self._file = JsonFile(path)
        self._rows = _Rows()
        tables = CocoTables()
        for member in self._file.members():
            if member.key == ("annotations" if catalogue is None else "") and member.listed:
                self._rows.add(member.value, member.start, member.length)
            elif catalogue is None:
                tables.keep(member)
        self._check_kind(results=catalogue is not None)
        if catalogue is not None:
            tables = _catalogue(catalogue)
        self._rows.sort()
        self.categories = read_categories(catalogue or path, tables.categories, category_keys)
        unchosen: set[int] = set()
        sizes: Sizes = "listed" if sizes_from_masks else "check" if check_images else "known"
        self._images = read_images(
            catalogue or path, tables.images, images, report, sizes, image_keys, chosen=chosen, unchosen=unchosen
        )
        del tables
        if sizes_from_masks:
            self._find_sizes()
        self._report_unusable(unchosen)

    def _find_sizes(self) -> None:
        """Give images without size that of their file, or else of their first mask."""
        for image in [one for one in self._images.values() if not one["width"]]:
            try:
                image["width"], image["height"] = image_size(image["file_name"])
            except ImageError as error:
                found = [self._file.read(*self._rows.place(row)) for row in self._rows.of_image(image["id"])[:1]]
                segmentation = found[0].get("segmentation") if found else None
                try:
                    image["height"], image["width"] = masks.check(segmentation)["size"]
                except MaskError:
                    self.report.skip(self.source, f"image {image['id']}", f"has no size, and {error}")
                    del self._images[image["id"]]

    def _check_kind(self, *, results: bool) -> None:
        lists = self._file.lists
        if results and not self._file.is_list:
            raise SegloopError(f"{self.source} is no results file: it is no list. Use the format coco.")
        if not results and not {"images", "annotations"} <= lists:
            listed = "a list, as results files are (format coco_results)"
            kind = listed if self._file.is_list else "without lists of images and annotations"
            raise SegloopError(
                f"{self.source} is no COCO data set: it is {kind}. Name a file with images and annotations."
            )

    def images(self) -> Iterator[Record]:
        """Yield the images, in the order of the file."""
        yield from self._images.values()

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the annotations of an image, in the order of the file."""
        for row in self._rows.of_image(image["id"]):
            value = self._file.read(*self._rows.place(row))
            try:
                yield self._annotation(value, image)
            except MaskError as error:
                self.report.skip(self.source, self._name(row), str(error))

    def number_of_annotations(self, image: Record) -> int:
        """Return how many annotations an image has, usable or not."""
        return len(self._rows.of_image(image["id"]))

    def _annotation(self, value: Record, image: Record) -> Record:
        segmentation, crowd = value.get("segmentation"), value.get("iscrowd") in (1, "1")
        extra = {key: value[key] for key in self._keys if key in value}
        if self._file.is_list:
            extra["score"] = _score(value.get("score"))
        number, category = whole_number(value.get("id")), whole_number(value["category_id"])
        assert category is not None
        if isinstance(segmentation, list) and not self._rasterise:
            masks.check_polygons(segmentation, image["height"], image["width"])
            made = {key: value.get(key) for key in ("area", "bbox")} | {"segmentation": segmentation}
            return {"id": 0, "image_id": image["id"], "category_id": category, "iscrowd": int(crowd)} | made | extra
        if isinstance(segmentation, list):
            rle = masks.from_polygons(segmentation, image["height"], image["width"])
        elif segmentation is None:
            raise MaskError("has no segmentation")
        else:
            rle = masks.check(segmentation, (image["height"], image["width"]))
        return annotation(0, image["id"], category, rle, crowd=crowd, source_id=number, **extra)

    def _report_unusable(self, unchosen: set[int]) -> None:
        """Report the annotations that belong to no image or to no category, or repeat an id, in the file's order."""
        known = unchosen | set(self._images)
        for row in self._rows.unusable(known, set(self.categories)):
            value = self._file.read(*self._rows.place(row))
            if not isinstance(value, dict):
                reason = f"is {type(value).__name__}, not an object"
            elif whole_number(value.get("image_id")) not in known:
                reason = f"belongs to the image {value.get('image_id')!r}, which is not listed or was skipped"
            elif whole_number(value.get("category_id")) not in self.categories:
                reason = f"has the unknown category {value.get('category_id')!r}"
            else:
                reason = "has the id of another annotation"
            self.report.skip(self.source, self._name(row), reason)

    def _name(self, row: int) -> str:
        number = self._rows.number[row]
        listed = "results" if self._file.is_list else "annotations"
        return f"annotation {number}" if number != _NO_NUMBER else f"{listed}[{row}]"


def _score(value: Any) -> float:
    """Return a score; COCOeval takes NaN without a word, and ranks by it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MaskError(f"has the score {value!r}; a finite number is needed")
    return float(value)


class _Rows:
    """Where the annotations lie in the file, and what they belong to: 40 bytes each."""

    def __init__(self) -> None:
        self.start, self.length, self.number = array("q"), array("q"), array("q")
        self._image, self._category = array("q"), array("q")
        self._order: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._sorted: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, value: Any, start: int, length: int) -> None:
        self.start.append(start)
        self.length.append(length)
        known = value if isinstance(value, dict) else {}
        for column, key in ((self.number, "id"), (self._image, "image_id"), (self._category, "category_id")):
            number = known.get(key)
            if type(number) is not int or not -(1 << 63) < number < 1 << 63:
                number = whole_number(number)
            column.append(number if number is not None else _NO_NUMBER)

    def sort(self) -> None:
        """Bring the annotations of each image together."""
        image = np.frombuffer(self._image, np.int64)
        self._order = np.argsort(image, kind="stable")
        self._sorted = image[self._order]

    def unusable(self, images: set[int], categories: set[int]) -> list[int]:
        """Return the rows without image or category, or with a repeated id; they belong to no image from now on."""
        image, category, number = (
            np.frombuffer(column, np.int64) for column in (self._image, self._category, self.number)
        )
        usable = np.isin(image, np.fromiter(images, np.int64, len(images)))
        usable &= np.isin(category, np.fromiter(categories, np.int64, len(categories)))
        usable &= image != _NO_NUMBER
        usable &= category != _NO_NUMBER
        # Of annotations with one id the first that is usable keeps it.
        rows = np.flatnonzero(usable & (number != _NO_NUMBER))
        first = rows[np.unique(number[rows], return_index=True)[1]]
        repeated = np.zeros(len(usable), bool)
        repeated[rows] = True
        repeated[first] = False
        usable &= ~repeated
        kept = usable[self._order]
        self._order, self._sorted = self._order[kept], self._sorted[kept]
        return [int(row) for row in np.flatnonzero(~usable)]

    def of_image(self, image: int) -> npt.NDArray[np.int64]:
        first, last = np.searchsorted(self._sorted, [image, image + 1])
        return self._order[first:last]

    def place(self, row: int) -> tuple[int, int]:
        return self.start[row], self.length[row]


def _catalogue(path: Path) -> CocoTables:
    """Return the images and categories of a COCO file, whatever else it has."""
    tables = CocoTables()
    with JsonFile(path) as file:
        for member in file.members():
            tables.keep(member)
        if "images" not in file.lists:
            raise SegloopError(f"{path} has no list of images. Name the COCO file that the results refer to.")
    return tables


def read_coco(annotations: Path, images: Path, report: SkipReport, *, check_images: bool = False) -> Record:
    """Read a COCO data set at once and return it in canonical form; `CocoReader` has the details."""
    return whole(LabelledSet(CocoReader(annotations, images, report, check_images=check_images)))


def write_canonical(path: Path, dataset: Record) -> None:
    """Write a canonical data set."""
    write_json(path, dataset)


def write_labelled_set(path: Path, dataset: LabelledSet, check: Callable[[int, int], None] | None = None) -> None:
    """Write a labelled set in canonical form while it is read.

    Parameters
    ----------
    check
        Called with the numbers of images and annotations before the file takes its place; what it raises keeps the
        file from being made.
    """
    images, count = [], 0
    with atomic_file(path, sealed=True) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            file.write('{"annotations": [')
            for image, found in dataset.labelled():
                images.append(image)
                for one in found:
                    file.write((", " if count else "") + _json(one))
                    count += 1
            rest = {"info": {"source": dataset.source.name}, "images": images, "categories": dataset.categories}
            file.write("], " + _json(rest)[1:] + "\n")
        if check is not None:
            check(len(images), count)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
