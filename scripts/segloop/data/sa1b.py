"""SA-1B: one JSON file an image, with compressed run lengths and no category."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segloop.data import masks
from segloop.data.coco_tables import safe_path, whole_number
from segloop.data.folders import FolderReader
from segloop.data.json_stream import loads
from segloop.data.labelled import Choice, Record, annotation, every_image
from segloop.data.masks import MaskError
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


class Sa1bReader(FolderReader):
    """Reads the JSON files of SA-1B; every mask is of the category `object`.

    Parameters
    ----------
    annotations, images
        Folders of `sa_N.json` and `sa_N.jpg`, at any depth.
    """

    what = "JSON files"
    pattern = "**/*.json"

    def __init__(self, annotations: Path, images: Path, report: SkipReport, *, chosen: Choice = every_image) -> None:
        super().__init__(annotations, images, report, chosen=chosen, categories={1: {"id": 1, "name": "object"}})

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the masks of an image in the order of its file."""
        file = self.file_of(image)
        try:
            value = loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise SegloopError(f"{file} is not valid JSON ({error})") from None
        listed = value.get("annotations") if isinstance(value, dict) else None
        if not isinstance(listed, list):
            raise SegloopError(f"{file} has no list of annotations")
        self._check_name(file, value.get("image"), image)
        seen: set[int] = set()
        for place, one in enumerate(listed):
            number = whole_number(one.get("id")) if isinstance(one, dict) else None
            try:
                if number is not None and number in seen:
                    raise MaskError("has the id of another annotation")
                yield self._annotation(one, number, image)
                seen |= {number} if number is not None else set()
            except MaskError as error:
                name = f"annotation {number}" if number is not None else f"annotations[{place}]"
                self.report.skip(file, name, str(error))

    def _check_name(self, file: Path, said: Any, image: Record) -> None:
        name = said.get("file_name") if isinstance(said, dict) else None
        if name is not None and safe_path(Path(), name).name != Path(image["file_name"]).name:
            raise SegloopError(f"{file} is about the image {name!r}, not about {Path(image['file_name']).name}")

    def _annotation(self, one: Any, number: int | None, image: Record) -> Record:
        if not isinstance(one, dict):
            raise MaskError(f"is {type(one).__name__}, not an object")
        rle = masks.check(one.get("segmentation"), (image["height"], image["width"]))
        extra = {key: one[key] for key in ("predicted_iou", "stability_score") if isinstance(one.get(key), float)}
        return annotation(0, image["id"], 1, rle, source_id=number, **extra)
