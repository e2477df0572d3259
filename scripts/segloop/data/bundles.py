"""The question bundles of the thesis's author: a COCO file for one page of questions, with or without answers.

Seen in real files: ids of the full pool, masks as compressed run lengths, a score. Its example lacks sizes, areas and
boxes. Answered ones hold `completed_task` with `accepted` in each annotation. An answered file is named
`BUNDLE_DATE.json`, and its date has colons, which some file systems refuse: they are read, and never written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segloop.data.coco import CocoReader
from segloop.data.labelled import Choice, Reader, Record, every_image
from segloop.data.on_disk import DiskTable, TemporaryDatabase
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


class BundleReader(Reader):
    """Reads one question bundle, or a folder of them.

    A mask of several bundles is read once. Masks that a person did not accept are left out.

    Parameters
    ----------
    path
        The JSON file, or the folder of JSON files.
    images
        The folder that `file_name` is relative to. Where a bundle gives no size, an image has that of its masks.
    """

    def __init__(self, path: Path, images: Path, report: SkipReport, *, chosen: Choice = every_image) -> None:
        super().__init__(path, report, chosen=chosen)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise SegloopError(f"{path.absolute()} holds no question bundle (*.json).")
        # One database for all: each has a cache.
        base = TemporaryDatabase()
        self._bundles = [
            CocoReader(
                file,
                images,
                report,
                chosen=chosen,
                sizes_from_masks=True,
                annotation_keys=("score", "completed_task", "current_task"),
                database=base,
            )
            for file in files
        ]
        self._images: DiskTable[int, Record] = DiskTable(base)
        for bundle in self._bundles:
            self._add_categories(bundle)
            for image in bundle.images():
                self._add_image(bundle, image)

    def _add_categories(self, bundle: CocoReader) -> None:
        for number, category in bundle.categories.items():
            if self.categories.setdefault(number, category)["name"] != category["name"]:
                other = self.categories[number]["name"]
                raise SegloopError(
                    f"{bundle.source} calls category {number} {category['name']!r}, another bundle {other!r}."
                )

    def _add_image(self, bundle: CocoReader, image: Record) -> None:
        known = self._images.get(image["id"])
        if known is None:
            self._images[image["id"]] = image
        elif known != image:
            reason = f"is {image['file_name']}, in another bundle it is {known['file_name']} or has another size"
            self.report.skip(bundle.source, f"image {image['id']}", reason)

    def images(self) -> Iterator[Record]:
        """Yield the images of all bundles, each once, by ascending id."""
        yield from (image for _, image in self._images.sorted_items())

    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the masks of an image, bundle by bundle."""
        seen: set[int] = set()
        for bundle in self._bundles:
            if not bundle.has(image):
                continue
            for one in bundle.annotations(image):
                number = one.get("source_id")
                if number is not None and number in seen:
                    self.report.tally(self.source, "masks that an earlier bundle has, too, read once")
                    continue
                seen |= {number} if number is not None else set()
                accepted = _accepted(one.pop("completed_task", None))
                one.pop("current_task", None)
                if accepted is False:
                    self.report.tally(self.source, "masks that a person did not accept, left out")
                    continue
                yield one


def _accepted(task: Any) -> bool | None:
    """Return the answer that a task holds, if it holds one."""
    return bool(task["accepted"]) if isinstance(task, dict) and "accepted" in task else None


def result_name(bundle: str, date: str) -> str:
    """Return the file name of an answered bundle, without the colons of its date."""
    return f"{bundle}_{date}.json".replace(":", "-")
