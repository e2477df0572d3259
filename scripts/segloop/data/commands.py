"""What `segloop export`, `doctor` and `stats` do; the command line itself is `segloop.cli`."""

import argparse
import codecs
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from tqdm import tqdm

from segloop.config import FormatName, LabelledSetConfig
from segloop.data.doctor.findings import Examination
from segloop.data.exports import usual_images
from segloop.data.exports.base import Wishes
from segloop.data.exports.gathering import Gathered, collected_files, gather_run
from segloop.data.exports.writing import Source, export_set
from segloop.data.folders import files_below
from segloop.data.images import IMAGE_SUFFIXES
from segloop.data.labelled import Record
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

if TYPE_CHECKING:
    from segloop.data.statistics import Statistics


@dataclass(frozen=True)
class Given:
    """A labelled set as a person names it on the command line."""

    path: Path
    read_as: str | None = None
    """The format; None: it is guessed."""
    image_root: Path | None = None
    category_table: Path | None = None
    mask_folder: Path | None = None

    def config(self) -> LabelledSetConfig:
        """Return the set's section of a configuration, with absolute paths.

        Raises
        ------
        SegloopError
            If nothing is there, or its format cannot be guessed.
        """
        from segloop.data.guessing import guess_format

        path = self.path.absolute()
        if not path.exists():
            raise SegloopError(f"{path} does not exist. Name an annotation file, or the folder of a data set.")
        if self.read_as is not None and self.read_as not in get_args(FormatName):
            raise SegloopError(f"--read-as {self.read_as} is none of {', '.join(get_args(FormatName))}.")
        if self.read_as is None:
            config = guess_format(path)
        else:
            known = path if path.is_dir() else path.parent
            config = LabelledSetConfig(format=self.read_as, annotations=str(path), images=str(known))  # type: ignore[arg-type]
        own = {"images": self.image_root, "categories": self.category_table, "mask_folder": self.mask_folder}
        return config.model_copy(update={key: str(value.absolute()) for key, value in own.items() if value is not None})


def given_set(options: argparse.Namespace, path: Path) -> Given:
    """Return the labelled set that the options of the command line name."""
    return Given(path, options.read_as, options.image_root, options.category_table, options.mask_folder)


def export_command(options: argparse.Namespace) -> int:
    """Run `segloop export`; return its exit status."""
    if options.iteration and options.run is None:
        raise SegloopError("--iteration belongs to --run.")
    if not options.split.replace("_", "").replace("-", "").isalnum():
        raise SegloopError(f"--split {options.split!r} becomes a folder: letters, digits, - and _ alone are allowed.")
    source = Source(
        run=options.run,
        iterations=tuple(sorted(set(options.iteration or ()))),
        dataset=given_set(options, options.annotations).config() if options.annotations else None,
        categories=tuple(options.categories or ()),
    )
    images = options.images or usual_images(options.format)
    wishes = Wishes(images=images, split=options.split, order=options.order, join=options.join)
    account = export_set(source, options.format, options.out, wishes, force=options.force)
    print("\n".join(_account_lines(account, options.out)))
    return 0


def _account_lines(account: dict[str, Any], out: Path) -> list[str]:
    lines = [f"{account['masks']:,} masks on {account['images']:,} images to {out} ({account['format']})"]
    lines += [f"  {count:,} x {why}" for why, count in account["losses"]["counts"].items()]
    iou = account["losses"].get("iou")
    if iou:
        lines.append(
            f"  IoU of what is written with the mask: mean {iou['mean']:.4f}, lowest {iou['lowest']:.4f}; "
            f"{iou['unchanged']:,} of {iou['masks']:,} unchanged, {iou['below_0.90']:,} below 0.90"
        )
    for one in account["skipped"][:10]:
        lines.append(f"  skipped: {one['file']}, {one['record']}: {one['reason']}")
    if len(account["skipped"]) > 10:
        lines.append(f"  skipped: {len(account['skipped']) - 10:,} more; all stand in the account beside the export")
    return lines


def doctor_command(options: argparse.Namespace) -> int:
    """Run `segloop doctor`; return what `Status` says."""
    if (options.run is None) == (options.path is None):
        raise SegloopError("Name a data set, or a run by --run.")
    if options.run is not None:
        return _examine_run(options)
    if options.deep:
        raise SegloopError("--deep belongs to --run; of a data set every record is read in any case.")
    found = _examined(options)
    if options.json:
        print(json.dumps(found.record(), ensure_ascii=False, indent=1))
    else:
        print(found.text(None if options.all else 10), end="")
    if options.repaired is not None and found.form != "unknown" and options.repaired.exists():
        print(f"the repaired copy is {options.repaired}", file=sys.stderr)
    return int(found.status)


