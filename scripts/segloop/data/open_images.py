"""Open Images V5 and later: a CSV of masks and a binary PNG for each, often of another size than its image."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from segloop.data import masks
from segloop.data.coco_tables import safe_path
from segloop.data.folders import resized, same_ratio, shown_in
from segloop.data.images import IMAGE_SUFFIXES, ImageError, image_size, open_labels
from segloop.data.labelled import Choice, Reader, Record, annotation, every_image
from segloop.data.on_disk import TemporaryDatabase
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

# XMin, XMax, YMin, YMax: not the order of most boxes.
_BOX = ("BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax")
_NEEDED = ("MaskPath", "ImageID", "LabelName")
_OPTIONAL = (*_BOX, "PredictedIoU")


class OpenImagesReader(Reader):
    """Reads the segmentation masks of Open Images.

    Images are numbered from 1 in the order of their ids.

    Parameters
    ----------
    table
        The CSV, such as train-annotations-object-segmentation.csv.
    mask_folder, images
        The folders of PNGs and of images; both may be grouped by the first character of the image's id, in folders
        whose names end with it (`a`, `train_a`, `train-masks-a`).
    names
        The class descriptions: lines of a label such as /m/0cmf2 and a name. Their order gives the category ids, from
        1.

    Raises
    ------
    SegloopError
        If a file is missing, or the CSV lacks a column.
    """

    def __init__(
        self,
        table: Path,
        mask_folder: Path,
        images: Path,
        names: Path,
        report: SkipReport,
        *,
        chosen: Choice = every_image,
    ) -> None:
        categories, self._numbers = _read_names(names)
        super().__init__(table, report, chosen=chosen, categories=categories)
        self._masks, self._folder = _Grouped(mask_folder), _Grouped(images)
        self._rows = _MaskRows(TemporaryDatabase())
        for number, row in tqdm(self._read(table), desc=table.name, unit="row", disable=None):
            self._rows.add(number, row)
        self._rows.complete()

    def _read(self, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the rows of the table with their numbers; the header is row 1."""
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.reader(file)
                header = next(rows, [])
                missing = [name for name in _NEEDED if name not in header]
                if missing:
                    raise SegloopError(f"{path} has no column {', '.join(missing)}. Name a CSV of segmentation masks.")
                places = [(name, header.index(name)) for name in (*_NEEDED, *_OPTIONAL) if name in header]
                for number, row in enumerate((row for row in rows if row), start=2):
                    cells = {name: row[place] for name, place in places} if len(row) == len(header) else {}
                    if cells.get("ImageID"):
                        yield number, cells
                    else:
                        reason = "has no ImageID" if cells else f"has {len(row)} cells, not {len(header)}"
                        self.report.skip(path, f"row {number}", reason)
        except (OSError, UnicodeDecodeError) as error:
            raise SegloopError(f"{path.absolute()} cannot be read as CSV ({error}). Check the path.") from None
        except csv.Error as error:
            raise SegloopError(
                f"{path.absolute()} cannot be read as CSV ({error}, line {rows.line_num}; is there a quote that is not "
                "closed?). Mend the line."
            ) from None

    def images(self) -> Iterator[Record]:
        """Yield the images in the order of their ids."""
        for number, name in enumerate(self._rows.images(), start=1):
            try:
                safe_path(Path(), name)
                path = self._folder.find_image(name)
                if self.chosen(path):
                    width, height = image_size(path)
                    size = {"width": width, "height": height}
                    yield {"id": number, "file_name": str(path), **size, "image_name": name}
            except SegloopError as error:
                self.report.skip(self.source, f"image {name}", str(error))

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the masks of an image in the order of the CSV."""
        for number, one in self._rows.of_image(image["image_name"]):
            try:
                yield self._annotation(one, image)
            except SegloopError as error:
                self.report.skip(self.source, f"row {number}", str(error))

    def _annotation(self, one: Record, image: Record) -> Record:
        category = self._numbers.get(one["LabelName"])
        if category is None:
            raise SegloopError(f"has the label {one['LabelName']!r}, which the class descriptions do not have")
        safe_path(Path(), one["MaskPath"])
        path = self._masks.find(one["MaskPath"])
        pixels = open_labels(path)
        mask = shown_in(pixels)
        height, width = mask.shape
        if (width, height) != (image["width"], image["height"]):
            if not same_ratio(width, height, image["width"], image["height"]):
                size = f"{image['width']} x {image['height']}"
                raise ImageError(f"{path} has {width} x {height} pixels, its image has {size}")
            self.report.tally(self.source, "masks of another size than their image, scaled to it")
            mask = resized(mask, image["height"], image["width"])
        iou = _number(one.get("PredictedIoU"))
        return annotation(0, image["id"], category, masks.encode(mask), box=_box(one, image), predicted_iou=iou)


class _MaskRows:
    """The rows of a table of masks, on disk, by image."""

    def __init__(self, database: TemporaryDatabase) -> None:
        self._base = database
        self._base.run("CREATE TABLE mask (number INTEGER PRIMARY KEY, image TEXT, cells TEXT)")

    def add(self, number: int, row: dict[str, str]) -> None:
        self._base.run("INSERT INTO mask VALUES (?, ?, ?)", (number, row["ImageID"], json.dumps(row)))

    def complete(self) -> None:
        self._base.run("CREATE INDEX mask_by_image ON mask (image)")

    def images(self) -> Iterator[str]:
        """Yield the images, sorted by the bytes of their ids."""
        last = ""
        words = "SELECT DISTINCT image FROM mask WHERE image > ? ORDER BY image LIMIT 512"
        while rows := self._base.all(words, (last,)):
            yield from (image for (image,) in rows)
            last = rows[-1][0]

    def of_image(self, image: str) -> Iterator[tuple[int, dict[str, str]]]:
        words = "SELECT number, cells FROM mask WHERE image = ? ORDER BY number"
        for number, cells in self._base.all(words, (image,)):
            yield number, json.loads(cells)


class _Grouped:
    """Finds files that may be grouped by their first character."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            inside = sorted(path for path in folder.iterdir() if path.is_dir())
        except OSError as error:
            raise SegloopError(f"{folder.absolute()} cannot be read ({error}). Check data_root and the path.") from None
        self._groups: dict[str, list[Path]] = {}
        for path in inside:
            self._groups.setdefault(path.name[-1], []).append(path)

    def find(self, name: str) -> Path:
        """Return the path of a file, whether or not it exists."""
        paths = [self._folder / name, *(group / name for group in self._groups.get(name[0], []))]
        return next((path for path in paths if path.exists()), paths[0])

    def find_image(self, name: str) -> Path:
        """Return the path of an image: Open Images has JPEGs, exports in its form keep what their images were."""
        usual = self.find(f"{name}.jpg")
        others = (self.find(name + suffix) for suffix in sorted(IMAGE_SUFFIXES) if not usual.exists())
        return next((path for path in others if path.exists()), usual)


def _box(one: Record, image: Record) -> list[float] | None:
    """Return x, y, width and height in pixels."""
    left, right, top, bottom = (_number(one.get(key)) for key in _BOX)
    if left is None or right is None or top is None or bottom is None:
        return None
    width, height = image["width"], image["height"]
    return [left * width, top * height, (right - left) * width, (bottom - top) * height]


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _read_names(path: Path) -> tuple[dict[int, Record], dict[str, int]]:
    """Return categories by id, and ids by label."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) >= 2 and row[0].startswith("/")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SegloopError(f"the class descriptions {path.absolute()} cannot be read ({error}).") from None
    if not rows:
        raise SegloopError(f"the class descriptions {path} hold no line of a label such as /m/0cmf2 and a name.")
    numbers = {row[0]: number for number, row in enumerate(rows, start=1)}
    if len(numbers) < len(rows):
        raise SegloopError(f"the class descriptions {path} have a label twice.")
    return {n: {"id": n, "name": row[1].strip(), "label": row[0]} for n, row in enumerate(rows, start=1)}, numbers
