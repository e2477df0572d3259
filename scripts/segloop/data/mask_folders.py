"""A folder an image with a binary PNG an object: the Data Science Bowl 2018 (`ID/images/*.png`, `ID/masks/*.png`)."""

from collections.abc import Iterator
from pathlib import Path

from segloop.data import masks
from segloop.data.categories import read_category_table
from segloop.data.folders import FolderReader, inside, shown_in
from segloop.data.images import IMAGE_SUFFIXES, open_labels
from segloop.data.labelled import Choice, Record, annotation, every_image
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


class MaskFolderReader(FolderReader):
    """Reads a folder of folders with `images` and `masks`.

    Parameters
    ----------
    folder
        Such as `stage1_train`.
    category
        A table of which the first line names what all masks show; None: `object`.
    """

    what = "folders with images and masks"
    pattern = "*/masks"

    def __init__(
        self, folder: Path, report: SkipReport, *, category: Path | None = None, chosen: Choice = every_image
    ) -> None:
        one: Record = read_category_table(category)[0] if category is not None else {"id": 1, "name": "object"}
        self._category = int(one["id"])
        super().__init__(folder, folder, report, chosen=chosen, categories={self._category: one})

    def walk(self, folder: Path) -> Iterator[Path]:
        """Yield the folders of masks."""
        found = (one / "masks" for one in inside(folder))
        yield from (path for path in found if path.exists())

    def stem(self, file: Path) -> str:
        """Return the name of the folder, which is that of the image."""
        return file.parent.name

    def image_of(self, file: Path) -> Path:
        """Return the image beside a folder of masks; there is one."""
        folder = file.parent / "images"
        found = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        return found[0] if len(found) == 1 else folder / f"{self.stem(file)}.png"

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield one mask for each file, by name."""
        for path in sorted(self.file_of(image).glob("*.png")):
            try:
                pixels = open_labels(path)
                self.check_size(path, pixels, image)
                yield annotation(0, image["id"], self._category, masks.encode(shown_in(pixels)))
            except SegloopError as error:
                self.report.skip(path, path.stem, str(error))
