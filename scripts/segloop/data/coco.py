"""COCO files: read with every record checked, written in the one form the loop uses.

The canonical form: annotations numbered from 1 (COCOeval takes a truth with id 0 for unmatched), masks as compressed
run lengths, area and box recomputed from the mask, image paths that open from the run directory.

A file is read twice. The first reading notes on disk where each annotation lies (`segloop.data.coco_rows`), and checks
ids; the second one takes the annotations of one image after the other. Memory grows neither with masks nor with images.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from segloop.data import masks
from segloop.data.coco_rows import Row, Rows
from segloop.data.coco_tables import CocoTables, ImageTable, Sizes, read_categories, whole_number
from segloop.data.images import ImageError, image_size
from segloop.data.json_stream import JsonFile
from segloop.data.labelled import Choice, LabelledSet, Reader, Record, annotation, every_image, whole
from segloop.data.masks import MaskError
from segloop.data.on_disk import TemporaryDatabase
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_file, write_json


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
    database
        Where images and places of annotations wait; None: in one of their own.

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
        database: TemporaryDatabase | None = None,
    ) -> None:
        super().__init__(path, report, chosen=chosen)
        self._rasterise = rasterise
        self._keys = annotation_keys
        self._file = JsonFile(path)
        database = database if database is not None else TemporaryDatabase()
        sizes: Sizes = "listed" if sizes_from_masks else "check" if check_images else "known"
        self._images = ImageTable(
            catalogue or path, images, report, sizes, image_keys, chosen=chosen, database=database
        )
        self._rows = Rows(database)
        tables = CocoTables(self._images)
        for member in self._file.members():
            if member.key == ("annotations" if catalogue is None else "") and member.listed:
                self._rows.add(member.value, member.start, member.length)
            elif catalogue is None:
                tables.keep(member)
        self._check_kind(results=catalogue is not None)
        if catalogue is not None:
            _read_catalogue(catalogue, tables)
        self._rows.complete()
        self.categories = read_categories(catalogue or path, tables.categories, category_keys)
        self._images.complete()
        if sizes_from_masks:
            self._find_sizes()
        self._report_unusable()

    def _find_sizes(self) -> None:
        """Give images without size that of their file, or else of their first mask."""
        for number, image in self._images.usable.items():
            if image["width"]:
                continue
            try:
                image["width"], image["height"] = image_size(image["file_name"])
            except ImageError as error:
                row = next(self._rows.of_image(number), None)
                segmentation = self._value(row).get("segmentation") if row is not None else None
                try:
                    image["height"], image["width"] = masks.check(segmentation)["size"]
                except MaskError:
                    self.report.skip(self.source, f"image {number}", f"has no size, and {error}")
                    del self._images.usable[number]
                    continue
            self._images.usable[number] = image

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
        yield from self._images.usable.values()

    def has(self, image: Record) -> bool:
        """Tell whether the file has an image, with the same name and size."""
        return self._images.usable.get(image["id"]) == image

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the annotations of an image, in the order of the file."""
        for row in self._rows.of_image(image["id"]):
            try:
                yield self._annotation(self._value(row), image)
            except MaskError as error:
                self.report.skip(self.source, self._name(row), str(error))

    def _value(self, row: Row) -> Any:
        return self._file.read(row.start, row.length)

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

    def _report_unusable(self) -> None:
        """Report the annotations that belong to no image or to no category, or repeat an id, in the file's order."""
        for row in self._rows.take_unusable(self._images, list(self.categories)):
            value = self._value(row)
            if not isinstance(value, dict):
                reason = f"is {type(value).__name__}, not an object"
            elif row.image is None or row.image not in self._images:
                reason = f"belongs to the image {value.get('image_id')!r}, which is not listed or was skipped"
            elif row.category not in self.categories:
                reason = f"has the unknown category {value.get('category_id')!r}"
            else:
                reason = "has the id of another annotation"
            self.report.skip(self.source, self._name(row), reason)

    def _name(self, row: Row) -> str:
        listed = "results" if self._file.is_list else "annotations"
        return f"annotation {row.number}" if row.number is not None else f"{listed}[{row.place}]"


def _score(value: Any) -> float:
    """Return a score; COCOeval takes NaN without a word, and ranks by it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MaskError(f"has the score {value!r}; a finite number is needed")
    return float(value)


def _read_catalogue(path: Path, tables: CocoTables) -> None:
    """Take the images and categories of a COCO file, whatever else it has."""
    with JsonFile(path) as file:
        for member in file.members():
            tables.keep(member)
        if "images" not in file.lists:
            raise SegloopError(f"{path} has no list of images. Name the COCO file that the results refer to.")


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
    images = count = 0
    # Categories may be known only at the end; images wait in a file of their own, and not in memory.
    with atomic_file(path, sealed=True) as temporary, TemporaryFile("w+", encoding="utf-8", dir=path.parent) as listed:
        with temporary.open("w", encoding="utf-8") as file:
            file.write('{"annotations": [')
            for image, found in dataset.labelled():
                listed.write((", " if images else "") + _json(image))
                images += 1
                for one in found:
                    file.write((", " if count else "") + _json(one))
                    count += 1
            file.write("], " + _json({"info": {"source": dataset.source.name}})[1:-1] + ', "images": [')
            listed.seek(0)
            shutil.copyfileobj(listed, file)
            file.write("], " + _json({"categories": dataset.categories})[1:] + "\n")
        if check is not None:
            check(images, count)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
