"""COCO files: read with every record checked, written in the one form the loop uses.

The canonical form: annotations numbered from 1 (COCOeval takes a truth with id 0 for unmatched), masks as compressed
run lengths, area and box recomputed from the mask, image paths that open from the run directory.
"""

import logging
import math
import re
from pathlib import Path
from typing import Any, Literal

from segloop.data import images as image_files
from segloop.data import masks
from segloop.data.masks import MaskError, Rle
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import read_json, write_json

logger = logging.getLogger("segloop")

Record = dict[str, Any]
Sizes = Literal["known", "check", "listed"]
# Stores keep categories in 32 bits.
MAX_CATEGORY = (1 << 31) - 1


def read_coco(annotations: Path, images: Path, report: SkipReport, *, check_images: bool = False) -> Record:
    """Read a COCO data set: polygons, uncompressed and compressed RLE, crowds.

    Parameters
    ----------
    annotations
        The JSON file.
    images
        The folder that `file_name` is relative to.
    report
        Takes the records that cannot be used: a mask whose runs do not add up, an unknown category or image, a
        repeated id, an annotation without a mask.
    check_images
        Open the head of every image file, and skip images that are missing, unreadable or of another size.

    Returns
    -------
    The canonical data set.

    Raises
    ------
    SegloopError
        If the file is no COCO data set.
    """
    value = read_json(annotations)
    if not isinstance(value, dict) or any(not isinstance(value.get(key), list) for key in ("images", "annotations")):
        kind = "a list, as results files are" if isinstance(value, list) else "without lists of images and annotations"
        raise SegloopError(f"{annotations} is no COCO data set: it is {kind}. Name a file with images and annotations.")
    categories = _categories(annotations, value.get("categories"))
    sizes: Sizes = "check" if check_images else "known"
    found = read_images(annotations, value["images"], images, report, sizes)
    return {
        "info": {"source": annotations.name},
        "images": list(found.values()),
        "annotations": _annotations(annotations, value["annotations"], found, {c["id"] for c in categories}, report),
        "categories": categories,
    }


def write_canonical(path: Path, dataset: Record) -> None:
    """Write a canonical data set."""
    write_json(path, dataset)


def annotation(number: int, image_id: int, category_id: int, rle: Rle, *, crowd: bool = False) -> Record:
    """Return a canonical annotation; area and box come from the mask."""
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": masks.to_json(rle),
        "area": int(masks.area([rle])[0]),
        "bbox": masks.boxes([rle])[0].tolist(),
        "iscrowd": int(crowd),
    }


def safe_path(folder: Path, name: Any) -> Path:
    """Join a file name from a data set to its folder.

    Raises
    ------
    SegloopError
        If the name is no text, is absolute, or leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise SegloopError(f"has the file name {name!r}")
    path = Path(name)
    if not _is_unicode(name):
        raise SegloopError(f"has the file name {name!r}, which is not Unicode text")
    if path.is_absolute() or ".." in path.parts:
        raise SegloopError(f"has the file name {name!r}, which leads out of the image folder")
    return folder / path


def _is_unicode(text: str) -> bool:
    # JSON may escape half a character ("\\ud800"), and a file system may hold any bytes; neither can be written again.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _whole(value: Any) -> int | None:
    """Return an id as a whole number; ids written as text or as 1.0 are common."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value) else None
    elif isinstance(value, float):
        value = int(value) if math.isfinite(value) and value == int(value) else None
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None


def _categories(path: Path, values: Any) -> list[Record]:
    if not isinstance(values, list) or not values:
        raise SegloopError(f"{path} has no categories. Add the list of categories with their ids and names.")
    categories: dict[int, Record] = {}
    for value in values:
        number = _whole(value.get("id")) if isinstance(value, dict) else None
        if number is None or not isinstance(value.get("name"), str) or not _is_unicode(value["name"]):
            raise SegloopError(f"{path}: the category {value!r} needs a whole number as id and a name.")
        if abs(number) > MAX_CATEGORY:
            raise SegloopError(f"{path}: the category id {number} does not fit 32 bits. Give it a smaller one.")
        if number in categories:
            raise SegloopError(f"{path}: two categories have the id {number}. Give each its own.")
        extra = {"supercategory": value["supercategory"]} if isinstance(value.get("supercategory"), str) else {}
        categories[number] = {"id": number, "name": value["name"].strip(), **extra}
    return list(categories.values())


