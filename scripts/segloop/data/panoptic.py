"""COCO panoptic: one PNG an image, whose pixels hold the number of a segment as R + 256 G + 65536 B.

Things become annotations; stuff has no instances and is left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segloop.data import masks
from segloop.data.coco_tables import CocoTables, ImageTable, read_categories, safe_path, whole_number
from segloop.data.images import ImageError, open_labels
from segloop.data.json_stream import JsonFile
from segloop.data.labelled import Choice, Reader, Record, annotation, every_image
from segloop.data.masks import MaskError
from segloop.data.on_disk import DiskTable, TemporaryDatabase
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


class PanopticReader(Reader):
    """Reads COCO panoptic sets.

    Parameters
    ----------
    path
        The JSON file, such as panoptic_val2017.json.
    pngs
        The folder of PNGs; None: the one beside the file with its name, such as panoptic_val2017.
    images
        The folder that `file_name` of the images is relative to.
    """

    def __init__(
        self,
        path: Path,
        pngs: Path | None,
        images: Path,
        report: SkipReport,
        *,
        chosen: Choice = every_image,
        check_images: bool = False,
    ) -> None:
        super().__init__(path, report, chosen=chosen)
        self._pngs = pngs if pngs is not None else path.with_suffix("")
        self._file = JsonFile(path)
        database = TemporaryDatabase()
        self._images = ImageTable(
            path, images, report, "check" if check_images else "known", chosen=chosen, database=database
        )
        self._places: DiskTable[int, tuple[int, int]] = DiskTable(database)
        tables = CocoTables(self._images)
        repeated: list[int] = []
        for member in self._file.members():
            tables.keep(member)
            if member.key == "annotations" and member.listed:
                number = whole_number(member.value.get("image_id")) if isinstance(member.value, dict) else None
                if number is None or not isinstance(member.value.get("segments_info"), list):
                    report.skip(path, "annotation", "needs an image_id and segments_info")
                elif number in self._places:
                    repeated.append(number)
                else:
                    self._places[number] = member.start, member.length
        if not {"images", "annotations"} <= self._file.lists:
            raise SegloopError(f"{path} is no panoptic set: it has no lists of images and annotations.")
        self.categories = read_categories(path, tables.categories, ("isthing",))
        self._images.complete()
        for number in repeated:
            report.skip(path, f"image {number}", "has a second annotation, which is not read")

    def images(self) -> Iterator[Record]:
        """Yield the images, in the order of the file."""
        yield from self._images.usable.values()

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the segments of an image that are things, in the order of its annotation."""
        where = self._places.get(image["id"])
        if where is None:
            self.report.tally(self.source, "images without annotation")
            return
        value = self._file.read(*where)
        png = safe_path(self._pngs, value.get("file_name"))
        pixels = open_labels(png)
        if pixels.ndim != 3:
            raise ImageError(f"{png} is greyscale; a panoptic PNG is RGB")
        if pixels.shape[:2] != (image["height"], image["width"]):
            raise ImageError(f"{png} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its image has another size")
        found = masks.from_label_map(pixels.astype(np.int64) @ np.array([1, 256, 256 * 256]))
        for place, one in enumerate(value["segments_info"]):
            number = whole_number(one.get("id")) if isinstance(one, dict) else None
            try:
                made = self._segment(one, number, image, found)
            except MaskError as error:
                name = f"segment {number}" if number is not None else f"segments_info[{place}]"
                self.report.skip(self.source, f"image {image['id']}, {name}", str(error))
                continue
            if made is not None:
                yield made
        for number in found:
            self.report.skip(self.source, f"image {image['id']}, segment {number}", "is in the PNG alone")

    def _segment(self, one: Any, number: int | None, image: Record, found: dict[int, masks.Rle]) -> Record | None:
        if number is None or number not in found:
            raise MaskError("has no pixel in the PNG, or repeats a segment")
        rle = found.pop(number)
        category = whole_number(one.get("category_id"))
        if category is None or category not in self.categories:
            raise MaskError(f"has the unknown category {one.get('category_id')!r}")
        if self.categories[category].get("isthing", 1) not in (1, True):
            self.report.tally(self.source, "segments of stuff, left out")
            return None
        crowd = one.get("iscrowd") in (1, "1")
        return annotation(0, image["id"], category, rle, crowd=crowd, source_id=number)
