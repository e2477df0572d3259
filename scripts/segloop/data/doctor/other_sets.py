"""Examining data sets of every other format, by their readers; and folders of images."""

from collections.abc import Iterable, Iterator
from itertools import tee
from pathlib import Path

from segloop.config import LabelledSetConfig
from segloop.data.coco import write_labelled_set
from segloop.data.doctor.coco_tables import CheckImages
from segloop.data.doctor.findings import Examination, Finding
from segloop.data.doctor.image_files import examine_images
from segloop.data.labelled import LabelledSet, Record
from segloop.data.on_disk import NoRoomError
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


def examine_set(
    path: Path, config: LabelledSetConfig, *, check: CheckImages = "decode", repaired: Path | None = None
) -> Examination:
    """Examine a labelled set of any format: what its reader skips is bad, what it notes is odd.

    Parameters
    ----------
    config
        Format and absolute paths.
    repaired
        Where to write what is usable, as a COCO file.
    """
    from segloop.data.formats import open_dataset

    found = Examination(path, config.format)
    report = SkipReport(None, 1.0)
    try:
        dataset = open_dataset(config, data_root=Path("/"), report=report, check_images=check != "none")
        good = _Good(dataset, Path(config.images), check)
        if repaired is not None:
            write_labelled_set(repaired, good)
        else:
            for _ in good.labelled():
                pass
    except NoRoomError:
        raise
    except SegloopError as error:
        found.fatal = str(error)
        return _with_report(found, report)
    found.images = found.usable_images = good.images_used
    found.annotations = found.usable_annotations = good.annotations_used
    return _with_report(found, report)


def examine_image_folder(path: Path, images: Iterable[Path], *, decode: bool = True) -> Examination:
    """Examine a folder of images: each must decode."""
    found = Examination(path, "a folder of images")
    images, again = tee(images)
    try:
        for image, seen in zip(again, examine_images(images, None, decode=decode), strict=True):
            found.images += 1
            if isinstance(seen, str):
                found.bad.append(Finding(str(image), image.name, seen))
            else:
                found.usable_images += 1
    except SegloopError as error:
        found.fatal = str(error)
    return found


class _Good(LabelledSet):
    """A labelled set without the images that do not decode; file names are relative to the folder of images."""

    def __init__(self, dataset: LabelledSet, folder: Path, check: CheckImages) -> None:
        self._dataset = dataset
        self._folder = folder
        self._check = check
        self.source = dataset.source
        self.report = dataset.report
        self.images_used = self.annotations_used = 0

    @property
    def categories(self) -> list[Record]:
        """The categories, complete once the set has been read."""
        return self._dataset.categories

    def images(self) -> Iterator[Record]:
        """Yield the images that decode."""
        if self._check != "decode":
            yield from self._dataset.images()
            return
        images, again = tee(self._dataset.images())
        seen = examine_images((Path(image["file_name"]) for image in images), None)
        for image, what in zip(again, seen, strict=True):
            if isinstance(what, str):
                self.report.skip(self.source, f"image {image['id']}", what)
            else:
                yield image

    def labelled(self, images: Iterable[Record] | None = None) -> Iterator[tuple[Record, list[Record]]]:
        """Yield the images that decode, with their annotations."""
        for image, annotations in self._dataset.labelled(self.images() if images is None else images):
            self.images_used += 1
            self.annotations_used += len(annotations)
            path = Path(image["file_name"])
            inside = path.is_relative_to(self._folder)
            yield image | ({"file_name": path.relative_to(self._folder).as_posix()} if inside else {}), annotations


def _with_report(found: Examination, report: SkipReport) -> Examination:
    for one in report.skipped:
        found.bad.append(Finding(one["file"], one["record"], one["reason"], "left out"))
        is_image = one["record"].startswith("image") or Path(one["record"]).suffix
        found.images += bool(is_image)
        found.annotations += not is_image
    found.odd += [Finding(one["file"], one["record"], one["reason"]) for one in report.notes]
    return found
