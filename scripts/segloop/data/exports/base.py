"""What every writer is given, and where the images of an export go."""

import csv
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segloop.data import masks
from segloop.data.exports import ImageMode, Join, Order
from segloop.data.exports.gathering import Gathered
from segloop.data.exports.losses import Losses, Mask
from segloop.data.labelled import Record
from segloop.data.on_disk import DiskTable
from segloop.errors import SegloopError


@dataclass(frozen=True)
class Wishes:
    """What a person can choose about an export."""

    images: ImageMode = "none"
    """`link`: symbolic links to the images; `copy`: copies; `none`: no images."""
    split: str = "train"
    """Name of the part of the data set, for formats that have parts."""
    order: Order | None = None
    """Which of two overlapping masks lies on top, for formats with one value a pixel; None: overlaps are refused.
    `score`: the higher score; `small`: the smaller mask; `last`: the later one in the source."""
    join: Join = "parts"
    """For polygons: `none` keeps the largest part alone, `parts` joins all parts by bridges, `holes` holes as well."""


@dataclass
class Export:
    """An export that is being written: its source, its destination, and the account of what is lost."""

    gathered: Gathered
    out: Path
    wishes: Wishes
    losses: Losses
    extra: dict[str, object] = field(default_factory=dict)
    """What a writer adds to `export.json`."""

    def place_image(self, source: Path, name: str) -> None:
        """Link or copy an image into the export, as was asked for.

        Raises
        ------
        SegloopError
            If the image is missing.
        """
        if self.wishes.images == "none":
            return
        target = self.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not source.exists():
            raise SegloopError(f"the image {source} is missing. Check --image-root, or export with --images none.")
        if self.wishes.images == "link":
            target.symlink_to(os.path.realpath(source))
        else:
            shutil.copyfile(source, target)


class Names:
    """Names of images that a format can hold, each once; what was renamed is remembered with its origin."""

    def __init__(self) -> None:
        self._taken: DiskTable[str, None] = DiskTable()

    def flat(self, image: Record) -> str:
        """Return the name of an image without folder and suffix: `a/airfield/01.jpg` becomes `a__airfield__01`."""
        stem = Path(image["file_name"]).with_suffix("").as_posix()
        return self._once(re.sub(r"/+", "__", stem), image)

    def stem(self, image: Record) -> str:
        """Return the path of an image below its folder without its suffix."""
        return self._once(Path(image["file_name"]).with_suffix("").as_posix(), image)

    def _once(self, name: str, image: Record) -> str:
        # a.jpg and a.png are two images, but would share one label file.
        name = name if name not in self._taken else f"{name}__{image['id']}"
        self._taken[name] = None
        return name


class Origins:
    """The images of an export in its order, each with the name that it has there."""

    def __init__(self) -> None:
        self._images: DiskTable[int, tuple[str, Record]] = DiskTable()

    def add(self, name: str, image: Record) -> None:
        """Add the next image."""
        self._images[image["id"]] = name, image

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        yield from self._images.values()

    def write(self, export: Export) -> None:
        """Write `origins.csv`: which name an image has in the export, and which in its source."""
        with (export.out / "origins.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("name", "image_id", "source_name"))
            table.writerows((name, image["id"], image["file_name"]) for name, image in self)


def mask_of(annotation: Record) -> Mask:
    """Return the mask of a canonical annotation, boolean of the shape of its image."""
    return masks.decode(masks.from_json(annotation["segmentation"]))


def suffix_of(image: Record) -> str:
    """Return the suffix of an image's file name, as it is written."""
    return Path(image["file_name"]).suffix
