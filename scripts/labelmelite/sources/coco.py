"""A COCO file, with a folder of images or a URL base that its file names are relative to."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from labelmelite.sources.base import Category, Image, Kind, Object
from segloop.data import coco_tables, masks
from segloop.data import images as image_files
from segloop.data.masks import MaskError, Rle
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import read_json, sha256_file


class CocoSource:
    """The records of a COCO data set; those that cannot be used are listed, the others are used.

    Parameters
    ----------
    annotations
        The file. Categories, widths and heights may be missing, as in the thesis author's question bundles: a size then
        comes from a mask or from the image.
    root
        Folder or URL base of the images.
    value
        The content of the file, where it was read before.

    Raises
    ------
    SegloopError
        If the file is no COCO data set.
    """

    def __init__(
        self, annotations: Path, root: str, name: str | None = None, kind: Kind = "coco", value: Any = None
    ) -> None:
        self.value = read_json(annotations) if value is None else value
        if not isinstance(self.value, dict) or any(
            not isinstance(self.value.get(key), list) for key in ("images", "annotations")
        ):
            raise SegloopError(
                f"{annotations.name} is no COCO data set. Name a file with lists of images and annotations."
            )
        self.name = name or annotations.stem
        self.kind: Kind = kind
        self.root = root
        self.fingerprint = sha256_file(annotations)
        self.key = f"{kind} {annotations.resolve()} {root}"
        self._file = annotations
        self._report = SkipReport(annotations, 1.0)
        self._images: dict[int, Image] = {}
        self._categories: dict[int, Category] = {}

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Records that could not be used."""
        return [{"record": one["record"], "reason": one["reason"]} for one in self._report.skipped]

    def info(self) -> dict[str, Any]:
        """Return the file's own head."""
        kept = {key: self.value[key] for key in ("info", "licenses", "bundle_info") if key in self.value}
        return {key: value for key, value in kept.items() if _can_be_written(value)}

    def categories(self) -> Iterable[Category]:
        """Return the categories, and one for each number that objects have but the file does not name."""
        names: set[str] = set()
        listed = self.value.get("categories")
        for place, one in enumerate(listed if isinstance(listed, list) else []):
            number = whole(one.get("id")) if isinstance(one, dict) else None
            name = one.get("name") if isinstance(one, dict) else None
            if number is None or not isinstance(name, str) or not printable(name):
                self._report.skip(
                    self._file, f"categories[{place}]", "a category needs a whole number as id and a name"
                )
            elif number in self._categories:
                self._report.skip(self._file, f"category {number}", "another category has the same id")
            else:
                unique = name.strip()
                while unique in names:
                    unique = f"{unique} ({number})"
                names.add(unique)
                definition = one.get("definition", one.get("def", ""))
                self._categories[number] = Category(number, unique, _text(definition))
        return list(self._categories.values())

    def images(self) -> Iterable[Image]:
        """Return the images; a size that the file lacks is taken from a mask, then from the image."""
        found = coco_tables.ImageTable(self._file, Path(), self._report, "listed")
        for one in self.value["images"]:
            found.take(self._with_size(one) if isinstance(one, dict) else one)
        for number, one in found.usable.items():
            width, height = one["width"] or None, one["height"] or None
            if width is None and "://" not in self.root:
                width, height = self._size_of_file(one["file_name"])
            self._images[number] = Image(number, one["file_name"], width, height)
        return list(self._images.values())

    def objects(self) -> Iterator[Object]:
        """Yield the objects."""
        seen: set[int] = set()
        for place, value in enumerate(self.value["annotations"]):
            number = whole(value.get("id")) if isinstance(value, dict) else None
            record = f"annotation {number}" if number is not None else f"annotations[{place}]"
            own = number if number is not None else -1 - place
            try:
                if own in seen:
                    raise MaskError("has the id of another annotation")
                made = self._object(value, own)
            except MaskError as error:
                self._report.skip(self._file, record, str(error))
                continue
            seen.add(own)
            self._report.use()
            yield made

    def _object(self, value: Any, number: int) -> Object:
        if not isinstance(value, dict):
            raise MaskError(f"is {type(value).__name__}, not an object")
        number_of_image = whole(value.get("image_id"))
        image = None if number_of_image is None else self._images.get(number_of_image)
        if image is None:
            raise MaskError(f"belongs to the image {value.get('image_id')!r}, which is not listed or was skipped")
        category = whole(value.get("category_id"))
        if category is None or category not in self._categories:
            raise MaskError(f"has the unknown category {value.get('category_id')!r}")
        return Object(
            id=str(number),
            image=image.number,
            category=category,
            mask=_mask(value.get("segmentation"), image),
            score=_number(value.get("score")),
            crowd=value.get("iscrowd") in (1, "1"),
        )

    def _with_size(self, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("width") and value.get("height"):
            return value
        if not hasattr(self, "_mask_sizes"):
            self._mask_sizes = _sizes_of_masks(self.value["annotations"])
        size = self._mask_sizes.get(str(value.get("id")))
        return value if size is None else value | {"height": size[0], "width": size[1]}

    def _size_of_file(self, name: str) -> tuple[int | None, int | None]:
        try:
            return image_files.image_size(Path(self.root) / name)
        except SegloopError:
            return None, None


def _text(value: Any) -> str:
    return value if isinstance(value, str) and coco_tables.is_unicode(value) else ""


def _number(value: Any) -> float | None:
    """Return a score; None where there is none, or one that no file can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)


def _can_be_written(value: Any) -> bool:
    """Return whether a value can stand in a JSON file: no NaN, no half characters, no endless brackets."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return True


def _mask(segmentation: Any, image: Image) -> Rle:
    if segmentation is None:
        raise MaskError("has no segmentation")
    if isinstance(segmentation, list):
        if image.width is None or image.height is None:
            raise MaskError("has polygons, but the size of its image is unknown")
        mask = masks.from_polygons(segmentation, image.height, image.width)
    else:
        known = image.width is not None and image.height is not None
        mask = masks.check(segmentation, (image.height or 0, image.width or 0) if known else None)
    if int(masks.area([mask])[0]) == 0:
        raise MaskError("has an empty mask")
    return mask


def _sizes_of_masks(annotations: list[Any]) -> dict[str, tuple[int, int]]:
    sizes = {}
    for one in annotations:
        segmentation = one.get("segmentation") if isinstance(one, dict) else None
        if isinstance(segmentation, dict):
            try:
                height, width = masks.check(segmentation)["size"]
            except MaskError:
                continue
            sizes[str(one.get("image_id"))] = (height, width)
    return sizes


def whole(value: Any) -> int | None:
    """Return an id as a whole number below 2^53; text and 1.0 are common."""
    number = coco_tables.whole_number(value)
    return number if number is not None and abs(number) < 1 << 53 else None


def printable(text: str) -> bool:
    """Return whether text can be shown on one line and written as UTF-8."""
    return bool(text.strip()) and text.isprintable() and len(text) <= 200
