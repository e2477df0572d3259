"""The images and categories of COCO files: ids, names, sizes and paths, checked one by one."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from segloop.data import images as image_files
from segloop.data.json_stream import Member
from segloop.data.labelled import Choice, Record, every_image
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

Sizes = Literal["known", "check", "listed"]
# Stores keep categories in 32 bits.
MAX_CATEGORY = (1 << 31) - 1


class CocoTables:
    """Collects the images and categories of a COCO file while it is read."""

    def __init__(self) -> None:
        self.images: list[Any] = []
        self.categories: Any = None

    def keep(self, member: Member) -> None:
        """Keep a value of the file, if it belongs here."""
        if member.key == "images" and member.listed:
            self.images.append(member.value)
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
                path_of_image = safe_path(folder, file_name_of(value))
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


def file_name_of(value: Record) -> Any:
    """Return the file name that an image record means."""
    # LVIS v0.5 gives names of COCO 2014 beside URLs of 2017, and LVIS v1 URLs alone; the URL is what exists. A set
    # whose images were renamed keeps its old URLs, so that a name of another kind goes before the URL.
    name, url = value.get("file_name"), value.get("coco_url")
    if not isinstance(url, str) or url.count("/") < 2:
        return name
    renamed = isinstance(name, str) and name.startswith("COCO_") and Path(name).name != Path(url).name
    return "/".join(url.split("/")[-2:]) if name is None or renamed else name
