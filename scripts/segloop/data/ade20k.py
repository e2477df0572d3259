"""ADE20K in its two full editions: 2016/2017 (`_seg.png`, `_parts_N.png`, `_atr.txt`) and 2021_17_01 (JSON and PNGs).

Both code pixels alike: class = floor(R / 10) * 256 + G, from 1; an instance is a distinct B other than 0, and its
number is the rank of its B among those of the image, not B itself.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segloop.data import masks
from segloop.data.categories import read_category_table
from segloop.data.coco_tables import safe_path, whole_number
from segloop.data.folders import FolderReader
from segloop.data.images import ImageError, open_labels
from segloop.data.json_stream import loads
from segloop.data.labelled import Choice, Record, annotation, every_image
from segloop.data.masks import MaskError, Rle
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


class Ade20k2016Reader(FolderReader):
    """Reads the full ADE20K of 2016 and 2017.

    Parameters
    ----------
    annotations
        The folder with `X_seg.png`, `X_parts_1.png` ... and `X_atr.txt`, at any depth.
    images
        The folder with `X.jpg` at the same places; usually the same one.
    names
        index_ade20k.mat or a text table of class names by id; None: names are taken from the `_atr.txt` files.
    parts
        Whether parts of objects are read, too.
    """

    what = "segmentation PNGs"
    pattern = "**/*_seg.png"

    def __init__(
        self,
        annotations: Path,
        images: Path,
        report: SkipReport,
        *,
        names: Path | None = None,
        parts: bool = False,
        chosen: Choice = every_image,
    ) -> None:
        categories = read_class_names(names) if names is not None else {}
        super().__init__(annotations, images, report, chosen=chosen, categories=categories)
        self._fixed = names is not None
        self._parts = parts

    def stem(self, file: Path) -> str:
        """Return the name of the image."""
        return file.stem.removesuffix("_seg")

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the objects of an image by ascending number, then their parts level by level."""
        file = self.file_of(image)
        described = self._described(file)
        files = [file]
        if self._parts:
            # A level is missing only where there are no deeper ones.
            levels = (file.with_name(f"{self.stem(file)}_parts_{level}.png") for level in range(1, 100))
            for path in levels:
                if not path.exists():
                    break
                files.append(path)
        for level, path in enumerate(files):
            yield from self._level(path, level, image, described)

    def _level(
        self, path: Path, level: int, image: Record, described: dict[tuple[int, int], Record]
    ) -> Iterator[Record]:
        pixels = open_labels(path)
        if pixels.ndim != 3:
            raise ImageError(f"{path} is greyscale; a segmentation PNG of ADE20K is RGB")
        pixels = self.fitted(path, pixels, image)
        found = list(coded_instances(pixels))
        said = sum(1 for one in described if one[0] == level)
        if described and said != len(found):
            self.report.note(path, self.stem(path), f"has {len(found)} instances, its _atr.txt has {said}")
        for number, code, rle in found:
            told = described.get((level, number), {})
            if code == 0:
                self.report.skip(path, f"instance {number}", "has no class")
                continue
            self._name(path, number, code, told.get("name"))
            extra: Record = {key: told[key] for key in ("occluded", "attributes") if key in told}
            extra |= {"part_level": level} if level else {}
            yield annotation(0, image["id"], code, rle, source_id=number, **extra)

    def _name(self, path: Path, number: int, code: int, name: str | None) -> None:
        known = self.categories.get(code)
        if known is None:
            if self._fixed or name is None:
                self.report.tally(self.source, f"instances of class {code}, which has no name")
            self.categories[code] = {"id": code, "name": name or f"class {code}"}
        elif name is not None and name != known["name"]:
            self.report.note(path, f"instance {number}", f"is {name!r}; class {code} is {known['name']!r}")

    def _described(self, file: Path) -> dict[tuple[int, int], Record]:
        """Return what `X_atr.txt` says, by part level and instance number."""
        path = file.with_name(f"{self.stem(file)}_atr.txt")
        try:
            lines = path.read_bytes().decode("utf-8", "replace").splitlines()
        except OSError:
            self.report.tally(self.source, "images without _atr.txt")
            return {}
        found = {}
        for place, line in enumerate(lines, start=1):
            cells = [cell.strip() for cell in re.split(r"\s#\s", f" {line} ")]
            numbers = [cell.strip() for cell in cells[:3]]
            if not line.strip():
                continue
            if len(cells) < 6 or not all(number.isdecimal() for number in numbers):
                self.report.skip(path, f"line {place}", f"{line!r} is no description of an instance")
                continue
            number, level, occluded = map(int, numbers)
            attributes = [one.strip() for one in cells[5].strip('" ').split(",") if one.strip()]
            found[level, number] = {"name": cells[3], "occluded": bool(occluded), "attributes": attributes}
        return found


def coded_instances(pixels: npt.NDArray[Any]) -> Iterator[tuple[int, int, Rle]]:
    """Yield number, class and mask of each instance of a PNG in ADE20K's coding.

    Parameters
    ----------
    pixels
        uint8 of shape (height, width, 3), in the order red, green, blue.
    """
    blue = pixels[:, :, 2]
    inside = blue > 0
    code = pixels[:, :, 0].astype(np.int64) // 10 * 256 + pixels[:, :, 1]
    pairs, counts = np.unique(blue[inside].astype(np.int64) << 16 | code[inside], return_counts=True)
    for number, (value, rle) in enumerate(masks.from_label_map(blue).items(), start=1):
        own = pairs >> 16 == value
        yield number, int(pairs[own][counts[own].argmax()] & 0xFFFF), rle


