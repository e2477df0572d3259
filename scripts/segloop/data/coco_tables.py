"""The images and categories of COCO files: ids, names, sizes and paths, checked one by one."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from segloop.data import images as image_files
from segloop.data.images import ImageError
from segloop.data.json_stream import Member
from segloop.data.labelled import Choice, Record, every_image
from segloop.data.on_disk import DiskTable, TemporaryDatabase
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

Sizes = Literal["known", "check", "listed"]
# Stores keep categories in 32 bits.
MAX_CATEGORY = (1 << 31) - 1


class CocoTables:
    """Takes the images and categories of a COCO file while it is read.

    Attributes
    ----------
    categories
        What the file lists as categories; None where it has no list.
    """

    def __init__(self, images: "ImageTable") -> None:
        self._images = images
        self.categories: list[Any] | None = None

    def keep(self, member: Member) -> None:
        """Keep a value of the file, if it belongs here."""
        if member.key == "images" and member.listed:
            self._images.take(member.value)
        elif member.key == "categories" and member.listed:
            self.categories = [*(self.categories or []), member.value]


def safe_path(folder: Path, name: Any) -> Path:
    """Join a file name from a data set to its folder; a whole path passes if it leads into the folder.

    Raises
    ------
    SegloopError
        If the name is no text, or leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise SegloopError(f"has the file name {name!r}")
    path = Path(name)
    if not is_unicode(name):
        raise SegloopError(f"has the file name {name!r}, which is not Unicode text")
    if path.is_absolute() and path.is_relative_to(folder.absolute()):
        path = path.relative_to(folder.absolute())
    if path.is_absolute() or ".." in path.parts:
        raise SegloopError(f"has the file name {name!r}, which leads out of the image folder")
    return folder / path


def is_unicode(text: str) -> bool:
    """Tell whether text can be written again as UTF-8."""
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


def read_categories(path: Path, values: Any, keys: Sequence[str] = ()) -> dict[int, Record]:
    """Return the categories of a COCO file by id.

    Parameters
    ----------
    keys
        Further keys that are kept.

    Raises
    ------
    SegloopError
        If there are none, or one has no usable id or name, or the id of another one.
    """
    if not isinstance(values, list) or not values:
        raise SegloopError(f"{path} has no categories. Add the list of categories with their ids and names.")
    categories: dict[int, Record] = {}
    for value in values:
        number = whole_number(value.get("id")) if isinstance(value, dict) else None
        if number is None or not isinstance(value.get("name"), str) or not is_unicode(value["name"]):
            raise SegloopError(f"{path}: the category {value!r} needs a whole number as id and a name.")
        if abs(number) > MAX_CATEGORY:
            raise SegloopError(f"{path}: the category id {number} does not fit 32 bits. Give it a smaller one.")
        if number in categories:
            raise SegloopError(f"{path}: two categories have the id {number}. Give each its own.")
        extra = {"supercategory": value["supercategory"]} if isinstance(value.get("supercategory"), str) else {}
        extra |= {key: value[key] for key in keys if key in value}
        categories[number] = {"id": number, "name": value["name"].strip(), **extra}
    return categories


class ImageTable:
    """The images of a COCO file, each with a path, a width and a height, on disk.

    Records are taken one by one, and files looked at when all were. Images that cannot be used go to the report: a
    repeated or unusable id, an unusable name, an unknown size.

    Parameters
    ----------
    path
        The file, for messages.
    folder
        What file names are relative to.
    sizes
        `known`: a missing size is read from the image file. `check`: every size is compared with the file's.
        `listed`: no file is opened, and a missing size is 0.
    keys
        Further keys that are kept.
    chosen
        Which images are wanted.
    database
        Where the tables are made; None: in one of their own.

    Attributes
    ----------
    usable
        By id, in the order of the file.
    unchosen
        The ids of images that are not wanted.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        report: SkipReport,
        sizes: Sizes = "known",
        keys: Sequence[str] = (),
        *,
        chosen: Choice = every_image,
        database: TemporaryDatabase | None = None,
    ) -> None:
        base = database if database is not None else TemporaryDatabase()
        self.usable: DiskTable[int, Record] = DiskTable(base)
        self.unchosen: DiskTable[int, None] = DiskTable(base)
        self._path, self._folder, self._report = path, folder, report
        self._sizes, self._keys, self._chosen = sizes, keys, chosen
        self._place = -1
        self._unsized = False

    def take(self, value: Any) -> None:
        """Take the next record of the file."""
        self._place += 1
        number = whole_number(value.get("id")) if isinstance(value, dict) else None
        if number is None:
            self._report.skip(self._path, f"images[{self._place}]", "an image needs a whole number as id")
        elif number in self:
            self._report.skip(self._path, f"image {number}", "another image has the same id")
        else:
            self._keep(number, value)

    def complete(self) -> None:
        """Look at the sizes of image files, as far as that is wanted; all records have been taken."""
        if self._sizes == "listed" or not (self._unsized or self._sizes == "check"):
            return
        images = tqdm(self.usable.items(), desc="sizes of images", unit="image", disable=None)
        for number, image in images:
            try:
                if self._sized(image):
                    self.usable[number] = image
            except ImageError as error:
                self._report.skip(self._path, f"image {number}", str(error))
                del self.usable[number]

    def __contains__(self, number: int) -> bool:
        return number in self.usable or number in self.unchosen

    def _keep(self, number: int, value: Record) -> None:
        try:
            path = safe_path(self._folder, file_name_of(value))
            chosen = self._chosen(path)
            image = _image(number, value, path) if chosen else {}
        except SegloopError as error:
            self._report.skip(self._path, f"image {number}", str(error))
            return
        if chosen:
            self._unsized |= not image["width"]
            self.usable[number] = image | {key: value[key] for key in self._keys if key in value}
        else:
            self.unchosen[number] = None

    def _sized(self, image: Record) -> bool:
        """Compare the size of an image with that of its file, or take it from there; return whether it was taken."""
        known = image["width"], image["height"]
        if known[0] and self._sizes != "check":
            return False
        path = Path(image["file_name"])
        found = image_files.image_size(path)
        if known[0] and found != known:
            raise ImageError(f"{path} has {found[0]} x {found[1]} pixels, the data set says {known[0]} x {known[1]}")
        image["width"], image["height"] = found
        return not known[0]


def _image(number: int, value: Record, path: Path) -> Record:
    width, height = whole_number(value.get("width")), whole_number(value.get("height"))
    if not width or not height or width < 0 or height < 0:
        width, height = 0, 0
    elif width * height > image_files.MAX_PIXELS:
        raise SegloopError(f"has {width} x {height} pixels, more than the limit of {image_files.MAX_PIXELS}")
    return {"id": number, "file_name": str(path), "width": width, "height": height}


def file_name_of(value: Record) -> Any:
    """Return the file name that an image record means."""
    # LVIS v0.5 gives names of COCO 2014 beside URLs of 2017, and LVIS v1 URLs alone; the URL is what exists. A set
    # whose images were renamed keeps its old URLs, so that a name of another kind goes before the URL.
    name, url = value.get("file_name"), value.get("coco_url")
    if not isinstance(url, str) or url.count("/") < 2:
        return name
    renamed = isinstance(name, str) and name.startswith("COCO_") and Path(name).name != Path(url).name
    return "/".join(url.split("/")[-2:]) if name is None or renamed else name
