"""Tables in a temporary database, so that memory does not grow with the data set that is read (decision 037)."""

import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from segloop.errors import SegloopError

Key = TypeVar("Key", int, str)
Value = TypeVar("Value")

_BLOCK: Final = 512
_CACHE_KIB: Final = 8192


class NoRoomError(SegloopError):
    """The temporary database failed: no fault of the data, so that no record may be blamed."""


class TemporaryDatabase:
    """An SQLite database without a name, which is gone when it is closed.

    Its pages stay in a cache of 8 MiB, and go to the folder that `SQLITE_TMPDIR` or `TMPDIR` names beyond that. Once a
    statement failed, all others do: without a journal nothing in it can be trusted any more.
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._base.close)
        for setting in (f"cache_size = -{_CACHE_KIB}", "temp_store = FILE", "journal_mode = OFF", "synchronous = OFF"):
            self._base.execute(f"PRAGMA {setting}")
        # One transaction for all: nobody else looks, and nothing is to be kept.
        self._base.execute("BEGIN")
        self._tables = 0
        self._failure: str | None = None

    def new_name(self) -> str:
        """Return a name that no table has."""
        self._tables += 1
        return f"table_{self._tables}"

    def run(self, words: str, values: Sequence[Any] = ()) -> int:
        """Run one statement and return how many rows it changed.

        Raises
        ------
        NoRoomError
            If there is no room for it, as from all other methods.
        """
        with self._guarded():
            return self._base.execute(words, values).rowcount

    def run_many(self, words: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        with self._guarded():
            self._base.executemany(words, rows)

    def first(self, words: str, values: Sequence[Any] = ()) -> Any:
        """Return the first row that a statement finds, or None."""
        with self._guarded():
            return self._base.execute(words, values).fetchone()

    def all(self, words: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows that a statement finds."""
        with self._guarded():
            return self._base.execute(words, values).fetchall()

    def each(self, words: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows that a statement finds; what it reads must not change meanwhile."""
        with self._guarded():
            found = self._base.execute(words, values)
        while True:
            with self._guarded():
                rows = found.fetchmany(_BLOCK)
            if not rows:
                return
            yield from rows

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            if self._failure is None:
                yield
                return
        except sqlite3.DatabaseError as error:
            self._failure = str(error)
        raise NoRoomError(
            f"the temporary database failed ({self._failure}). It needs room in the folder that TMPDIR names (without "
            "it in /var/tmp): name one that has it."
        )


class DiskTable(Generic[Key, Value]):
    """A dictionary on disk: whole numbers or texts to whatever JSON can hold, in the order in which keys arrived.

    What `json` changes comes back changed: tuples as lists, keys of dictionaries as texts. A value that was taken out
    is a copy. Values may be changed, and keys that were passed taken out, while they are gone through.

    Parameters
    ----------
    database
        Where the table is made; None: in a database of its own.
    """

    def __init__(self, database: TemporaryDatabase | None = None) -> None:
        self._base = database if database is not None else TemporaryDatabase()
        self.name = self._base.new_name()
        self._base.run(f"CREATE TABLE {self.name} (place INTEGER PRIMARY KEY, key UNIQUE NOT NULL, value TEXT)")
        self._put = (
            f"INSERT INTO {self.name} (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        )
        self._get = f"SELECT value FROM {self.name} WHERE key = ?"
        self._has = f"SELECT 1 FROM {self.name} WHERE key = ?"

    def __setitem__(self, key: Key, value: Value) -> None:
        self._base.run(self._put, (_stored(key), json.dumps(value)))

    def __getitem__(self, key: Key) -> Value:
        row = self._base.first(self._get, (_stored(key),))
        if row is None:
            raise KeyError(key)
        value: Value = _value(row[0])
        return value

    def get(self, key: Key) -> Value | None:
        """Return the value of a key, or None."""
        row = self._base.first(self._get, (_stored(key),))
        return _value(row[0]) if row is not None else None

    def __delitem__(self, key: Key) -> None:
        if not self._base.run(f"DELETE FROM {self.name} WHERE key = ?", (_stored(key),)):
            raise KeyError(key)

    def __contains__(self, key: Key) -> bool:
        return self._base.first(self._has, (_stored(key),)) is not None

    def __len__(self) -> int:
        return int(self._base.first(f"SELECT count(*) FROM {self.name}")[0])

    def __iter__(self) -> Iterator[Key]:
        for key, _ in self._pairs():
            yield key

    def items(self) -> Iterator[tuple[Key, Value]]:
        """Yield keys with their values, in the order in which keys arrived."""
        for key, text in self._pairs():
            yield key, _value(text)

    def values(self) -> Iterator[Value]:
        """Yield the values, in the order in which keys arrived."""
        for _, text in self._pairs():
            yield _value(text)

    def sorted_items(self) -> Iterator[tuple[Key, Value]]:
        """Yield keys with their values, by rising keys; the table must not change meanwhile."""
        for key, text in self._base.each(f"SELECT key, value FROM {self.name} ORDER BY key"):
            yield _key(key), _value(text)

    def _pairs(self) -> Iterator[tuple[Key, str]]:
        words = f"SELECT place, key, value FROM {self.name} WHERE place > ? ORDER BY place LIMIT {_BLOCK}"
        last = 0
        while rows := self._base.all(words, (last,)):
            yield from ((_key(key), text) for _, key, text in rows)
            last = rows[-1][0]


def _stored(key: int | str) -> int | bytes:
    # File names may hold halves of characters, which SQLite takes for no text.
    return key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key


def _key(stored: int | bytes) -> Any:
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def _value(text: str) -> Any:
    return json.loads(text)


class DiskNumbers:
    """Numbers on disk, each of a group, of which quantiles are asked when all have been added."""

    def __init__(self) -> None:
        self._base = TemporaryDatabase()
        self._base.run("CREATE TABLE number (kind INTEGER, value REAL)")
        self._waiting: list[tuple[int, float]] = []
        self._written = 0

    def add(self, kind: int, value: float) -> None:
        """Add a finite number to a group."""
        self._waiting.append((kind, value))
        if len(self._waiting) >= _BLOCK:
            self._write()

    def __len__(self) -> int:
        return self._written + len(self._waiting)

    def quantiles(self, shares: Sequence[float], kind: int | None = None) -> list[float]:
        """Return quantiles of a group, or of all; between two numbers linearly, as numpy has them. None of no number.

        Parameters
        ----------
        shares
            Between 0 and 1.
        """
        self._write()
        of_kind, values = ("", ()) if kind is None else (" WHERE kind = ?", (kind,))
        self._base.run(f"CREATE INDEX IF NOT EXISTS {'by_value' if kind is None else 'by_kind'} "
                       f"ON number ({'value' if kind is None else 'kind, value'})")  # fmt: skip
        count = int(self._base.first(f"SELECT count(*) FROM number{of_kind}", values)[0])
        words = f"SELECT value FROM number{of_kind} ORDER BY value LIMIT 2 OFFSET ?"
        found = []
        for share in shares if count else ():
            below, rest = divmod(share * (count - 1), 1)
            pair = [row[0] for row in self._base.all(words, (*values, int(below)))]
            found.append(pair[0] + rest * (pair[-1] - pair[0]))
        return found

    def _write(self) -> None:
        self._base.run_many("INSERT INTO number VALUES (?, ?)", self._waiting)
        self._written += len(self._waiting)
        self._waiting = []
