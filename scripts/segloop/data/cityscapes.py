"""Cityscapes: `*_gtFine_instanceIds.png` of 16 bits; 26003 is the fourth car, and 26 alone is a group of cars."""

from collections.abc import Iterator
from pathlib import Path

from segloop.data import masks
from segloop.data.folders import FolderReader
from segloop.data.images import ImageError, open_labels
from segloop.data.labelled import Choice, Record, annotation, every_image
from segloop.data.skipped import SkipReport

# The classes of Cityscapes that have instances, by label id (cityscapesScripts, helpers/labels.py).
CATEGORIES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    29: "caravan",
    30: "trailer",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}


class CityscapesReader(FolderReader):
    """Reads instance PNGs of Cityscapes: groups become crowds, classes without instances are left out.

    Parameters
    ----------
    annotations, images
        Folders such as `gtFine/train` and `leftImg8bit/train`, a folder a city in both.
    """

    what = "instance PNGs"
    pattern = "**/*_instanceIds.png"
    suffixes = ("_leftImg8bit.png", "_leftImg8bit.jpg", ".png", ".jpg")

    def __init__(self, annotations: Path, images: Path, report: SkipReport, *, chosen: Choice = every_image) -> None:
        table = {number: {"id": number, "name": name} for number, name in CATEGORIES.items()}
        super().__init__(annotations, images, report, chosen=chosen, categories=table)

    def stem(self, file: Path) -> str:
        """Return the name of the scene: what precedes `_gtFine`, `_gtCoarse`."""
        return file.stem.removesuffix("_instanceIds").rpartition("_")[0]

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield groups and instances of an image by ascending number."""
        file = self.file_of(image)
        labels = open_labels(file)
        if labels.ndim != 2:
            raise ImageError(f"{file} is RGB; an instance PNG of Cityscapes is greyscale of 16 bits")
        self.check_size(file, labels, image)
        for value, rle in masks.from_label_map(labels).items():
            category = value // 1000 if value >= 1000 else value
            if category in self.categories:
                yield annotation(0, image["id"], category, rle, crowd=value < 1000, source_id=value)
            elif value >= 1000:
                self.report.skip(file, f"instance {value}", f"has the unknown category {category}")
            else:
                self.report.tally(self.source, "regions of classes without instances, left out")
