"""Examining COCO data sets and results files, and writing a repaired copy.

A file is read twice, record by record: once for its images, categories and ids, once for its annotations.
"""

import json
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from segloop.data.coco_rows import Rows
from segloop.data.coco_tables import file_name_of, is_unicode, whole_number
from segloop.data.doctor.coco_records import Annotations
from segloop.data.doctor.coco_tables import CheckImages, Tables
from segloop.data.doctor.findings import Examination
from segloop.data.json_stream import JsonFile, Member
from segloop.data.labelled import Record
from segloop.data.on_disk import DiskTable, NoRoomError, TemporaryDatabase
from segloop.errors import SegloopError
from segloop.files import atomic_file


def examine_coco(
    path: Path,
    form: str,
    *,
    images: Path | None,
    images_are_there: bool = True,
    check: CheckImages = "decode",
    catalogue: Path | None = None,
    repaired: Path | None = None,
) -> Examination:
    """Examine a COCO file.

    Parameters
    ----------
    form
        `coco`, `lvis`, `question_bundle` or `coco_results`.
    images
        The folder of images; None: the images are not looked at.
    images_are_there
        False where the folder is a guess: it counts only if an image of the set lies there.
    catalogue
        For results: the COCO file they refer to; None: what they refer to is not examined.
    repaired
        Where to write a copy without what is wrong.

    Returns
    -------
    What was found. A file that cannot be read at all is a finding, too.
    """
    found = Examination(path, form)
    try:
        head = _Head.read(path)
        results = form == "coco_results"
        tables = Tables(path, found)
        source = _source_of_tables(tables, head, catalogue, results=results)
        if source is not None:
            folder = images if check != "none" else None
            if folder is None or not (images_are_there or _any_exists(folder, source.images.values())):
                found.unchecked.append("image files; name their folder by --image-root")
                folder = None
            tables.take_images(source.images.values(), folder, check)
        place = atomic_file(repaired) if repaired is not None else nullcontext()
        with place as temporary:
            _examine_annotations(path, head, tables, found, temporary, results=results, alone=results and not catalogue)
    except NoRoomError:
        raise
    except SegloopError as error:
        found.fatal = str(error)
    return found


class _Head:
    """What the first reading of a file gathers: everything but the annotations."""

    def __init__(self) -> None:
        database = TemporaryDatabase()
        self.images: DiskTable[int, Any] = DiskTable(database)
        self.categories: list[Any] = []
        self.rest: dict[str, Any] = {}
        self.lists: set[str] = set()
        self.is_list = False
        self.count_of_images = self.annotations = 0
        self.next_id = 1
        self.repeated: set[int] = set()
        self._rows = Rows(database)

    @staticmethod
    def read(path: Path) -> "_Head":
        head = _Head()
        with JsonFile(path) as file:
            for member in file.members():
                head._take(member)
            head.lists, head.is_list = file.lists, file.is_list
        head.repeated = head._rows.repeated()
        return head

    def _take(self, member: Member) -> None:
        if member.listed and member.key in ("annotations", ""):
            self.annotations += 1
            self._rows.add(member.value, member.start, member.length)
            number = whole_number(member.value.get("id")) if isinstance(member.value, dict) else None
            self.next_id = max(self.next_id, number + 1) if number is not None else self.next_id
        elif member.listed and member.key == "images":
            self.images[self.count_of_images] = member.value
            self.count_of_images += 1
        elif member.listed and member.key == "categories":
            self.categories.append(member.value)
        elif member.listed:
            self.rest.setdefault(member.key, []).append(member.value)
        else:
            self.rest[member.key] = member.value


def _source_of_tables(tables: Tables, head: _Head, catalogue: Path | None, *, results: bool) -> _Head | None:
    """Examine the categories, and return where the images stand; None where they are not known."""
    found = tables.found
    found.annotations = head.annotations
    if results and not head.is_list:
        raise SegloopError("it is no results file, because it is no list; examine it as coco")
    if not results and not {"images", "annotations"} <= head.lists:
        kind = "a list, as results files are" if head.is_list else "without lists of images and annotations"
        raise SegloopError(f"it is no COCO data set: it is {kind}")
    if results and catalogue is None:
        found.unchecked.append("images and categories of the results; name their COCO file by --category-table")
        return None
    source = _Head.read(catalogue) if catalogue is not None else head
    found.images = source.count_of_images
    if not source.categories:
        found.fatal = "it has no categories"
        source.categories = _categories_of(tables.path)
        tables.bad("categories", "are missing", "named after the ids that annotations have")
    tables.take_categories(source.categories)
    return source


def _any_exists(folder: Path, images: Iterable[Any]) -> bool:
    for image in images:
        name = file_name_of(image) if isinstance(image, dict) else None
        if isinstance(name, str) and "\0" not in name and is_unicode(name) and (folder / name).is_file():
            return True
    return False


def _categories_of(path: Path) -> list[Record]:
    numbers: set[int] = set()
    with JsonFile(path) as file:
        for member in file.members():
            if member.key == "annotations" and member.listed and isinstance(member.value, dict):
                number = whole_number(member.value.get("category_id"))
                numbers |= {number} if number is not None else set()
    return [{"id": number, "name": f"category {number}"} for number in sorted(numbers)]


def _examine_annotations(
    path: Path, head: _Head, tables: Tables, found: Examination, target: Path | None, *, results: bool, alone: bool
) -> None:
    judge = Annotations(tables, head.repeated, head.next_id, results=results, alone=alone)
    with JsonFile(path) as file, _Copy(target) as copy:
        if not results:
            copy.begin(head.rest, tables)
        place = 0
        for member in file.members():
            if member.listed and member.key in ("annotations", ""):
                kept = judge.judge(place, member.value)
                place += 1
                if kept is not None:
                    copy.add(kept)
        copy.end(results=results)
    found.usable_annotations = judge.usable


class _Copy:
    """The repaired copy, written record by record; without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._count = 0

    def __enter__(self) -> "_Copy":
        if self._path is not None:
            self._file = self._path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def begin(self, rest: dict[str, Any], tables: Tables) -> None:
        """Write all that comes before the annotations."""
        self._write(_json(rest | {"categories": list(tables.categories.values())})[:-1] + ', "images": [')
        for place, image in enumerate(tables.images.values()):
            self._write((", " if place else "") + _json(image))
        self._write('], "annotations": ')

    def add(self, record: Record) -> None:
        """Write an annotation."""
        self._write(("[" if not self._count else ",") + "\n" + _json(record))
        self._count += 1

    def end(self, *, results: bool) -> None:
        """Write what closes the file."""
        self._write(("[]" if not self._count else "]") + ("\n" if results else "}\n"))

    def _write(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value
