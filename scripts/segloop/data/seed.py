"""Importing the seed set and the validation set, whatever their native format."""

from pathlib import Path

from segloop.config import LabelledSetConfig
from segloop.data.coco import Record, read_coco, write_canonical
from segloop.data.places import read_places_challenge
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError


def import_labelled_set(
    *, config: LabelledSetConfig, data_root: Path, output: Path, skipped: Path, max_skipped: float
) -> None:
    """Read a labelled set and write it in canonical form.

    Parameters
    ----------
    config
        Format and paths of the set.
    data_root
        Folder the paths are relative to.
    output, skipped
        The canonical COCO file, and the report of what could not be used.
    max_skipped
        Share of records that may be skipped.

    Raises
    ------
    SegloopError
        If the set is missing, has no image or no annotation, or too much of it cannot be used.
    """
    with SkipReport(skipped, max_skipped) as report:
        dataset = _read(config, data_root, report)
    source = (data_root / config.annotations).absolute()
    for key in ("images", "annotations"):
        if not dataset[key]:
            raise SegloopError(
                f"{source} gives no {key}. See {skipped} for what was skipped; a labelled set needs some."
            )
    write_canonical(output, dataset)


def _read(config: LabelledSetConfig, data_root: Path, report: SkipReport) -> Record:
    annotations, images = data_root / config.annotations, data_root / config.images
    if config.format == "coco":
        return read_coco(annotations, images, report, check_images=True)
    if config.categories is None:
        raise SegloopError(
            "a set of format places_challenge needs its category table: set `categories`, for example to "
            "instanceInfo100_train.txt"
        )
    return read_places_challenge(annotations, images, data_root / config.categories, report)
