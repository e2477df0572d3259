"""How a source becomes a data set of the database."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from tqdm import tqdm

from labelmelite.sources.base import Image, Object, Source
from labelmelite.store import Store

_BATCH: Final = 1000
_ONE_AT_A_TIME: Final = threading.Lock()
"""Of two imports of one source, the second would take what the first has half read for a rest, and remove it."""


@dataclass(frozen=True)
class Imported:
    """What became of a source.

    Attributes
    ----------
    dataset
        Its number in the database.
    changed
        Whether the source has changed since people began to work on it, so that their state of it was kept.
    """

    dataset: int
    changed: bool = False


def import_source(store: Store, source: Source, *, progress: bool = False) -> Imported:
    """Read a source into the database, unless it is there already.

    Rows go in small groups, so that answers of people who work meanwhile are not held up; the data set appears once it
    is whole, and what a killed server left half-way is read again. A set whose source has changed is read again when
    nobody has worked on it; else what people see stays, and new images of a folder are added.
    """
    with _ONE_AT_A_TIME:
        return _import(store, source, progress)


def _import(store: Store, source: Source, progress: bool) -> Imported:
    known = store.read_now(lambda c: c.execute("SELECT * FROM dataset WHERE source = ?", (source.key,)).fetchone())
    if known is not None and known["ready"]:
        if known["fingerprint"] == source.fingerprint:
            return Imported(known["id"])
        if _touched(store, known["id"]):
            if source.kind == "folder":
                _add_images(store, known["id"], source)
                return Imported(known["id"])
            return Imported(known["id"], changed=True)
    if known is not None:
        store.write_now(_Remove(known["id"]))
    return Imported(_Import(store, source, progress).run())


class _Import:
    def __init__(self, store: Store, source: Source, progress: bool) -> None:
        self._store, self._source, self._progress = store, source, progress
        self._dataset = 0
        self._categories: dict[int, int] = {}
        self._images: dict[int, int] = {}

    def run(self) -> int:
        source, write = self._source, self._store.write_now
        self._dataset = write(self._begin)
        for category in source.categories():
            row = (self._dataset, category.number, category.name, category.definition)
            self._categories[category.number] = write(_Insert(_CATEGORY, [row]))[0]
        for batch in self._batches(source.images(), "images"):
            rows = [_image_row(self._dataset, one) for one in batch]
            numbers = write(_Insert(_IMAGE, rows))
            self._images |= dict(zip((one.number for one in batch), numbers, strict=True))
        for objects in self._batches(source.objects(), "objects"):
            write(_Insert(_OBJECT, [self._object_row(one) for one in objects]))
        write(self._finish)
        return self._dataset

    def _begin(self, connection: sqlite3.Connection) -> int:
        source = self._source
        row = (source.name, source.kind, source.key, source.fingerprint, source.root, json.dumps(source.info()))
        return _Insert(_DATASET, [(*row, self._store.clock.now())])(connection)[0]

    def _object_row(self, one: Object) -> tuple[Any, ...]:
        height, width = one.mask["size"]
        provenance = None if one.provenance is None else json.dumps(one.provenance)
        return (
            *(self._dataset, one.id, self._images[one.image], self._categories[one.category], height, width),
            *(one.mask["counts"], int(one.crowd), one.score, provenance),
        )

    def _finish(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE image SET objects = (SELECT count(*) FROM object WHERE object.image = image.id AND deleted = 0)"
            " WHERE dataset = ?",
            (self._dataset,),
        )
        connection.execute("UPDATE dataset SET ready = 1 WHERE id = ?", (self._dataset,))

    def _batches(self, values: Iterable[Any], what: str) -> Iterator[list[Any]]:
        # None: no bar where the output is no terminal.
        shown = tqdm(values, desc=f"reading {what}", unit="", disable=None if self._progress else True, leave=False)
        iterator = iter(shown)
        while batch := list(islice(iterator, _BATCH)):
            yield batch


_DATASET: Final = (
    "INSERT INTO dataset (name, kind, source, fingerprint, root, info, created) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_CATEGORY: Final = "INSERT INTO category (dataset, number, name, definition) VALUES (?, ?, ?, ?)"
_IMAGE: Final = "INSERT INTO image (dataset, number, file_name, width, height) VALUES (?, ?, ?, ?, ?)"
_OBJECT: Final = (
    "INSERT INTO object (dataset, id, image, category, height, width, counts, crowd, score, provenance)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True)
class _Insert:
    sql: str
    rows: list[tuple[Any, ...]]

    def __call__(self, connection: sqlite3.Connection) -> list[int]:
        return [int(connection.execute(self.sql, row).lastrowid or 0) for row in self.rows]


@dataclass(frozen=True)
class _Remove:
    dataset: int

    def __call__(self, connection: sqlite3.Connection) -> None:
        for table in ("object", "image", "category"):
            connection.execute(f"DELETE FROM {table} WHERE dataset = ?", (self.dataset,))
        connection.execute("DELETE FROM dataset WHERE id = ?", (self.dataset,))


def _image_row(dataset: int, one: Image) -> tuple[Any, ...]:
    return (dataset, one.number, one.file_name, one.width, one.height)


def _touched(store: Store, dataset: int) -> bool:
    """Return whether people have drawn in a data set, or said how far an image is."""
    sql = (
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM event WHERE dataset = ?1)"
        " OR EXISTS (SELECT 1 FROM image WHERE dataset = ?1 AND state != 'untouched')"
    )
    return store.read_now(lambda c: c.execute(sql, (dataset,)).fetchone()) is not None


def _add_images(store: Store, dataset: int, source: Source) -> None:
    """Add the images of a folder that were not there before."""
    listed = list(source.images())

    def add(connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT file_name, number FROM image WHERE dataset = ?", (dataset,)).fetchall()
        known = {row["file_name"] for row in rows}
        top = max((row["number"] for row in rows), default=0)
        new = [one.file_name for one in listed if one.file_name not in known]
        _Insert(_IMAGE, [(dataset, top + place, name, None, None) for place, name in enumerate(new, start=1)])(
            connection
        )
        connection.execute("UPDATE dataset SET fingerprint = ? WHERE id = ?", (source.fingerprint, dataset))

    store.write_now(add)
