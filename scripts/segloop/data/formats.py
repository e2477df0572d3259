"""The registry of formats: one word, one reader. docs/formats.md is its page for people."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segloop.config import LabelledSetConfig
from segloop.data.categories import read_category_map
from segloop.data.coco import CocoReader
from segloop.data.labelled import Choice, LabelledSet, Reader
from segloop.data.places_challenge import PlacesChallengeReader
from segloop.data.skipped import SkipReport
from segloop.data.splits import list_choice, split_choice
from segloop.errors import SegloopError


@dataclass(frozen=True)
class Request:
    """What a reader is opened with.

    Attributes
    ----------
    config
        The set's section of the configuration.
    root
        The folder its paths are relative to.
    report
        Takes what cannot be used.
    chosen
        Which images are read.
    check_images
        Whether the head of each image file is opened where the annotations give the size.
    rasterise
        Whether polygons become masks.
    extra
        Further keys of COCO annotations that are kept.
    """

    config: LabelledSetConfig
    root: Path
    report: SkipReport
    chosen: Choice
    check_images: bool
    rasterise: bool
    extra: tuple[str, ...]

    @property
    def annotations(self) -> Path:
        """The annotation file or folder."""
        return self.root / self.config.annotations

    @property
    def images(self) -> Path:
        """The folder of images."""
        return self.root / self.config.images

    def table(self, example: str) -> Path:
        """Return the table of categories, without which the format cannot be read."""
        if self.config.categories is None:
            raise SegloopError(
                f"a set of format {self.config.format} needs its category table: set `categories`, for example to "
                f"{example}"
            )
        return self.root / self.config.categories


def _coco(request: Request) -> Reader:
    return CocoReader(
        request.annotations,
        request.images,
        request.report,
        chosen=request.chosen,
        check_images=request.check_images,
        rasterise=request.rasterise,
        annotation_keys=request.extra,
    )


def _places_challenge(request: Request) -> Reader:
    table = request.table("instanceInfo100_train.txt")
    return PlacesChallengeReader(request.annotations, request.images, table, request.report, chosen=request.chosen)


FORMATS: dict[str, Callable[[Request], Reader]] = {"coco": _coco, "places_challenge": _places_challenge}


def open_dataset(
    config: LabelledSetConfig,
    *,
    data_root: Path,
    report: SkipReport,
    check_images: bool = False,
    rasterise: bool = True,
    extra: tuple[str, ...] = (),
) -> LabelledSet:
    """Open a labelled set of any format.

    Parameters
    ----------
    config
        Format, paths and what of the set is read.
    data_root
        The folder that the paths are relative to.
    report
        Takes what cannot be used; the caller finishes it.
    check_images
        Open the head of each image file where the annotations give the size, and skip images of another one.
    rasterise
        False leaves the polygons of COCO files as they are once they are checked.
    extra
        Further keys of COCO annotations that are kept, such as `score`.

    Raises
    ------
    SegloopError
        If the set as a whole cannot be read.
    """
    chosen = _choice(config, data_root)
    reader = FORMATS[config.format](Request(config, data_root, report, chosen, check_images, rasterise, extra))
    if config.category_map is None:
        return LabelledSet(reader)
    file, table = data_root / config.category_map.file, data_root / config.category_map.categories
    mapped = read_category_map(file, table, config.category_map.source_column, config.category_map.target_column)
    mapped.check_names(file, reader.categories, report)
    return LabelledSet(reader, mapped)


def _choice(config: LabelledSetConfig, root: Path) -> Choice:
    images = root / config.images
    tests = [list_choice(root / config.list, images)] if config.list is not None else []
    tests += [split_choice(config.split, images, root)] if config.split is not None else []
    return lambda path: all(test(path) for test in tests)


def guess_format(path: Path) -> LabelledSetConfig:
    """Return how a file or folder can be read, by what it holds; its paths are absolute.

    Raises
    ------
    SegloopError
        If it is of no known format, or needs more than a path.
    """
    raise SegloopError(f"{path} is of no known format. Name one: {', '.join(FORMATS)}.")
