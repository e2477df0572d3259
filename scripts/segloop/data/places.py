"""Places: the instance PNGs of the Places Challenge 2017 and the image lists of Places365.

An instance PNG is RGB: R the category 1..100, G the instance (unique in the image, below 256), B not 0 for a crowd in
the thesis author's copy. An instance is a distinct G; its category is the most frequent R of its pixels, never a mean.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from segloop.data import masks
from segloop.data.coco import Record, annotation
from segloop.data.images import ImageError, image_mode, image_size, open_image
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_file


def read_places_challenge(annotations: Path, images: Path, categories: Path, report: SkipReport) -> Record:
    """Read a folder of instance PNGs with their images.

    Parameters
    ----------
    annotations, images
        Folders of `NAME.png` and `NAME.jpg`. Images are numbered from 1 in the order of their names, and instances
        from 1 in the order of images and G.
    categories
        The table of ids and names, such as instanceInfo100_train.txt.
    report
        Takes PNGs without image, unreadable files, other sizes, and instances of an unknown category.

    Raises
    ------
    SegloopError
        If a folder or the table is missing or empty.
    """
    table = read_category_table(categories)
    files = _files(annotations, "*.png", "instance PNGs")
    known = {category["id"] for category in table}
    dataset: Record = {"info": {"source": annotations.name}, "images": [], "annotations": [], "categories": table}
    for number, png in enumerate(tqdm(files, desc="instance PNGs", unit="image", disable=None), start=1):
        try:
            image, instances = _read_one(png, images, number)
        except ImageError as error:
            report.skip(png, png.stem, str(error))
            continue
        dataset["images"].append(image)
        report.use()
        for instance, category, mask, crowd in instances:
            if category not in known:
                report.skip(png, f"instance {instance}", f"has the unknown category {category}")
                continue
            made = annotation(len(dataset["annotations"]) + 1, number, category, masks.encode(mask), crowd=crowd)
            dataset["annotations"].append(made)
            report.use()
    return dataset


def _files(folder: Path, pattern: str, what: str) -> list[Path]:
    if not folder.is_dir():
        raise SegloopError(f"{folder.absolute()} is no folder. It should hold {what}; check data_root and the path.")
    found = sorted(folder.glob(pattern))
    if not found:
        raise SegloopError(f"{folder.absolute()} holds no {what} ({pattern}).")
    return found


def _read_one(
    png: Path, images: Path, number: int
) -> tuple[Record, list[tuple[int, int, npt.NDArray[np.bool_], bool]]]:
    path = images / f"{png.stem}.jpg"
    if not path.exists() and (images.parent / "training" / path.name).exists():
        # The challenge's README prints the validation images among the training images.
        path = images.parent / "training" / path.name
    width, height = image_size(path)
    mode = image_mode(png)
    if mode not in ("RGB", "RGBA"):
        raise ImageError(f"{png} has pixels of mode {mode}; an instance PNG is RGB (R category, G instance)")
    pixels = open_image(png)
    if pixels.shape[:2] != (height, width):
        raise ImageError(f"{png} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its image has {width} x {height}")
    return {"id": number, "file_name": str(path), "width": width, "height": height}, list(_instances(pixels))


def _instances(pixels: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int, npt.NDArray[np.bool_], bool]]:
    red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    for instance in np.unique(green[red > 0]):
        mask = (green == instance) & (red > 0)
        category = int(np.bincount(red[mask]).argmax())
        yield int(instance), category, mask, bool(blue[mask].any())


def read_category_table(path: Path) -> list[dict[str, Any]]:
    """Read ids and names from a table such as instanceInfo100_train.txt.

    The first column is the id, the second one the name, which may be padded with blanks; columns are separated by one
    tab or more, and a line without a number at its beginning is a heading.

    Raises
    ------
    SegloopError
        If the file is missing, or holds no category or the same id twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SegloopError(
            f"the category table {path.absolute()} cannot be read ({error}). Check data_root and `categories`."
        ) from None
    table: dict[int, dict[str, Any]] = {}
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
        if len(cells) < 2 or not cells[0].isdecimal():
            continue
        if int(cells[0]) in table:
            raise SegloopError(f"the category table {path} has the id {cells[0]} twice.")
        table[int(cells[0])] = {"id": int(cells[0]), "name": cells[1]}
    if not table:
        raise SegloopError(f"the category table {path} holds no line of an id, a tab and a name.")
    if all(category["name"].isdecimal() for category in table.values()):
        # categoryMapping.txt lies beside the right table and maps ids to ids.
        raise SegloopError(f"the category table {path} holds numbers where names should be. Name a table of names.")
    return list(table.values())


def write_instance_png(path: Path, instances: list[tuple[int, npt.NDArray[np.bool_]]], size: tuple[int, int]) -> None:
    """Write an instance PNG from (category, mask) pairs; a later mask covers an earlier one.

    Parameters
    ----------
    size
        Height and width in pixels.

    Raises
    ------
    SegloopError
        If there are more than 255 instances, which G cannot hold, or a category outside 1..255.
    """
    if len(instances) > 255:
        raise SegloopError(f"{path}: {len(instances)} instances, an instance PNG holds at most 255.")
    pixels = np.zeros((*size, 3), np.uint8)
    for number, (category, mask) in enumerate(instances, start=1):
        if not 1 <= category <= 255:
            raise SegloopError(f"{path}: category {category} is outside 1..255.")
        pixels[mask] = (category, number, 0)
    with atomic_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def read_places_list(path: Path) -> Iterator[str]:
    """Yield the image paths of a Places365 list, one line at a time, relative to the image folder.

    A line is `/a/airfield/00000001.jpg 0`: a leading slash, scenes that may be nested, and a label that may be missing.
    Blanks in a name are kept; only a whole number after the last blank is taken for a label.

    Raises
    ------
    SegloopError
        If the list is missing or not text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                name = line.strip()
                head, *label = name.rsplit(None, 1) or [""]
                name = head if label and label[0].lstrip("-").isdecimal() else name
                if name:
                    yield name.lstrip("/")
    except FileNotFoundError:
        raise SegloopError(f"the image list {path.absolute()} does not exist. Check data_root and pool.list.") from None
    except OSError as error:
        raise SegloopError(f"the image list {path.absolute()} cannot be read ({error}). Check pool.list.") from None
    except UnicodeDecodeError as error:
        raise SegloopError(f"the image list {path} is not text in UTF-8 ({error}).") from None