def _examine_run(options: argparse.Namespace) -> int:
    from segloop.data.doctor.run_folders import examine_run

    if options.repaired is not None:
        raise SegloopError("--repaired belongs to a data set; a run makes anew what you delete.")
    found = examine_run(options.run, deep=options.deep)
    if options.json:
        print(json.dumps(found.record(), ensure_ascii=False, indent=1))
    else:
        print(found.text(None if options.all else 10), end="")
    return int(found.status)


def stats_command(options: argparse.Namespace) -> int:
    """Run `segloop stats`; return its exit status."""
    from segloop.data.statistics import Statistics, text_of

    if (options.run is None) == (options.path is None):
        raise SegloopError("Name a data set, or a run by --run.")
    if options.iteration and options.run is None:
        raise SegloopError("--iteration belongs to --run.")
    report = SkipReport(None, 1.0)
    statistics = Statistics(holes=not options.fast)
    if options.run is not None:
        categories = _add_run(options, statistics, report)
    else:
        from segloop.data.formats import open_dataset

        config = given_set(options, options.path).config()
        dataset = open_dataset(config, data_root=Path("/"), report=report, rasterise=not options.fast)
        statistics.add_all(tqdm(dataset.labelled(), desc=options.path.name, unit="image", disable=None))
        categories = dataset.categories
    found = statistics.record(categories) | {"skipped": report.skipped}
    if options.figure is not None:
        _plot(options, statistics)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return 0
    print(text_of(str(options.run or options.path), found, None if options.all else 20), end="")
    if report.skipped:
        print(f"\n{len(report.skipped):,} records could not be used and are not counted; `segloop doctor` lists them")
    return 0


def _add_run(options: argparse.Namespace, statistics: "Statistics", report: SkipReport) -> list[Record]:
    with TemporaryDirectory() as folder, Gathered(Path(folder) / "masks.sqlite") as gathered:
        gather_run(options.run, gathered, report, iterations=sorted(set(options.iteration or ())))
        statistics.add_all((image, annotations) for image, _, annotations in gathered.scenes("stats"))
        return gathered.categories


def _plot(options: argparse.Namespace, statistics: "Statistics") -> None:
    from segloop.reporting.dataset_sizes import OWN, DataSet, of_run, plot_dataset_sizes

    if options.run is not None and not options.iteration:
        points = of_run(collected_files(options.run))
    else:
        name = options.name or (options.run or options.path).absolute().name
        points = [DataSet(name, statistics.images, statistics.instances, OWN)]
    svg, png, table = (options.figure / f"dataset_sizes.{suffix}" for suffix in ("svg", "png", "csv"))
    plot_dataset_sizes(points, svg=svg, png=png, table=table)
    print(f"figure: {png}, {svg.name}, {table.name}", file=sys.stderr)


def _examined(options: argparse.Namespace) -> Examination:
    from segloop.data.doctor.coco_files import examine_coco
    from segloop.data.doctor.other_sets import examine_image_folder, examine_set

    path, repaired = options.path, options.repaired
    if repaired is not None and (repaired.exists() or repaired.is_symlink()):
        raise SegloopError(f"{repaired} exists. Choose another place for the repaired copy.")
    if not path.exists():
        raise SegloopError(f"{path.absolute()} does not exist. Name an annotation file, or the folder of a data set.")
    if options.read_as is None and _is_list(path):
        options.read_as = "coco_results"
    try:
        config = given_set(options, path).config()
    except SegloopError as error:
        images = _images_below(path)
        try:
            first = next(images, None)
        except SegloopError as unreadable:
            return Examination(path, fatal=str(unreadable))
        if first is None or options.read_as is not None:
            return Examination(path, fatal=str(error))
        return examine_image_folder(path, chain([first], images), decode=options.check_images == "decode")
    if config.format not in ("coco", "lvis", "coco_results"):
        return examine_set(path, config, check=options.check_images, repaired=repaired)
    return examine_coco(
        path,
        config.format,
        images=Path(config.images),
        images_are_there=options.image_root is not None,
        check=options.check_images,
        catalogue=options.category_table,
        repaired=repaired,
    )


def _is_list(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def _images_below(path: Path) -> Iterator[Path]:
    found = files_below(path, "**/*") if path.is_dir() else iter(())
    yield from (one for one in found if one.suffix.lower() in IMAGE_SUFFIXES and one.is_file())
