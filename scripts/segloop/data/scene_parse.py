"""SceneParse150: greyscale PNGs, 0 = other, 1..150 the category; a mask for each category of an image, no instances."""

from collections.abc import Iterator
from pathlib import Path

from segloop.data import masks
from segloop.data.categories import read_category_table
from segloop.data.folders import FolderReader
from segloop.data.images import ImageError, open_labels
from segloop.data.labelled import Choice, Record, annotation, every_image
from segloop.data.skipped import SkipReport


class SceneParseReader(FolderReader):
    """Reads a folder of semantic PNGs.

    Parameters
    ----------
    annotations, images
        Folders of `NAME.png` and `NAME.jpg`.
    categories
        objectInfo150.txt.
    """

    what = "annotation PNGs"
    pattern = "*.png"

    def __init__(
        self, annotations: Path, images: Path, categories: Path, report: SkipReport, *, chosen: Choice = every_image
    ) -> None:
        table = {one["id"]: one for one in read_category_table(categories)}
        super().__init__(annotations, images, report, chosen=chosen, categories=table)

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield one mask for each category of an image, by ascending id."""
        file = self.file_of(image)
        labels = open_labels(file)
        if labels.ndim != 2:
            raise ImageError(f"{file} is RGB; an annotation PNG of SceneParse150 is greyscale")
        for category, rle in masks.from_label_map(self.fitted(file, labels, image)).items():
            if category not in self.categories:
                self.report.skip(file, f"category {category}", "is not in the category table")
                continue
            yield annotation(0, image["id"], category, rle)
