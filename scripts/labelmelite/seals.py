"""Checksums of the events in the log: SQLite keeps none, so that a flipped bit could change an answer unseen.

The table is made where it is missing and filled for events that have no checksum yet: a database of an older
LabelMeLite is taken as it is found, and one that an older LabelMeLite goes on with loses nothing.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from labelmelite import schema
from segloop.errors import SegloopError

_COLUMNS: Final = (
    "event.seq, annotator, client, client_no, kind, dataset, image, object, task, item, payload, undoes, redoes,"
    " seconds, tool, time"
)


def digest(row: Any) -> bytes:
    """Return the SHA-256 of all columns of an event."""
    return hashlib.sha256(json.dumps(list(row)).encode()).digest()


def add(connection: sqlite3.Connection, seq: int) -> None:
    """Write the checksum of an event that was just appended; it belongs to the same transaction."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM event WHERE seq = ?", (seq,)).fetchone()
    connection.execute("INSERT INTO event_seal VALUES (?, ?)", (seq, digest(row)))


def complete(connection: sqlite3.Connection) -> None:
    """Make the table where it is missing, and write the checksums that are missing."""
    connection.execute(schema.SEALS)
    missing = "SELECT seq FROM event EXCEPT SELECT seq FROM event_seal"
    connection.execute("BEGIN IMMEDIATE")
    for (seq,) in connection.execute(missing).fetchall():
        add(connection, seq)
    connection.execute("COMMIT")


def wrong(connection: sqlite3.Connection) -> Iterator[int]:
    """Yield the numbers of events that are not as they were written, and of those that are gone."""
    sealed = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'event_seal'").fetchone()
    if sealed is None:
        return
    rows = connection.execute(
        f"SELECT event_seal.seq, event_seal.sha256, {_COLUMNS} FROM event_seal LEFT JOIN event USING (seq)"
        " ORDER BY event_seal.seq"
    )
    for seq, sha256, *columns in rows:
        if digest(columns) != sha256:
            yield int(seq)


def check(connection: sqlite3.Connection, path: Path, *, whole: bool = False) -> None:
    """Refuse a database whose pages do not fit together, or whose events are not those that were written.

    Parameters
    ----------
    whole
        Compare the indices with their tables, too.

    Raises
    ------
    SegloopError
        The message names the file, and the first events that are damaged.
    """
    (state,) = connection.execute(f"PRAGMA {'integrity_check' if whole else 'quick_check'}(1)").fetchone()
    if state != "ok":
        raise SegloopError(f"{path} is damaged ({state}). Restore it from a copy.")
    damaged = [*wrong(connection)]
    if damaged:
        numbers = ", ".join(map(str, damaged[:10])) + (", ..." if len(damaged) > 10 else "")
        raise SegloopError(
            f"{path} is damaged: {len(damaged)} events are not those that were written (number {numbers}). "
            "Restore it from a copy."
        )
