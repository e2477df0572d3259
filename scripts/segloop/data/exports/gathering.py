"""What is to be exported: images with their masks, gathered from a run or from a data set.

Masks of one image are spread over the iterations of a run. They are brought together in a database beside the output,
so that memory does not grow with their number, and handed to the writers image by image.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from segloop.config import read_values
from segloop.data import masks
from segloop.data.json_stream import JsonFile
from segloop.data.labelled import LabelledSet, Record
from segloop.data.masks import MaskError
from segloop.data.on_disk import DiskTable
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import read_document
from segloop.runs import START, iterations_with


class Gathered:
    """Images and masks on disk, read back image by image.

    Annotations that come out are canonical (`segloop.data.coco`): numbered from 1, masks as compressed run lengths,
    area and box from the mask. Keys that the source has besides (`score`, `provenance`, ...) are kept.

    Parameters
    ----------
    database
        A new file for the time of the export.
    """

    def __init__(self, database: Path) -> None:
        self._base = sqlite3.connect(database)
        self._base.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE image (id INTEGER PRIMARY KEY, record TEXT, path TEXT);"
            "CREATE TABLE mask (number INTEGER PRIMARY KEY, image INTEGER, category INTEGER, record TEXT);"
        )
        self.categories: list[Record] = []
        self.sources: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def add_image(self, record: Record, path: Path) -> bool:
        """Add an image; `path` is where its file lies. Return False where another image has its id already."""
        words = (record["id"], _text(record), str(path))
        return self._base.execute("INSERT OR IGNORE INTO image VALUES (?, ?, ?)", words).rowcount == 1

    def add_annotation(self, record: Record) -> None:
        """Add a canonical annotation of an image that was added."""
        words = (record["image_id"], record["category_id"], _text(record))
        self._base.execute("INSERT INTO mask (image, category, record) VALUES (?, ?, ?)", words)

    def keep_only(self, categories: set[int] | None) -> None:
        """Forget the masks of other categories, and the images that had no others; None: keep everything."""
        self._base.execute("CREATE INDEX by_image ON mask (image)")
        if categories is None:
            return
        listed = ",".join(str(int(category)) for category in categories)
        self._base.execute(f"DELETE FROM mask WHERE category NOT IN ({listed})")
        self._base.execute("DELETE FROM image WHERE NOT EXISTS (SELECT 1 FROM mask WHERE mask.image = image.id)")

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM image").fetchone()[0])

    @property
    def masks(self) -> int:
        """Number of masks."""
        return int(self._base.execute("SELECT count(*) FROM mask").fetchone()[0])

    def images(self) -> Iterator[tuple[Record, Path]]:
        """Yield every image, by its id, with the path of its file."""
        for record, path in self._base.execute("SELECT record, path FROM image ORDER BY id"):
            yield json.loads(record), Path(path)

    def scenes(self, what: str = "export") -> Iterator[tuple[Record, Path, list[Record]]]:
        """Yield every image with its file and its annotations, which are numbered from 1 through the whole set."""
        number = 0
        for image, path in tqdm(self.images(), total=len(self), desc=what, unit="image", disable=None):
            rows = self._base.execute("SELECT record FROM mask WHERE image = ? ORDER BY number", (image["id"],))
            annotations = [_numbered(json.loads(text), place) for place, (text,) in enumerate(rows, start=number + 1)]
            number += len(annotations)
            yield image, path, annotations


def _numbered(record: Record, number: int) -> Record:
    old = record.get("source_id", record["id"])
    kept = {key: value for key, value in record.items() if key != "source_id"} | {"id": number}
    # The masks of a run say in their provenance where they come from; their numbers begin anew in each iteration.
    return kept if old == number or "provenance" in kept else kept | {"source_id": old}


def _text(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def gather_run(
    run: Path,
    gathered: Gathered,
    report: SkipReport,
    *,
    iterations: Sequence[int] = (),
    categories: Sequence[str] = (),
) -> None:
    """Gather what a run has collected.

    Parameters
    ----------
    run
        The run directory.
    report
        Takes masks that are damaged.
    iterations
        Which ones; all that are there when empty.
    categories
        Names or ids; all when empty.

    Raises
    ------
    SegloopError
        If the run has collected nothing yet, or lacks an iteration or a category that is asked for.
    """
    folder = pool_folder(run)
    for path in collected_files(run, iterations):
        gathered.sources.append(str(path))
        table: list[Record] = []
        sizes: DiskTable[int, tuple[int, int]] = DiskTable()
        # Written by `collect_masks`: images come before their masks, categories last.
        with JsonFile(path) as file:
            for member in file.members():
                if member.key == "images":
                    image = member.value
                    opens = run.absolute() / image["file_name"]
                    name = _source_name(opens, image["file_name"], folder)
                    gathered.add_image(image | {"file_name": name}, opens)
                    sizes[image["id"]] = image["height"], image["width"]
                elif member.key == "annotations":
                    _take_annotation(path, member.value, sizes, gathered, report)
                elif member.key == "categories":
                    table.append(member.value)
        _take_categories(path, table, gathered, categories)
    gathered.keep_only({category["id"] for category in gathered.categories} if categories else None)


def gather_set(dataset: LabelledSet, images: Path, gathered: Gathered, categories: Sequence[str] = ()) -> None:
    """Gather a labelled set of any format.

    Parameters
    ----------
    images
        The folder that the set's file names were joined with.
    categories
        Names or ids; all when empty.

    Raises
    ------
    SegloopError
        If the set lacks a category that is asked for.
    """
    gathered.sources.append(str(dataset.source))
    for image, annotations in tqdm(dataset.labelled(), desc=dataset.source.name, unit="image", disable=None):
        file = Path(image["file_name"]).absolute()
        gathered.add_image(image | {"file_name": _source_name(file, image["file_name"], images.absolute())}, file)
        for annotation in annotations:
            gathered.add_annotation(annotation)
    # Some formats name a category where it occurs first: the table is complete only now.
    _take_categories(dataset.source, dataset.categories, gathered, categories)
    gathered.keep_only({category["id"] for category in gathered.categories} if categories else None)


def collected_files(run: Path, iterations: Sequence[int] = ()) -> list[Path]:
    """Return `collected.json` of each iteration of a run, or of those that are asked for.

    Raises
    ------
    SegloopError
        If there is none, or one that is asked for is missing.
    """
    found = iterations_with(run, "collected.json")
    if not found:
        raise SegloopError(
            f"{run.absolute()} holds no results/iter_*/collected.json. Name the directory of a run whose first "
            "iteration is done."
        )
    missing = sorted(set(iterations) - set(found))
    if missing:
        raise SegloopError(f"{run} has collected nothing in iteration {missing[0]}; it has {sorted(found)}.")
    return [found[number] for number in sorted(found) if not iterations or number in iterations]


def pool_folder(run: Path) -> Path | None:
    """Return the folder of the pool's images, as the run's configuration has it; None where no configuration is."""
    written, start = run / "results" / "config.yaml", run / START
    if written.exists():
        config = read_values(written)
    elif start.exists():
        config = read_document(start).get("config")
    else:
        return None
    try:
        return Path(os.path.normpath(run.absolute() / config["data_root"] / config["pool"]["images"]))
    except (KeyError, TypeError):
        return None


def _source_name(file: Path, name: str, folder: Path | None) -> str:
    """Return the name that an image has in its source: the path below the folder of images."""
    path = Path(os.path.normpath(file))
    below = os.path.normpath(folder) if folder is not None else None
    if below is not None and path.is_relative_to(below):
        return path.relative_to(below).as_posix()
    # Nothing that leads out of the export.
    return Path(*(part for part in Path(name).parts if part not in ("..", "/"))).as_posix()


def _take_annotation(
    path: Path, record: Record, sizes: DiskTable[int, tuple[int, int]], gathered: Gathered, report: SkipReport
) -> None:
    try:
        number = record["image_id"]
        size = sizes.get(number) if isinstance(number, int) and number.bit_length() < 64 else None
        if size is None:
            raise MaskError(f"belongs to the image {number}, which is not listed")
        rle = masks.check(record["segmentation"], (size[0], size[1]))
    except MaskError as error:
        report.skip(path, f"annotation {record['id']}", str(error))
        return
    report.use()
    gathered.add_annotation(record | {"segmentation": masks.to_json(rle)})


def _take_categories(path: Path, table: list[Record], gathered: Gathered, wanted: Sequence[str]) -> None:
    by_word = {str(one["id"]): one["id"] for one in table} | {one["name"]: one["id"] for one in table}
    for word in wanted:
        if word not in by_word:
            names = ", ".join(one["name"] for one in table[:20])
            raise SegloopError(f"{path} has no category {word!r}; it has {names}{' ...' if len(table) > 20 else ''}.")
    chosen = {by_word[word] for word in wanted}
    table = [one for one in table if not wanted or one["id"] in chosen]
    if gathered.categories and table != gathered.categories:
        raise SegloopError(f"{path} has other categories than {gathered.sources[0]}. Export them one at a time.")
    gathered.categories = table
