import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from labelmelite import events, schema
from labelmelite.app import create_app
from labelmelite.clock import Clock, iso
from labelmelite.errors import ApiError
from labelmelite.events import Event
from labelmelite.settings import Settings, read_settings
from labelmelite.store import FILE, Store, is_network, keep, setting
from segloop.errors import SegloopError


def put(store: Store, number: int, client: str = "c") -> int:
    event = Event(client, number, "answer", {"reply": "yes"}, task="t", item="i")
    seq: int = store.write_now(lambda c: events.append(c, "a", store.clock.now(), event))
    return seq


def count(store: Store) -> int:
    found: int = store.read_now(lambda c: c.execute("SELECT count(*) FROM event").fetchone()[0])
    return found


@pytest.mark.parametrize(("network", "mode"), [(False, "wal"), (True, "delete")])
def test_what_was_written_is_there_after_a_restart(tmp_path: Path, network: bool, mode: str) -> None:
    store = Store(tmp_path, network=network)
    assert store.write_now(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == mode
    assert [put(store, n) for n in range(5)] == [1, 2, 3, 4, 5]
    store.write_now(lambda c: keep(c, "x", {"y": 1}))
    store.close()
    again = Store(tmp_path, network=network)
    assert count(again) == 5
    assert again.read_now(lambda c: setting(c, "x")) == {"y": 1}
    assert again.read_now(lambda c: setting(c, "z", 3)) == 3
    again.close()


def test_a_failure_undoes_itself_alone(store: Store) -> None:
    async def all_at_once() -> list[object]:
        def bad(connection: sqlite3.Connection) -> None:
            events.append(connection, "a", 0.0, Event("bad", 1, "answer", {}))
            raise ApiError("conflict", "no")

        def good(number: int) -> int:
            return number

        jobs = [
            store.write(lambda c, n=n: events.append(c, "a", 0.0, Event("c", n, "answer", {})) if n % 3 else bad(c))
            for n in range(30)
        ]
        return await asyncio.gather(*jobs, return_exceptions=True)

    results = asyncio.run(all_at_once())
    assert sum(isinstance(one, ApiError) for one in results) == 10
    assert count(store) == 20
    seqs = [one for one in results if isinstance(one, int)]
    assert len(set(seqs)) == 20


def test_a_request_that_is_given_up_does_not_end_the_writer(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(connection: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(20)

    async def give_up() -> None:
        slow = asyncio.create_task(store.write(wait))
        await asyncio.to_thread(begun.wait, 20)
        waiting = [asyncio.create_task(store.write(lambda c, n=n: put_into(c, n))) for n in range(5)]
        await asyncio.sleep(0.05)
        for one in (slow, *waiting[:3]):
            one.cancel()
        results = await asyncio.gather(slow, *waiting[:3], return_exceptions=True)
        await asyncio.sleep(0)
        go_on.set()
        results += await asyncio.gather(*waiting[3:])
        assert [isinstance(one, asyncio.CancelledError) for one in results] == [True] * 4 + [False] * 2

    def put_into(connection: sqlite3.Connection, number: int) -> int:
        return events.append(connection, "a", 0.0, Event("c", number, "answer", {}))

    asyncio.run(give_up())
    assert put(store, 99) == count(store) == 3


def test_mistakes_in_sql_are_not_the_disk(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError):
        store.write_now(lambda c: c.execute("SELECT * FROM nowhere"))
    assert put(store, 1) == 1


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError):
        store.read_now(lambda c: c.execute("DELETE FROM name"))


@pytest.mark.parametrize("sql", ["UPDATE event SET kind = 'x'", "DELETE FROM event"])
def test_events_are_never_changed_or_removed(store: Store, sql: str) -> None:
    put(store, 1)
    with pytest.raises(sqlite3.IntegrityError, match="events are never"):
        store.write_now(lambda c: c.execute(sql))


def test_a_second_server_is_told_who_has_the_folder(store: Store) -> None:
    with pytest.raises(SegloopError, match=f"in use by process {os.getpid()} on "):
        Store(store.folder)


def test_another_programs_file_and_a_newer_version(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    with pytest.raises(SegloopError, match="database of another program"):
        Store(tmp_path)
    (tmp_path / "b").mkdir()
    Store(tmp_path / "b").close()
    newer = sqlite3.connect(tmp_path / "b" / FILE)
    newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    newer.commit()
    newer.close()
    with pytest.raises(SegloopError, match=f"tables of version {schema.VERSION + 1}; this LabelMeLite knows"):
        Store(tmp_path / "b")
    # What was refused is left as it is, and free for others.
    assert sqlite3.connect(tmp_path / "b" / FILE).execute("PRAGMA user_version").fetchone()[0] == schema.VERSION + 1


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"SQLite format 3\0" + b"nonsense" * 1000)
    with pytest.raises(SegloopError, match="Restore it from a copy"):
        Store(tmp_path)


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmp /home/me/scratch tmpfs rw 0 0
fs /lus lustre rw 0 0
x /mnt/with\\040space fuse.sshfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/data", False),
        ("/home/me", True),
        ("/home/me/scratch/x", False),
        ("/homework", False),
        ("/lus/a", True),
        ("/mnt/with space/y", True),
    ],
)
def test_file_systems_that_machines_share(path: str, network: bool) -> None:
    assert is_network(Path(path), MOUNTS) is network


class Wall:
    def __init__(self) -> None:
        self.wall, self.mono = 1_000_000.0, 5.0


