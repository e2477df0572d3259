"""Importing the seed set and the validation set, whatever their native format."""

from pathlib import Path

from segloop.config import LabelledSetConfig
from segloop.data.coco import write_labelled_set
from segloop.data.formats import open_dataset
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
    source = (data_root / config.annotations).absolute()
    report = SkipReport(skipped, max_skipped)
    dataset = open_dataset(config, data_root=data_root, report=report, check_images=True)

    def check(images: int, annotations: int) -> None:
        report.finish()
        for name, count in (("images", images), ("annotations", annotations)):
            if not count:
                raise SegloopError(
                    f"{source} gives no {name}. See {skipped} for what was skipped; a labelled set needs some."
                )

    write_labelled_set(output, dataset, check)
