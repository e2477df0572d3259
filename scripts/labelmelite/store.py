"""The database: one file of SQLite, one writer, many commits in one.

Requests hand functions to the writer's thread. It runs all that wait in one transaction, a savepoint each, and answers
them after the commit has reached the disk. So what was acknowledged is saved, whatever kills the server, and the rate
does not hang on the disk's time for one commit. On a local disk the database is in WAL mode and readers have their own
connections; on NFS, Lustre and the like, where WAL loses data, it has a rollback journal and a single connection.
"""

import asyncio
import contextlib
import json
import os
import queue
import socket
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from labelmelite import schema, seals
from labelmelite.clock import Clock
from labelmelite.errors import ApiError
from segloop.errors import SegloopError
from segloop.files import atomic_file, lock

FILE: Final = "labelmelite.sqlite"
Work = Callable[[sqlite3.Connection], Any]

_NETWORK: Final = ("nfs", "lustre", "gpfs", "beegfs", "cifs", "smb", "fuse", "afs", "ceph", "gluster", "9p", "panfs")
_GROUP: Final = 256


def is_network(path: Path, mounts: str | None = None) -> bool:
    """Return whether a path lies on a file system that other machines share, judged by the table of mounts."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
    longest, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if path.resolve().is_relative_to(point) and len(point) >= len(longest):
            longest, kind = point, fields[2]
    return kind.startswith(_NETWORK)


@dataclass
class _Job:
    work: Work
    done: "Future[Any]"
    reads: bool = False
    alone: bool = False


class Store:
    """The open database.

    Parameters
    ----------
    folder
        Where the database lies; made when missing.
    network
        Whether the folder is on a network file system; found out when None.

    Raises
    ------
    SegloopError
        If another server has the folder, if the file is no database of LabelMeLite, or of a newer one.
    """

    def __init__(self, folder: Path, network: bool | None = None, clock: Clock | None = None) -> None:
        # It holds who may do what and what people said: for its owner alone, unless they open it to others.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / FILE
        self.network = is_network(folder) if network is None else network
        self._lock = _claim(folder)
        self.path.touch(0o600)
        try:
            self._writer = self._open()
        except BaseException:
            self._lock.close()
            raise
        self.clock = clock or Clock(floor=_last_time(self._writer))
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="labelmelite-writer", daemon=True)
        self._thread.start()

    # --- what requests call

    async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `work` in the writer's thread and return its result once it is saved; its exception undoes it alone."""
        return await asyncio.wrap_future(self._submit(work))

    async def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `work`, which only reads."""
        if self.network:
            return await asyncio.wrap_future(self._submit(work, reads=True))
        return await asyncio.to_thread(self._read, work)

    def write_now(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do as `write` does, outside of an event loop."""
        return self._submit(work).result()

    def read_now(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do as `read` does, outside of an event loop."""
        return self._submit(work, reads=True).result() if self.network else self._read(work)

    def copy(self, folder: Path) -> Path:
        """Write a whole copy of the database into another folder, under its own name.

        Work goes on meanwhile; on a network file system, where there is one connection, it waits.

        Raises
        ------
        SegloopError
            If it cannot be written, or the folder is the database's own; the copy from before stays.
        """
        path = folder / FILE
        if path.resolve() == self.path.resolve():
            raise SegloopError(f"{folder} holds the database itself. Name another folder with --copies.")
        try:
            with atomic_file(path) as temporary:
                temporary.unlink(missing_ok=True)
                self._copy_to(temporary)
                temporary.chmod(0o600)
        except (OSError, sqlite3.Error) as error:
            raise SegloopError(f"no copy of {self.path} could be written into {folder} ({error})") from None
        return path

    def _copy_to(self, path: Path) -> None:
        def copy(connection: sqlite3.Connection) -> None:
            connection.execute("VACUUM INTO ?", (str(path),))

        if self.network:
            # The writer's lock keeps every other connection out.
            self._submit(copy, alone=True).result()
            return
        source = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            copy(source)
        finally:
            source.close()

    def close(self) -> None:
        """Finish what waits and close the database."""
        self._jobs.put(None)
        self._thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
        self._writer.close()
        self._lock.close()

    # --- the threads

    def _submit(self, work: Work, reads: bool = False, alone: bool = False) -> "Future[Any]":
        done: Future[Any] = Future()
        self._jobs.put(_Job(work, done, reads, alone))
        return done

    def _read(self, work: Work) -> Any:
        connection = self._reader()
        try:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")
        finally:
            self._idle.put(connection)

    def _reader(self) -> sqlite3.Connection:
        """Return a connection for reading; they are used again, because threads come and go."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA query_only = 1")
            return connection

    def _run(self) -> None:
        ended = False
        while not ended:
            first = self._jobs.get()
            batch = [first]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _GROUP:
                    batch.append(self._jobs.get_nowait())
            ended = None in batch
            self._group([job for job in batch if job is not None])

    def _group(self, jobs: list[_Job]) -> None:
        # A request that was given up meanwhile is left out; from here on it can no longer be.
        jobs = [job for job in jobs if job.done.set_running_or_notify_cancel()]
        together = [job for job in jobs if not job.alone]
        if together:
            self._together(together)
        for job in jobs:
            if job.alone:
                self._alone(job)

    def _alone(self, job: _Job) -> None:
        """Run what no transaction may be around."""
        try:
            job.done.set_result(job.work(self._writer))
        except Exception as error:
            job.done.set_exception(error)

    def _together(self, jobs: list[_Job]) -> None:
        results: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for job in jobs:
                results.append((job, *self._one(job)))
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            for job in jobs:
                job.done.set_exception(_storage(error))
            return
        for job, result, failure in results:
            if failure is None:
                job.done.set_result(result)
            else:
                job.done.set_exception(failure)

    def _one(self, job: _Job) -> tuple[Any, BaseException | None]:
        self._writer.execute("SAVEPOINT one")
        try:
            result = job.work(self._writer)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not self._writer.in_transaction:
                raise  # SQLite has undone the whole group already, as when the disk is full
            self._writer.execute("ROLLBACK TO one")
            self._writer.execute("RELEASE one")
            return None, error
        self._writer.execute("RELEASE one")
        return result, None

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")

    # --- opening

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        connection.row_factory = sqlite3.Row
        try:
            if self.network:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA journal_mode = {'DELETE' if self.network else 'WAL'}")
            # FULL: an acknowledged answer survives a power cut too.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = 1")
            _prepare(connection, self.path)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise SegloopError(
                f"{self.path} cannot be opened as a database ({error}). Restore it from a copy."
            ) from None
        except BaseException:
            connection.close()
            raise
        return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if empty:
        connection.executescript(
            f"BEGIN; {schema.SCHEMA} PRAGMA application_id = {schema.APPLICATION};"
            f"PRAGMA user_version = {schema.VERSION}; COMMIT;"
        )
    elif application != schema.APPLICATION:
        raise SegloopError(f"{path} is a database of another program. Choose another folder with --data.")
    elif version != schema.VERSION:
        raise SegloopError(
            f"{path} has tables of version {version}; this LabelMeLite knows version {schema.VERSION}. "
            "Open it with the segloop that wrote it, or choose another folder with --data."
        )
    else:
        seals.check(connection, path)
    seals.complete(connection)


def _last_time(connection: sqlite3.Connection) -> float:
    from datetime import datetime

    row = connection.execute("SELECT time FROM event ORDER BY seq DESC LIMIT 1").fetchone()
    return 0.0 if row is None else datetime.fromisoformat(row[0]).timestamp()


def _claim(folder: Path) -> Any:
    file = (folder / "server.lock").open("a+", encoding="utf-8")
    if lock(file, exclusive=True, wait=False) is False:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise SegloopError(
            f"{folder} is in use by {holder}. End that server first, or choose another folder with --data."
        )
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _storage(error: sqlite3.Error) -> ApiError:
    if "full" in str(error):
        return ApiError("storage", "The disk of the server is full. Nothing was saved; free some space and try again.")
    return ApiError("storage", f"The server could not save ({error}). Nothing was saved; try again.")


def setting(connection: sqlite3.Connection, key: str, default: Any = None) -> Any:
    """Return a value that was kept with `keep`."""
    row = connection.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
    return default if row is None else json.loads(row[0])


def keep(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Keep a value under a name."""
    connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (key, json.dumps(value)))
