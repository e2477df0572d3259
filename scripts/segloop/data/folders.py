"""What formats have in common that keep one annotation file an image."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segloop.data.images import ImageError, image_size
from segloop.data.labelled import Choice, Reader, Record, every_image
from segloop.data.on_disk import DiskTable
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


class FolderReader(Reader):
    """Reads a folder of annotation files, each of one image.

    Images are numbered from 1 in the order of all annotation files, whichever of them are chosen.

    Attributes
    ----------
    what, pattern
        What the files are, for messages, and the pattern of their names.
    suffixes
        Those of images, the usual one first.
    """

    what: ClassVar[str]
    pattern: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".jpg",)

    def __init__(
        self,
        annotations: Path,
        images: Path,
        report: SkipReport,
        *,
        chosen: Choice = every_image,
        categories: dict[int, Record] | None = None,
    ) -> None:
        super().__init__(annotations, report, chosen=chosen, categories=categories)
        self.folder = images
        self._files: DiskTable[int, str] = DiskTable()
        found = tqdm(self._found(annotations), desc=f"{self.what} of {annotations.name}", unit="file", disable=None)
        for number, file in enumerate(found, start=1):
            self._files[number] = str(file.relative_to(annotations))

    def _found(self, folder: Path) -> Iterator[Path]:
        if not folder.is_dir():
            raise SegloopError(
                f"{folder.absolute()} is no folder. It should hold {self.what}; check data_root and the path."
            )
        nothing = True
        for path in self.walk(folder):
            nothing = False
            yield path
        if nothing:
            raise SegloopError(f"{folder.absolute()} holds no {self.what} ({self.pattern}).")

    def walk(self, folder: Path) -> Iterator[Path]:
        """Yield the annotation files, sorted by the parts of their paths."""
        yield from files_below(folder, self.pattern)

    def file_of(self, image: Record) -> Path:
        """Return the annotation file of an image."""
        return self.source / self._files[int(image["id"])]

    def place(self, image: Record) -> tuple[Path, str]:
        """Return the annotation file of an image, and its name."""
        file = self.file_of(image)
        return file, self.stem(file)

    def stem(self, file: Path) -> str:
        """Return the name of the image of an annotation file, without suffix."""
        return file.stem

    def image_of(self, file: Path) -> Path:
        """Return the path of the image of an annotation file."""
        folder = self.folder / file.parent.relative_to(self.source)
        paths = [folder / (self.stem(file) + suffix) for suffix in self.suffixes]
        found: Path = next((path for path in paths if path.exists()), paths[0])
        return found

    def images(self) -> Iterator[Record]:
        """Yield the images in the order of their annotation files."""
        for number, name in self._files.items():
            file = self.source / name
            path = self.image_of(file)
            if not self.chosen(path):
                continue
            try:
                width, height = image_size(path)
                yield {"id": number, "file_name": _text(path), "width": width, "height": height}
            except SegloopError as error:
                self.report.skip(file, self.stem(file), str(error))

    def check_size(self, file: Path, pixels: npt.NDArray[Any], image: Record) -> None:
        """Raise ImageError if an annotation PNG has another size than its image."""
        height, width = pixels.shape[:2]
        if (width, height) != (image["width"], image["height"]):
            size = f"{image['width']} x {image['height']}"
            raise ImageError(f"{file} has {width} x {height} pixels, its image has {size}")

    def fitted(self, file: Path, pixels: npt.NDArray[Any], image: Record) -> npt.NDArray[Any]:
        """Return annotation pixels at the size of their image; those of another size are scaled and counted.

        Raises
        ------
        ImageError
            If the sides have another ratio: then it is another picture.
        """
        height, width = pixels.shape[:2]
        if (width, height) == (image["width"], image["height"]):
            return pixels
        if not same_ratio(width, height, image["width"], image["height"]):
            self.check_size(file, pixels, image)
        self.report.tally(self.source, f"{self.what} of another size than their image, scaled to it")
        return resized(pixels, image["height"], image["width"])


def inside(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted.

    Raises
    ------
    SegloopError
        If it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise SegloopError(f"{folder.absolute()} cannot be read ({error}). Check data_root and the path.") from None


def files_below(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files of a folder, sorted by their parts, so that the order is the same everywhere.

    Memory holds the names of one folder at a time. Names that begin with a dot are other systems'.

    Parameters
    ----------
    pattern
        `NAME` of files in the folder itself, or `**/NAME` of files at any depth; NAME may have wildcards.
    """
    name = pattern.removeprefix("**/")
    for path in inside(folder):
        if not path.name.startswith(".") and fnmatchcase(path.name, name):
            yield path
        if name != pattern and path.is_dir() and not path.is_symlink():
            yield from files_below(path, pattern)


def shown_in(pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the mask of a binary PNG, bool of shape (height, width): what is not black in any channel."""
    flat = pixels.reshape(*pixels.shape[:2], -1)
    return np.asarray(flat.max(axis=2) > 0, dtype=bool)


def same_ratio(width: int, height: int, other_width: int, other_height: int) -> bool:
    """Tell whether two sizes may be of one picture; sides are rounded when a picture is scaled."""
    sides = (width * other_height, height * other_width)
    rounding = max(other_width, other_height, width, height)
    return abs(sides[0] - sides[1]) <= rounding


def resized(pixels: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Return pixels of shape (height, width, ...), each the nearest one of the source; numbers are never mixed."""
    rows = (np.arange(height) * 2 + 1) * pixels.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * pixels.shape[1] // (2 * width)
    nearest: npt.NDArray[Any] = pixels[rows[:, None], columns[None, :]]
    return nearest


def _text(path: Path) -> str:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SegloopError(f"has the file name {str(path)!r}, which is not Unicode text") from None
    return str(path)