def read_images(
    path: Path, values: list[Any], folder: Path, report: SkipReport, sizes: Sizes = "known"
) -> dict[int, Record]:
    """Return the images of a COCO file by id, each with a path, a width and a height.

    Images that cannot be used go to the report: a repeated or unusable id, an unusable name, an unknown size.

    Parameters
    ----------
    sizes
        `known`: a missing size is read from the image file. `check`: every size is compared with the file's.
        `listed`: no file is opened, and a missing size is 0.
    """
    found: dict[int, Record] = {}
    for place, value in enumerate(values):
        number = _whole(value.get("id")) if isinstance(value, dict) else None
        if number is None:
            report.skip(path, f"images[{place}]", "an image needs a whole number as id")
        elif number in found:
            report.skip(path, f"image {number}", "another image has the same id")
        else:
            try:
                found[number] = _image(number, value, folder, sizes)
                report.use()
            except SegloopError as error:
                report.skip(path, f"image {number}", str(error))
    return found


def _image(number: int, value: Record, folder: Path, sizes: Sizes) -> Record:
    path = safe_path(folder, _file_name(value))
    width, height = _whole(value.get("width")), _whole(value.get("height"))
    if not width or not height or width < 0 or height < 0:
        width, height = (0, 0) if sizes == "listed" else image_files.image_size(path)
    elif width * height > image_files.MAX_PIXELS:
        raise SegloopError(f"has {width} x {height} pixels, more than the limit of {image_files.MAX_PIXELS}")
    elif sizes == "check":
        found = image_files.image_size(path)
        if found != (width, height):
            raise SegloopError(f"{path} has {found[0]} x {found[1]} pixels, the data set says {width} x {height}")
    return {"id": number, "file_name": str(path), "width": width, "height": height}


def _file_name(value: Record) -> Any:
    # LVIS v0.5 gives names of COCO 2014 beside URLs of 2017, and LVIS v1 URLs alone; the URL is what exists. A set
    # whose images were renamed keeps its old URLs, so that a name of another kind goes before the URL.
    name, url = value.get("file_name"), value.get("coco_url")
    if not isinstance(url, str) or url.count("/") < 2:
        return name
    renamed = isinstance(name, str) and name.startswith("COCO_") and Path(name).name != Path(url).name
    return "/".join(url.split("/")[-2:]) if name is None or renamed else name


def _annotations(
    path: Path, values: list[Any], images: dict[int, Record], categories: set[int], report: SkipReport
) -> list[Record]:
    kept: list[Record] = []
    seen: set[int] = set()
    for place, value in enumerate(values):
        number = _whole(value.get("id")) if isinstance(value, dict) else None
        record = f"annotation {number}" if number is not None else f"annotations[{place}]"
        try:
            if number is not None and number in seen:
                raise MaskError("has the id of another annotation")
            kept.append(_annotation(value, len(kept) + 1, number, images, categories))
            seen |= {number} if number is not None else set()
            report.use()
        except MaskError as error:
            report.skip(path, record, str(error))
    return kept


def _annotation(value: Any, new: int, old: int | None, images: dict[int, Record], categories: set[int]) -> Record:
    if not isinstance(value, dict):
        raise MaskError(f"is {type(value).__name__}, not an object")
    image = images.get(_whole(value.get("image_id")) or 0) if _whole(value.get("image_id")) is not None else None
    if image is None:
        raise MaskError(f"belongs to the image {value.get('image_id')!r}, which is not listed or was skipped")
    category = _whole(value.get("category_id"))
    if category not in categories or category is None:
        raise MaskError(f"has the unknown category {value.get('category_id')!r}")
    rle = _mask(value.get("segmentation"), image["height"], image["width"])
    made = annotation(new, image["id"], category, rle, crowd=value.get("iscrowd") in (1, "1"))
    if made["area"] == 0:
        raise MaskError("has an empty mask")
    return made | ({"source_id": old} if old is not None and old != new else {})


def _mask(segmentation: Any, height: int, width: int) -> Rle:
    if isinstance(segmentation, list):
        return masks.from_polygons(segmentation, height, width)
    if segmentation is None:
        raise MaskError("has no segmentation")
    return masks.check(segmentation, (height, width))
