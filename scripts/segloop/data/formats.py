"""The registry of formats: one word, one reader. docs/formats.md is its page for people."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segloop.config import LabelledSetConfig
from segloop.data.ade20k import Ade20k2016Reader, Ade20k2021Reader
from segloop.data.bundles import BundleReader
from segloop.data.categories import read_category_map
from segloop.data.cityscapes import CityscapesReader
from segloop.data.coco import CocoReader
from segloop.data.labelled import Choice, LabelledSet, Reader
from segloop.data.mask_folders import MaskFolderReader
from segloop.data.open_images import OpenImagesReader
from segloop.data.panoptic import PanopticReader
from segloop.data.pascal_voc import PascalVocReader
from segloop.data.places_challenge import PlacesChallengeReader
from segloop.data.sa1b import Sa1bReader
from segloop.data.scene_parse import SceneParseReader
from segloop.data.skipped import SkipReport
from segloop.data.splits import list_choice, split_choice
from segloop.data.yolo import YoloReader
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

    def optional(self, path: str | None) -> Path | None:
        """Return a path that need not be given."""
        return self.root / path if path is not None else None

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


def _coco_results(request: Request) -> Reader:
    catalogue = request.table("the COCO file whose images the results are about")
    return CocoReader(
        request.annotations,
        request.images,
        request.report,
        chosen=request.chosen,
        catalogue=catalogue,
        check_images=request.check_images,
        rasterise=request.rasterise,
        annotation_keys=request.extra,
    )


def _lvis(request: Request) -> Reader:
    return CocoReader(
        request.annotations,
        request.images,
        request.report,
        chosen=request.chosen,
        check_images=request.check_images,
        rasterise=request.rasterise,
        image_keys=("neg_category_ids", "not_exhaustive_category_ids"),
        category_keys=("synset", "synonyms", "def", "frequency"),
        annotation_keys=request.extra,
    )


def _coco_panoptic(request: Request) -> Reader:
    return PanopticReader(
        request.annotations,
        request.optional(request.config.mask_folder),
        request.images,
        request.report,
        chosen=request.chosen,
        check_images=request.check_images,
    )


def _ade20k_2016(request: Request) -> Reader:
    names = request.optional(request.config.categories)
    return Ade20k2016Reader(
        request.annotations,
        request.images,
        request.report,
        names=names,
        parts=request.config.parts,
        chosen=request.chosen,
    )


def _ade20k_2021(request: Request) -> Reader:
    return Ade20k2021Reader(
        request.annotations,
        request.images,
        request.report,
        names=request.optional(request.config.categories),
        parts=request.config.parts,
        amodal=request.config.amodal,
        chosen=request.chosen,
    )


def _places_challenge(request: Request) -> Reader:
    table = request.table("instanceInfo100_train.txt")
    return PlacesChallengeReader(request.annotations, request.images, table, request.report, chosen=request.chosen)


def _scene_parse(request: Request) -> Reader:
    table = request.table("objectInfo150.txt")
    return SceneParseReader(request.annotations, request.images, table, request.report, chosen=request.chosen)


def _open_images(request: Request) -> Reader:
    if request.config.mask_folder is None:
        raise SegloopError("a set of format open_images needs `mask_folder`: the folder of its mask PNGs")
    names = request.table("oidv7-class-descriptions-boxable.csv")
    folder = request.root / request.config.mask_folder
    return OpenImagesReader(request.annotations, folder, request.images, names, request.report, chosen=request.chosen)


def _yolo(request: Request) -> Reader:
    names = request.table("data.yaml")
    return YoloReader(request.annotations, request.images, names, request.report, chosen=request.chosen)


def _mask_folders(request: Request) -> Reader:
    category = request.optional(request.config.categories)
    return MaskFolderReader(request.annotations, request.report, category=category, chosen=request.chosen)


def _plain(
    reader: type[BundleReader] | type[CityscapesReader] | type[PascalVocReader] | type[Sa1bReader],
) -> Callable[[Request], Reader]:
    """Return the opener of a format that two paths say all about."""
    return lambda request: reader(request.annotations, request.images, request.report, chosen=request.chosen)


FORMATS: dict[str, Callable[[Request], Reader]] = {
    "coco": _coco,
    "coco_results": _coco_results,
    "coco_panoptic": _coco_panoptic,
    "lvis": _lvis,
    "ade20k_2016": _ade20k_2016,
    "ade20k_2021": _ade20k_2021,
    "places_challenge": _places_challenge,
    "scene_parse_150": _scene_parse,
    "open_images": _open_images,
    "cityscapes": _plain(CityscapesReader),
    "pascal_voc": _plain(PascalVocReader),
    "sa1b": _plain(Sa1bReader),
    "yolo": _yolo,
    "question_bundle": _plain(BundleReader),
    "mask_folders": _mask_folders,
}
"""Openers by the words of `format`."""


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
    tests = [list_choice(root / config.image_list, images)] if config.image_list is not None else []
    tests += [split_choice(config.split, images, root)] if config.split is not None else []
    return lambda path: all(test(path) for test in tests)
