"""COCO files: read with every record checked, written in the one form the loop uses.

The canonical form: annotations numbered from 1 (COCOeval takes a truth with id 0 for unmatched), masks as compressed
run lengths, area and box recomputed from the mask, image paths that open from the run directory.

A file is read twice. The first reading finds where each annotation lies, and checks ids; the second one takes the
annotations of one image after the other, so that memory does not grow with the masks.
"""

import json
import math
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segloop.data import images as image_files
from segloop.data import masks
from segloop.data.json_stream import JsonFile
from segloop.data.labelled import (
    Choice,
    LabelledSet,
    Reader,
    Record,
    annotation,
    every_image,
    whole,
)
from segloop.data.masks import MaskError
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_file, write_json

Sizes = Literal["known", "check", "listed"]
# Stores keep categories in 32 bits.
MAX_CATEGORY = (1 << 31) - 1
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
        Another COCO file whose images and categories the annotations refer to, as those of results files do.
    check_images
        Open the head of every image file, and skip images that are missing, unreadable or of another size.
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
        values: dict[str, Any] = {"images": []}
        for member in self._file.members():
            if member.key == ("annotations" if catalogue is None else "") and member.listed:
                self._rows.add(member.value, member.start, member.length)
            elif catalogue is None:
                _keep(values, member.key, member.value, listed=member.listed)
        self._check_kind(results=catalogue is not None)
        if catalogue is not None:
            values = _catalogue(catalogue)
        self.categories = _categories(catalogue or path, values.get("categories"), category_keys)
        unchosen: set[int] = set()
        sizes: Sizes = "check" if check_images else "known"
        self._images = read_images(
            catalogue or path, values["images"], images, report, sizes, image_keys, chosen=chosen, unchosen=unchosen
        )
        del values
        self._rows.sort()
        self._report_unusable(unchosen)

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


def _keep(values: dict[str, Any], key: str, value: Any, *, listed: bool) -> None:
    """Keep a value of the outermost object that is read whole."""
    if key not in ("images", "categories"):
        return
    if listed:
        values.setdefault(key, []).append(value)
    elif key == "categories":
        values[key] = value


def _catalogue(path: Path) -> dict[str, Any]:
    """Return the images and categories of a COCO file."""
    values: dict[str, Any] = {"images": []}
    with JsonFile(path) as file:
        for member in file.members():
            _keep(values, member.key, member.value, listed=member.listed)
        if "images" not in file.lists:
            raise SegloopError(
                f"{path} has no list of images. Set `categories` to the COCO file that results refer to."
            )
    return values


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
    with atomic_file(path) as temporary:
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


def safe_path(folder: Path, name: Any) -> Path:
    """Join a file name from a data set to its folder.

    Raises
    ------
    SegloopError
        If the name is no text, is absolute, or leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise SegloopError(f"has the file name {name!r}")
    path = Path(name)
    if not _is_unicode(name):
        raise SegloopError(f"has the file name {name!r}, which is not Unicode text")
    if path.is_absolute() or ".." in path.parts:
        raise SegloopError(f"has the file name {name!r}, which leads out of the image folder")
    return folder / path


def _is_unicode(text: str) -> bool:
    # JSON may escape half a character ("\\ud800"), and a file system may hold any bytes; neither can be written again.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def whole_number(value: Any) -> int | None:
    """Return an id as a whole number; ids written as text or as 1.0 are common."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value) else None
    elif isinstance(value, float):
        value = int(value) if math.isfinite(value) and value == int(value) else None
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None


def _categories(path: Path, values: Any, keys: Sequence[str]) -> dict[int, Record]:
    if not isinstance(values, list) or not values:
        raise SegloopError(f"{path} has no categories. Add the list of categories with their ids and names.")
    categories: dict[int, Record] = {}
    for value in values:
        number = whole_number(value.get("id")) if isinstance(value, dict) else None
        if number is None or not isinstance(value.get("name"), str) or not _is_unicode(value["name"]):
            raise SegloopError(f"{path}: the category {value!r} needs a whole number as id and a name.")
        if abs(number) > MAX_CATEGORY:
            raise SegloopError(f"{path}: the category id {number} does not fit 32 bits. Give it a smaller one.")
        if number in categories:
            raise SegloopError(f"{path}: two categories have the id {number}. Give each its own.")
        extra = {"supercategory": value["supercategory"]} if isinstance(value.get("supercategory"), str) else {}
        extra |= {key: value[key] for key in keys if key in value}
        categories[number] = {"id": number, "name": value["name"].strip(), **extra}
    return categories


def read_images(
    path: Path,
    values: list[Any],
    folder: Path,
    report: SkipReport,
    sizes: Sizes = "known",
    keys: Sequence[str] = (),
    *,
    chosen: Choice = every_image,
    unchosen: set[int] | None = None,
) -> dict[int, Record]:
    """Return the images of a COCO file by id, each with a path, a width and a height.

    Images that cannot be used go to the report: a repeated or unusable id, an unusable name, an unknown size.

    Parameters
    ----------
    sizes
        `known`: a missing size is read from the image file. `check`: every size is compared with the file's.
        `listed`: no file is opened, and a missing size is 0.
    keys
        Further keys that are kept.
    chosen, unchosen
        Which images are wanted; the ids of the others are added to the set.
    """
    others = unchosen if unchosen is not None else set()
    found: dict[int, Record] = {}
    for place, value in enumerate(values):
        number = whole_number(value.get("id")) if isinstance(value, dict) else None
        if number is None:
            report.skip(path, f"images[{place}]", "an image needs a whole number as id")
        elif number in found or number in others:
            report.skip(path, f"image {number}", "another image has the same id")
        else:
            try:
                path_of_image = safe_path(folder, _file_name(value))
                if not chosen(path_of_image):
                    others.add(number)
                    continue
                found[number] = _image(number, value, path_of_image, sizes)
                found[number] |= {key: value[key] for key in keys if key in value}
            except SegloopError as error:
                report.skip(path, f"image {number}", str(error))
    return found


def _image(number: int, value: Record, path: Path, sizes: Sizes) -> Record:
    width, height = whole_number(value.get("width")), whole_number(value.get("height"))
    if not width or not height or width < 0 or height < 0:
        width, height = (0, 0) if sizes == "listed" else image_files.image_size(path)
    elif width * height > image_files.MAX_PIXELS:
        raise SegloopError(f"has {width} x {height} pixels, more than the limit of {image_files.MAX_PIXELS}")
    elif sizes == "check":
        found = image_files.image_size(path)
        if found != (width, height):
            raise SegloopError(f"{path} has {found[0]} x {found[1]} pixels, the data set says {width} x {height}")
    return {"id": number, "file_name": str(path), "width": width, "height": height}


def _file_name(value: Record) -> Any:
    # LVIS v0.5 gives names of COCO 2014 beside URLs of 2017, and LVIS v1 URLs alone; the URL is what exists. A set
    # whose images were renamed keeps its old URLs, so that a name of another kind goes before the URL.
    name, url = value.get("file_name"), value.get("coco_url")
    if not isinstance(url, str) or url.count("/") < 2:
        return name
    renamed = isinstance(name, str) and name.startswith("COCO_") and Path(name).name != Path(url).name
    return "/".join(url.split("/")[-2:]) if name is None or renamed else name
