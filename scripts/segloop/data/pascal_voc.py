"""Pascal VOC: palette PNGs of objects (SegmentationObject) and of classes (SegmentationClass); 255 is the border."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segloop.data import masks
from segloop.data.folders import FolderReader
from segloop.data.images import ImageError, open_labels
from segloop.data.labelled import Choice, Record, annotation, every_image
from segloop.data.skipped import SkipReport

BORDER = 255
# In the order of the development kit, which is that of the palette.
CATEGORIES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class PascalVocReader(FolderReader):
    """Reads the instances of Pascal VOC.

    Parameters
    ----------
    annotations
        The folder SegmentationObject; SegmentationClass lies beside it.
    images
        The folder JPEGImages.
    """

    what = "object PNGs"
    pattern = "*.png"

    def __init__(self, annotations: Path, images: Path, report: SkipReport, *, chosen: Choice = every_image) -> None:
        table = {number: {"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)}
        super().__init__(annotations, images, report, chosen=chosen, categories=table)

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the objects of an image by ascending number; the border belongs to none."""
        file = self.file_of(image)
        objects = self._indices(file, image)
        classes = self._indices(self.source.parent / "SegmentationClass" / file.name, image)
        objects = np.where(objects == BORDER, 0, objects)
        for number, rle in masks.from_label_map(objects).items():
            votes = classes[(objects == number) & (classes != BORDER) & (classes != 0)]
            category = int(np.bincount(votes).argmax()) if len(votes) else 0
            if category not in self.categories:
                self.report.skip(file, f"object {number}", f"has the unknown category {category}")
                continue
            yield annotation(0, image["id"], category, rle, source_id=number)

    def _indices(self, file: Path, image: Record) -> npt.NDArray[np.int64]:
        pixels = open_labels(file)
        if pixels.ndim != 2:
            raise ImageError(f"{file} holds colours; the PNGs of Pascal VOC hold palette indices")
        self.check_size(file, pixels, image)
        return pixels.astype(np.int64)
