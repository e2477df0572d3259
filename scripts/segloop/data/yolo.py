"""YOLO segmentation: a text file an image, a line a ring: class from 0, then x and y as shares of width and height."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segloop.data import masks
from segloop.data.categories import read_lines
from segloop.data.folders import FolderReader
from segloop.data.images import IMAGE_SUFFIXES
from segloop.data.labelled import Choice, Record, annotation, every_image
from segloop.data.masks import MaskError
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import parse_yaml


class YoloReader(FolderReader):
    """Reads YOLO segmentation labels. The format has no holes, and one ring an object.

    Parameters
    ----------
    annotations, images
        Folders such as `labels/train` and `images/train`.
    names
        data.yaml with `names`, or a text file with one name a line.
    """

    what = "label files"
    pattern = "**/*.txt"
    suffixes = (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"}))

    def __init__(
        self, annotations: Path, images: Path, names: Path, report: SkipReport, *, chosen: Choice = every_image
    ) -> None:
        super().__init__(annotations, images, report, chosen=chosen, categories=_read_names(names))

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield one mask for each line of an image's file."""
        file = self.file_of(image)
        for place, line in enumerate(read_lines(file, "label file"), start=1):
            if not line.strip():
                continue
            try:
                yield self._annotation(line.split(), image)
            except MaskError as error:
                self.report.skip(file, f"line {place}", str(error))

    def _annotation(self, cells: list[str], image: Record) -> Record:
        if not cells[0].isdecimal() or int(cells[0]) not in self.categories:
            raise MaskError(f"has the unknown class {cells[0]!r}")
        if len(cells) == 5:
            raise MaskError("is a box, not an outline")
        try:
            values = [float(cell) for cell in cells[1:]]
        except ValueError as error:
            raise MaskError(f"has a coordinate that is no number ({error})") from None
        if not all(math.isfinite(value) and -0.5 <= value <= 1.5 for value in values):
            raise MaskError("has coordinates that are no shares of the image's sides")
        sides = (image["width"], image["height"])
        points = [value * sides[place % 2] for place, value in enumerate(values)]
        rle = masks.from_polygons([points], image["height"], image["width"])
        return annotation(0, image["id"], int(cells[0]), rle)


def _read_names(path: Path) -> dict[int, Record]:
    if path.suffix.lower() not in (".yaml", ".yml"):
        names: Any = [line.strip() for line in read_lines(path, "list of class names") if line.strip()]
    else:
        value = parse_yaml("\n".join(read_lines(path, "data set's YAML file")), str(path))
        names = value.get("names") if isinstance(value, dict) else None
    pairs = (
        list(names.items()) if isinstance(names, dict) else list(enumerate(names)) if isinstance(names, list) else []
    )
    if not pairs or not all(isinstance(number, int) and isinstance(name, str) for number, name in pairs):
        raise SegloopError(f"{path} has no names of classes. It needs `names`: a list, or numbers with names.")
    return {number: {"id": number, "name": name.strip()} for number, name in pairs}
