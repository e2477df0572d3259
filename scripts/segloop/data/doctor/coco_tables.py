"""The images and categories of a COCO file, examined record by record and repaired where that is certain."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from segloop.data.coco_tables import MAX_CATEGORY, file_name_of, is_unicode, safe_path, whole_number
from segloop.data.doctor.findings import Examination, Finding
from segloop.data.doctor.image_files import examine_images
from segloop.data.images import MAX_PIXELS
from segloop.data.labelled import Record
from segloop.data.on_disk import DiskTable
from segloop.errors import SegloopError

CheckImages = Literal["decode", "head", "none"]
LEFT_OUT: Final = "left out"


class Tables:
    """The usable images and categories of a file, repaired.

    Attributes
    ----------
    images, categories
        By id, the records of the repaired copy.
    unusable
        Ids of images that a reader skips although the repaired copy has them.
    """

    def __init__(self, path: Path, found: Examination) -> None:
        self.path = path
        self.found = found
        self.images: DiskTable[int, Record] = DiskTable()
        self.categories: dict[int, Record] = {}
        self.unusable: set[int] = set()

    def bad(self, record: str, reason: str, repair: str = LEFT_OUT) -> None:
        """Name a record that readers skip."""
        self.found.bad.append(Finding(str(self.path), record, reason, repair))

    def odd(self, record: str, reason: str, repair: str = "") -> None:
        """Name a record that readers cope with."""
        self.found.odd.append(Finding(str(self.path), record, reason, repair))

    def take_categories(self, values: list[Any]) -> None:
        """Examine the categories. What a reader refuses the whole file for is fatal here, too."""
        names: dict[str, int] = {}
        for place, value in enumerate(values):
            where = f"categories[{place}]"
            number = whole_number(value.get("id")) if isinstance(value, dict) else None
            if number is None or abs(number) > MAX_CATEGORY:
                self._fatal(where, f"has no usable id: {_short(value)}")
                continue
            where = f"category {number}"
            if number in self.categories:
                self._fatal(where, "has the id of another category")
                continue
            name = value.get("name")
            if not isinstance(name, str) or not name.strip() or not is_unicode(name):
                self._fatal(where, f"has the name {name!r}", "named after its id")
                name = f"category {number}"
            if type(value["id"]) is not int:
                self.odd(where, f"has the id {value['id']!r}, which is no whole number", "written as a number")
            if name != name.strip():
                self.odd(where, f"has the name {name!r} with blanks around it", "blanks removed")
            other = names.setdefault(name.strip().casefold(), number)
            if other != number:
                self.odd(where, f"has the name {name.strip()!r} of category {other}")
            self.categories[number] = value | {"id": number, "name": name.strip()}

    def take_images(self, values: Iterable[Any], root: Path | None, check: CheckImages) -> None:
        """Examine the images, and their files below `root` where there is one."""
        files: DiskTable[str, int] = DiskTable()
        for place, value in enumerate(values):
            number = whole_number(value.get("id")) if isinstance(value, dict) else None
            if number is None:
                self.bad(f"images[{place}]", f"has no usable id: {_short(value)}")
            elif number in self.images or number in self.unusable:
                self.bad(f"image {number}", "has the id of another image")
            else:
                self._take_image(number, value, files)
        if root is not None and check != "none":
            self._compare_files(root, decode=check == "decode")
        for number, image in self.images.items():
            if "width" not in image:
                self.bad(f"image {number}", "has no size, and there is no file to take it from")
                self._drop(number)
        self.found.usable_images = len(self.images) - sum(number in self.images for number in self.unusable)

    def _take_image(self, number: int, value: Record, files: DiskTable[str, int]) -> None:
        where = f"image {number}"
        try:
            name = str(safe_path(Path(), file_name_of(value)))
        except SegloopError as error:
            self.bad(where, str(error))
            self.unusable.add(number)
            return
        if type(value["id"]) is not int:
            self.odd(where, f"has the id {value['id']!r}, which is no whole number", "written as a number")
        other = files.get(name)
        if other is None:
            files[name] = number
        else:
            self.odd(where, f"has the file name {name!r} of image {other}")
        width, height = whole_number(value.get("width")), whole_number(value.get("height"))
        image = {key: one for key, one in value.items() if key not in ("width", "height")} | {"id": number}
        if not width or not height or width < 0 or height < 0:
            size = (value.get("width"), value.get("height"))
            if size != (None, None):
                self.odd(where, f"has the size {size[0]!r} x {size[1]!r}", "taken from the file")
        elif width * height > MAX_PIXELS:
            self.bad(where, f"has {width} x {height} pixels, more than the limit of {MAX_PIXELS}")
            self.unusable.add(number)
            return
        else:
            image |= {"width": width, "height": height}
        self.images[number] = image

    def _compare_files(self, root: Path, *, decode: bool) -> None:
        # Two readings of the table; only images that both have passed are dropped.
        paths: Iterator[Path] = (safe_path(root, file_name_of(image)) for image in self.images.values())
        found = examine_images(paths, len(self.images), decode=decode)
        for (number, image), seen in zip(self.images.items(), found, strict=True):
            if isinstance(seen, str):
                self.bad(f"image {number}", seen)
                self._drop(number)
                continue
            self._compare(number, image, *seen)

    def _compare(self, number: int, image: Record, width: int, height: int) -> None:
        where = f"image {number}"
        if "width" not in image:
            self.odd(where, "has no size in the file of annotations", "taken from the image")
            self.images[number] = image | {"width": width, "height": height}
        elif (image["width"], image["height"]) == (height, width):
            self.bad(where, f"has {width} x {height} pixels; width and height are swapped", "swapped back")
            self.images[number] = image | {"width": width, "height": height}
            self.unusable.add(number)
        elif (image["width"], image["height"]) != (width, height):
            listed = f"{image['width']} x {image['height']}"
            self.bad(where, f"has {width} x {height} pixels, the file of annotations says {listed}")
            self._drop(number)

    def _drop(self, number: int) -> None:
        del self.images[number]
        self.unusable.add(number)

    def _fatal(self, where: str, reason: str, repair: str = LEFT_OUT) -> None:
        self.bad(where, reason, repair)
        self.found.fatal = self.found.fatal or f"{where} {reason}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