def test_the_clock_does_not_jump_with_the_machines() -> None:
    time_now = Wall()
    clock = Clock(0.0, lambda: time_now.wall, lambda: time_now.mono)
    assert clock.now() == 1_000_000.0
    time_now.wall -= 86_400
    time_now.mono += 2
    assert clock.now() == 1_000_002.0
    time_now.wall += 10 * 86_400
    assert clock.now() == 1_000_002.0
    # A restart after the machine's clock was set back goes on from the last time that was written.
    assert Clock(2_000_000.0, lambda: time_now.wall, lambda: time_now.mono).now() == 2_000_000.0
    assert iso(0) == "1970-01-01T00:00:00.000Z"


def test_a_restart_goes_on_from_the_last_time_that_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    future = time.time() + 5 * 86_400
    store.write_now(lambda c: events.append(c, "a", future, Event("c", 1, "answer", {})))
    store.close()
    again = Store(tmp_path)
    assert again.clock.now() >= future - 0.01
    again.close()


CHILD = """
import sys
from pathlib import Path
from labelmelite import events
from labelmelite.events import Event
from labelmelite.store import Store

store = Store(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    event = Event("c", number, "answer", {"filler": "x" * 2000})
    seq = store.write_now(lambda c: events.append(c, "a", store.clock.now(), event))
    print(number, seq, flush=True)
"""


@pytest.mark.parametrize("network", [False, True])
def test_killed_in_mid_write_nothing_acknowledged_is_lost(tmp_path: Path, network: bool) -> None:
    code = CHILD.replace("Path(sys.argv[1])", f"Path(sys.argv[1]), network={network}")
    last = 0
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.3)
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.read().splitlines()
        acknowledged = [int(line.split()[1]) for line in lines if len(line.split()) == 2]
        if acknowledged:
            last = max(last, acknowledged[-1])
        store = Store(tmp_path, network=network)
        found = count(store)
        assert store.read_now(lambda c: c.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"
        store.close()
        assert last > 0 and found >= last
        # The numbers of the second run were given by the first already.
        code = code.replace('Event("c"', 'Event("d"')


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 2 MiB, or a skip where it cannot be made."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        if os.environ.get("SEGLOOP_REQUIRE_ALL"):
            pytest.fail(f"no small file system could be mounted: {made.stderr}")
        pytest.skip(f"no small file system could be mounted: {made.stderr.strip()}")
    return folder


@pytest.mark.parametrize("network", [False, True])
def test_a_full_disk_loses_nothing_that_was_acknowledged(small_disk: Path, network: bool) -> None:
    try:
        store = Store(small_disk / "data", network=network)
        fill = small_disk / "fill"
        done, refused = 0, None
        for number in range(1, 2000):
            event = Event("c", number, "answer", {"filler": "x" * 4000})
            try:
                store.write_now(lambda c, event=event: events.append(c, "a", store.clock.now(), event))
                done += 1
            except ApiError as error:
                refused = error
                break
            if number == 20:
                _fill(fill)
        assert refused is not None and refused.code == "storage" and refused.status == 507
        assert "full" in refused.message and "try again" in refused.message
        assert count(store) == done >= 20
        # Once there is space again, the same server goes on.
        fill.unlink()
        put(store, 1, "later")
        assert count(store) == done + 1
        store.close()
        again = Store(small_disk / "data", network=network)
        assert count(again) == done + 1
        again.close()
    finally:
        subprocess.run(["umount", str(small_disk)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_copies_never_replace_the_database(store: Store, tmp_path: Path) -> None:
    put(store, 1)
    (tmp_path / "link").symlink_to(store.folder)
    for folder in (store.folder, tmp_path / "link", store.folder / ".." / store.folder.name):
        with pytest.raises(SegloopError, match="Name another folder with --copies"):
            store.copy(folder)
        with pytest.raises(SegloopError, match="Name another folder with --copies"):
            read_settings(None, data=store.folder, copies=folder)
    put(store, 2)
    assert count(store) == 2


@pytest.mark.parametrize("network", [False, True])
def test_copies_are_whole_while_work_goes_on(tmp_path: Path, network: bool) -> None:
    store = Store(tmp_path / "data", network=network)
    put(store, 1)
    path = store.copy(tmp_path / "copies")
    for number in range(2, 30):
        put(store, number)
    assert path.stat().st_mode & 0o077 == 0
    again = Store(tmp_path / "copies")
    assert count(again) == 1
    again.close()
    store.copy(tmp_path / "copies")
    assert sorted(one.name for one in (tmp_path / "copies").iterdir() if one.name != "server.lock") == [FILE]
    again = Store(tmp_path / "copies")
    assert count(again) == 29
    again.close()
    (tmp_path / "file").touch()
    with pytest.raises(SegloopError, match="no copy of"):
        store.copy(tmp_path / "file")
    put(store, 30)
    store.close()


def test_a_server_copies_its_database_while_it_runs_and_at_its_end(store: Store, tmp_path: Path) -> None:
    settings = Settings(data=store.folder, copies=tmp_path / "copies", copy_minutes=0.002, tokens=False)
    with TestClient(create_app(settings, store), base_url="http://127.0.0.1") as client:
        deadline = time.monotonic() + 20
        while not (tmp_path / "copies" / FILE).exists():
            assert time.monotonic() < deadline
            client.get("/api/session")
        put(store, 1)
    with sqlite3.connect(tmp_path / "copies" / FILE) as copied:
        assert copied.execute("SELECT count(*) FROM event").fetchone()[0] == 1
    copied.close()
