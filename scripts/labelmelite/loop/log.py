"""The loop's events in the log of the server's database."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from labelmelite.clock import iso
from labelmelite.events import SERVER, Event, append, repeated
from labelmelite.loop.book import KINDS, LogEvent


def read(connection: sqlite3.Connection) -> Iterator[LogEvent]:
    """Yield all events of the loop in the order of their numbers."""
    marks = ", ".join("?" * len(KINDS))
    rows = connection.execute(
        "SELECT seq, annotator, kind, task, item, payload, seconds, time FROM event "
        f"WHERE kind IN ({marks}) ORDER BY seq",
        KINDS,
    )
    for row in rows:
        yield LogEvent(
            row["seq"],
            row["annotator"],
            row["kind"],
            row["task"],
            row["item"],
            json.loads(row["payload"]),
            row["seconds"],
            row["time"],
        )


def write(connection: sqlite3.Connection, annotator: str, now: float, event: Event) -> LogEvent:
    """Append an event and return it as it will be read."""
    seq = append(connection, annotator, now, event)
    # What was written is what counts: through JSON, as after a restart.
    payload = json.loads(json.dumps(event.payload))
    return LogEvent(seq, annotator, event.kind, event.task, event.item, payload, event.seconds, iso(now))


def holds(connection: sqlite3.Connection, event: LogEvent) -> bool:
    """Return whether the log holds an event under its number."""
    row = connection.execute(
        "SELECT annotator, kind, task, item, time FROM event WHERE seq = ?", (event.seq,)
    ).fetchone()
    return row is not None and tuple(row) == (event.annotator, event.kind, event.task, event.item, event.time)


def by_server(
    connection: sqlite3.Connection, annotator: str, now: float, kind: str, task: str | None, payload: dict[str, Any]
) -> LogEvent:
    """Append an event of the server's own."""
    row = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM event").fetchone()
    return write(connection, annotator, now, Event(SERVER, int(row[0]), kind, payload, task=task))


__all__ = ["by_server", "holds", "read", "repeated", "write"]
