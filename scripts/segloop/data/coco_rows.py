"""Where the annotations of a COCO file lie, and what they belong to: a table on disk."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from segloop.data.coco_tables import ImageTable, whole_number
from segloop.data.on_disk import TemporaryDatabase

_BLOCK: Final = 4096


class Row(NamedTuple):
    """One annotation: its place among all, where it lies in the file, its id and its owners; None: unusable ones."""

    place: int
    start: int
    length: int
    number: int | None
    image: int | None
    category: int | None


class Rows:
    """The annotations of one file."""

    def __init__(self, database: TemporaryDatabase) -> None:
        self._base = database
        self._row, self._unusable = database.new_name(), database.new_name()
        self._base.run(
            f"CREATE TABLE {self._row} (place INTEGER PRIMARY KEY, start INTEGER, length INTEGER, number INTEGER, "
            "image INTEGER, category INTEGER)"
        )
        self._base.run(f"CREATE TABLE {self._unusable} (place INTEGER PRIMARY KEY)")
        self._waiting: list[Row] = []
        self._count = 0

    def add(self, value: Any, start: int, length: int) -> None:
        """Add the next annotation."""
        known = value if isinstance(value, dict) else {}
        numbers = (_number(known.get(key)) for key in ("id", "image_id", "category_id"))
        self._waiting.append(Row(self._count, start, length, *numbers))
        self._count += 1
        if len(self._waiting) >= _BLOCK:
            self._write()

    def complete(self) -> None:
        """Bring the annotations of each image together; all have been added."""
        self._write()
        self._base.run(f"CREATE INDEX {self._row}_by_image ON {self._row} (image)")

    def _write(self) -> None:
        self._base.run_many(f"INSERT INTO {self._row} VALUES (?, ?, ?, ?, ?, ?)", self._waiting)
        self._waiting = []

    def repeated(self) -> set[int]:
        """Return the ids that several annotations have."""
        self._write()
        words = f"SELECT number FROM {self._row} WHERE number IS NOT NULL GROUP BY number HAVING count(*) > 1"
        return {number for (number,) in self._base.each(words)}

    def take_unusable(self, images: ImageTable, categories: Sequence[int]) -> Iterator[Row]:
        """Yield the annotations without image or category, or with a repeated id, and take them from their images.

        Those of images that are not wanted are good. Of annotations with one id the first that is usable keeps it.
        """
        category = self._base.new_name()
        self._base.run(f"CREATE TABLE {category} (number INTEGER PRIMARY KEY)")
        self._base.run_many(f"INSERT INTO {category} VALUES (?)", [(number,) for number in categories])
        # A plus keeps SQLite from turning the type of each key, which it would do by going through all of them.
        known = " AND ".join(
            f"NOT EXISTS (SELECT 1 FROM {name} WHERE key = +image)"
            for name in (images.usable.name, images.unchosen.name)
        )
        self._base.run(
            f"INSERT INTO {self._unusable} SELECT place FROM {self._row} WHERE image IS NULL OR category IS NULL "
            f"OR category NOT IN (SELECT number FROM {category}) OR ({known})"
        )
        self._base.run(
            f"INSERT INTO {self._unusable} SELECT place FROM ("
            f"SELECT place, row_number() OVER (PARTITION BY number ORDER BY place) AS turn FROM {self._row} "
            f"WHERE number IS NOT NULL AND place NOT IN (SELECT place FROM {self._unusable})) WHERE turn > 1"
        )
        words = f"SELECT {self._row}.* FROM {self._row} JOIN {self._unusable} USING (place) ORDER BY place"
        yield from map(Row._make, self._base.each(words))

    def of_image(self, image: int) -> Iterator[Row]:
        """Yield the annotations of an image, in the order of the file."""
        words = (
            f"SELECT * FROM {self._row} WHERE image = ? AND place NOT IN (SELECT place FROM {self._unusable}) "
            "ORDER BY place"
        )
        yield from map(Row._make, self._base.all(words, (image,)))


def _number(value: Any) -> int | None:
    if type(value) is int and -(1 << 63) < value < 1 << 63:
        return value
    return whole_number(value)
