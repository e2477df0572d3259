"""The instance PNGs of the Places Challenge 2017.

An instance PNG is RGB: R the category 1..100, G the instance (unique in the image, below 256), B not 0 for a crowd in
the thesis author's copy. An instance is a distinct G; its category is the most frequent R of its pixels, never a mean.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segloop.data import masks
from segloop.data.categories import read_category_table
from segloop.data.folders import FolderReader
from segloop.data.images import IMAGE_SUFFIXES, ImageError, image_mode, open_labels
from segloop.data.labelled import Choice, LabelledSet, Record, annotation, every_image, whole
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_file


class PlacesChallengeReader(FolderReader):
    """Reads a folder of instance PNGs with their images.

    Parameters
    ----------
    annotations, images
        Folders of `NAME.png` and `NAME.jpg`.
    categories
        The table of ids and names, such as instanceInfo100_train.txt.
    report
        Takes PNGs without image, unreadable files, other sizes, and instances of an unknown category.

    Raises
    ------
    SegloopError
        If a folder or the table is missing or empty.
    """

    what = "instance PNGs"
    pattern = "*.png"
    # The challenge's images are JPEGs; exports in its form keep what their images were.
    suffixes = (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"}))

    def __init__(
        self,
        annotations: Path,
        images: Path,
        categories: Path,
        report: SkipReport,
        *,
        chosen: Choice = every_image,
    ) -> None:
        table = {one["id"]: one for one in read_category_table(categories)}
        super().__init__(annotations, images, report, chosen=chosen, categories=table)

    def image_of(self, file: Path) -> Path:
        """Return the image of a PNG."""
        path = super().image_of(file)
        # The challenge's README prints the validation images among the training images.
        other = self.folder.parent / "training" / path.name
        return other if not path.exists() and other.exists() else path

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the instances of an image by ascending G."""
        png = self.file_of(image)
        # Pillow turns 16-bit files into these modes, too; what else there is cannot hold three numbers a pixel.
        mode = image_mode(png)
        if mode not in ("RGB", "RGBA"):
            raise ImageError(f"{png} has pixels of mode {mode}; an instance PNG is RGB (R category, G instance)")
        pixels = open_labels(png)
        self.check_size(png, pixels, image)
        red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
        inside = red > 0
        votes = _votes(green[inside], red[inside])
        crowds = set(np.unique(green[inside & (blue > 0)]).tolist())
        for instance, rle in masks.from_label_map(np.where(inside, green.astype(np.int16) + 1, 0)).items():
            category = votes[instance - 1]
            if category not in self.categories:
                self.report.skip(png, f"instance {instance - 1}", f"has the unknown category {category}")
                continue
            yield annotation(0, image["id"], category, rle, crowd=instance - 1 in crowds, source_id=instance - 1)


def _votes(instances: npt.NDArray[np.integer[Any]], categories: npt.NDArray[np.integer[Any]]) -> dict[int, int]:
    """Return the most frequent category of each instance; of equally frequent ones the lowest."""
    counts = np.bincount(instances.astype(np.int64) * 256 + categories, minlength=1 << 16).reshape(256, 256)
    return {int(instance): int(counts[instance].argmax()) for instance in np.flatnonzero(counts.any(axis=1))}


def read_places_challenge(annotations: Path, images: Path, categories: Path, report: SkipReport) -> Record:
    """Read a folder of instance PNGs at once and return it in canonical form."""
    return whole(LabelledSet(PlacesChallengeReader(annotations, images, categories, report)))


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