def read_class_names(path: Path) -> dict[int, Record]:
    """Read the class names of ADE20K from index_ade20k.mat, or from a text table of ids and names.

    Raises
    ------
    SegloopError
        If it cannot be read.
    """
    if path.suffix.lower() != ".mat":
        return {one["id"]: one for one in read_category_table(path)}
    from scipy.io import loadmat

    try:
        names = np.atleast_1d(loadmat(path, squeeze_me=True)["index"]["objectnames"].item())
        return {number: {"id": number, "name": str(name).strip()} for number, name in enumerate(names, start=1)}
    except Exception as error:
        # A damaged file makes scipy raise almost anything.
        raise SegloopError(f"{path} cannot be read as ADE20K's index ({error}). Name index_ade20k.mat.") from None


class Ade20k2021Reader(FolderReader):
    """Reads ADE20K 2021_17_01.

    Parameters
    ----------
    annotations
        The folder with `X.json` and `X/instance_*.png`, at any depth.
    images
        The folder with `X.jpg` at the same places; usually the same one.
    names
        A text table of class names by id; None: names are taken from the JSON files.
    parts
        Whether parts of objects are read, too.
    amodal
        Whether masks include what is hidden.
    """

    what = "instance masks"
    pattern = "**/*.json"
    # In a mask 255 is what is seen and 128 what is hidden.
    VISIBLE: ClassVar[int] = 255

    def __init__(
        self,
        annotations: Path,
        images: Path,
        report: SkipReport,
        *,
        names: Path | None = None,
        parts: bool = False,
        amodal: bool = False,
        chosen: Choice = every_image,
    ) -> None:
        categories = read_class_names(names) if names is not None else {}
        super().__init__(annotations, images, report, chosen=chosen, categories=categories)
        self._parts, self._amodal = parts, amodal

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the objects of an image in the order of its JSON file."""
        file = self.file_of(image)
        for place, one in enumerate(self._objects(file)):
            name = f"object {one.get('id', place)}" if isinstance(one, dict) else f"object [{place}]"
            try:
                yield from self._object(file, one, image)
            except SegloopError as error:
                self.report.skip(file, name, str(error))

    def _objects(self, file: Path) -> list[Any]:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise SegloopError(f"{file} cannot be read ({error})") from None
        text = data.decode("utf-8", "replace")
        if text.encode() != data:
            self.report.tally(self.source, "JSON files with bytes that are not UTF-8, which were replaced")
        try:
            value = loads(text.encode())
        except ValueError as error:
            raise SegloopError(f"{file} is not valid JSON ({error})") from None
        body = value.get("annotation") if isinstance(value, dict) else None
        objects = body.get("object") if isinstance(body, dict) else None
        if isinstance(objects, dict):
            # One object alone may stand without a list.
            objects = [objects]
        if not isinstance(objects, list):
            raise SegloopError(f"{file} has no annotation.object")
        return objects

    def _object(self, file: Path, one: Any, image: Record) -> Iterator[Record]:
        if not isinstance(one, dict):
            raise SegloopError(f"is {type(one).__name__}, not an object")
        parts: Record = one["parts"] if isinstance(one.get("parts"), dict) else {}
        level = whole_number(parts.get("part_level")) or 0
        if level and not self._parts:
            return
        number, category = whole_number(one.get("id")), whole_number(one.get("name_ndx"))
        if not category or category < 1:
            raise SegloopError(f"has the class {one.get('name_ndx')!r}")
        self._name(file, number, category, one.get("name"))
        path = safe_path(file.parent, one.get("instance_mask"))
        pixels = open_labels(path)
        pixels = self.fitted(path, pixels if pixels.ndim == 2 else pixels[:, :, 0], image)
        shown = pixels > 0 if self._amodal else pixels == self.VISIBLE
        if not shown.any() and pixels.any():
            self.report.note(file, f"object {number}", "is left out: all of it is hidden (amodal: true reads it)")
            return
        attributes = _listed(one.get("attributes"))
        occluded = {"yes": True, "no": False}.get(str(one.get("occluded")).lower())
        extra: Record = {"attributes": attributes or None, "occluded": occluded}
        if level:
            extra |= {"part_level": level, "part_of": next(iter(_listed(parts.get("ispartof"))), None)}
        yield annotation(0, image["id"], category, masks.encode(shown), source_id=number, **extra)

    def _name(self, file: Path, number: int | None, category: int, name: Any) -> None:
        name = name.strip() if isinstance(name, str) else None
        known = self.categories.get(category)
        if known is None:
            if name is None:
                raise MaskError("has no name")
            self.categories[category] = {"id": category, "name": name}
        elif name is not None and name != known["name"]:
            self.report.note(file, f"object {number}", f"is {name!r}; class {category} is {known['name']!r}")


def _listed(value: Any) -> list[Any]:
    """Return a list, whatever one value or none stands in its place."""
    if isinstance(value, list):
        return value
    return [] if value is None or value == "" else [value]
