import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmelite import seals
from labelmelite.events import Event, append
from labelmelite.store import FILE, Store
from segloop.errors import SegloopError


def add(store: Store, number: int) -> int:
    event = Event("page", number, "answer", {"reply": "yes"}, seconds=2, task="t", item="i")
    return int(store.write_now(lambda connection: append(connection, "somebody", time.time(), event)))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    store = Store(tmp_path)
    for number in range(5):
        add(store, number)
    store.close()
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    connection.execute("DROP TRIGGER event_stays")
    connection.execute("DROP TRIGGER event_kept")
    yield connection
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        'UPDATE event SET payload = \'{"reply":"no"}\' WHERE seq = 3',
        "UPDATE event SET seconds = 3 WHERE seq = 3",
        "UPDATE event SET annotator = 'other' WHERE seq = 3",
        "UPDATE event SET image = 0 WHERE seq = 3",
        "DELETE FROM event WHERE seq = 3",
        "UPDATE event_seal SET sha256 = zeroblob(32) WHERE seq = 3",
    ],
)
def test_a_changed_event_is_refused(database: sqlite3.Connection, tmp_path: Path, damage: str) -> None:
    assert list(seals.wrong(database)) == []
    database.execute(damage)
    assert list(seals.wrong(database)) == [3]
    with pytest.raises(SegloopError, match=rf"{FILE} is damaged: 1 events .* \(number 3\)\. Restore it from a copy"):
        Store(tmp_path)


def test_a_database_of_an_older_version_is_taken_as_it_is(database: sqlite3.Connection, tmp_path: Path) -> None:
    database.execute("DROP TABLE event_seal")
    assert list(seals.wrong(database)) == []
    store = Store(tmp_path)
    assert add(store, 5) == 6
    store.close()
    assert database.execute("SELECT count(*) FROM event_seal").fetchone() == (6,)
    # An older server that goes on with it writes events alone.
    database.execute("DELETE FROM event_seal WHERE seq = 6")
    Store(tmp_path).close()
    assert database.execute("SELECT count(*) FROM event_seal").fetchone() == (6,)


def test_pages_that_do_not_fit_together_are_refused(database: sqlite3.Connection, tmp_path: Path) -> None:
    database.close()
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    for place in range(4096, len(content), 4096):
        content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(SegloopError, match=rf"{FILE} .*Restore it from a copy"):
        Store(tmp_path)


def test_an_event_and_its_checksum_come_together(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(connection: sqlite3.Connection) -> None:
        append(connection, "somebody", time.time(), Event("page", 1, "answer", {}))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.write_now(fails)
    counts = store.read_now(
        lambda c: [c.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("event", "event_seal")]
    )
    store.close()
    assert counts == [0, 0]
