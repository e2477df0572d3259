"""Faults of the labelling server: it dies while answers are acknowledged, its disk fills, its database is damaged."""

import asyncio
import importlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from labelmelite.errors import ApiError
from labelmelite.events import Event, append
from labelmelite.store import FILE, Store
from segloop.errors import SegloopError

from ..loops import REPOSITORY
from .harness import Outcome, cannot_mount, small_disk

WRITER: Final = r"""
import json, os, sys, threading, time
from pathlib import Path
from labelmelite.events import Event, append, repeated
from labelmelite.store import Store

store = Store(Path(sys.argv[1]), network=sys.argv[2] == "True")

def work(annotator, first):
    for number in range(first, first + 100_000):
        event = Event("page", number, "answer", {"reply": "yes", "number": number}, task="t", item=str(number))
        # What was saved and not acknowledged before the kill is sent again, and gets the number that it got.
        again = lambda connection: repeated(connection, annotator, "page", number)
        seq = store.write_now(lambda c: again(c) or append(c, annotator, time.time(), event))
        os.write(1, json.dumps([annotator, number, seq]).encode() + b"\n")

for name in ("a", "b", "c"):
    threading.Thread(target=work, args=(name, int(sys.argv[3])), daemon=True).start()
threading.Event().wait()
"""
"""Three annotators who answer as fast as they are acknowledged; an acknowledgement is a line."""


def killed_in_a_commit(seed: int, folder: Path) -> Outcome:
    """Kill the process that saves answers, several times, and look for each that it acknowledged."""
    rng = random.Random(seed)
    network = rng.random() < 0.5
    acknowledged: dict[tuple[str, int], int] = {}
    for _ in range(3):
        first = max((number for _, number in acknowledged), default=0) + 1
        acknowledged |= _until_killed(folder, network, first, rng.uniform(0.0, 0.4))
    return _account("kill in a commit", seed, folder, acknowledged)


def _until_killed(folder: Path, network: bool, first: int, seconds: float) -> dict[tuple[str, int], int]:
    command = [sys.executable, "-c", WRITER, str(folder), str(network), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment()) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    # What the kill cut off was not acknowledged.
    heard = [json.loads(line) for line in lines if line.endswith("]\n")]
    return {(annotator, number): seq for annotator, number, seq in heard}


def _environment() -> dict[str, str]:
    import labelmelite

    return {**os.environ, "PYTHONPATH": str(Path(labelmelite.__file__).parents[1])}


def _account(fault: str, seed: int, folder: Path, acknowledged: Mapping[tuple[str, int], int]) -> Outcome:
    store = Store(folder)
    rows = store.read_now(lambda c: [tuple(row) for row in c.execute("SELECT annotator, client_no, seq FROM event")])
    store.close()
    saved = {(annotator, number): seq for annotator, number, seq in rows}
    lost = sum(saved.get(key) != seq for key, seq in acknowledged.items())
    doubled = [] if len(saved) == len(rows) else ["an answer stands twice"]
    return Outcome(
        fault, "labelmelite", seed, bool(acknowledged), answers=len(acknowledged), lost=lost, differing=tuple(doubled)
    )


def damaged_database(seed: int, folder: Path) -> Outcome:
    """Flip a bit in the database: it is refused, or not a single answer differs."""
    rng = random.Random(seed)
    store = Store(folder)
    for number in range(200):
        event = Event("page", number, "answer", {"reply": rng.choice(["yes", "no"]), "why": "x" * rng.randrange(40)})
        store.write_now(lambda connection, event=event: append(connection, "a", time.time(), event))
    wanted = store.read_now(_events)
    copy = store.copy(folder / "copy")
    store.close()
    path = folder / FILE
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    message, believed = "", []
    try:
        again = Store(folder)
        believed = [] if again.read_now(_events) == wanted else ["events of the database"]
        again.close()
    except SegloopError as error:
        message = str(error)
    unsaid = [] if not message or ("copy" in message and FILE in message) else [message]
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        (folder / name).unlink(missing_ok=True)
    copy.rename(path)
    restored = Store(folder)
    lost = sum(one != other for one, other in zip(wanted, restored.read_now(_events), strict=True))
    restored.close()
    return Outcome(
        "flipped bit in the database",
        "labelmelite",
        seed,
        True,
        message=message,
        answers=len(wanted),
        lost=lost,
        believed=tuple(believed),
        unsaid=tuple(unsaid),
    )


def killed_server(seed: int, folder: Path) -> Outcome:
    """Kill `segloop label` while people answer over HTTP, start it again, and look for each answer it acknowledged."""
    load = _load()
    rng = random.Random(seed)
    load.make_bundle(folder)
    server = load.Server(folder)
    annotators = asyncio.run(load._begin(server, 4, "answers"))
    asyncio.run(_until(load, server, annotators, rng.uniform(0.05, 1.0)))
    again = load.Server(folder, server.port)
    asyncio.run(load.load(again.port, annotators, 0.3))
    again.end(signal.SIGTERM)
    found = load.checked(folder / "data" / FILE, annotators)
    doubled = ("an answer stands twice",) if found["doubled"] else ()
    return Outcome(
        "kill the server",
        "labelmelite",
        seed,
        found["acknowledged"] > 0,
        answers=found["acknowledged"],
        lost=found["lost"],
        differing=doubled,
    )


def _load() -> Any:
    """Return the module of benchmarks/ that plays people who answer; the folder is no package."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        return importlib.import_module("labelling_server")
    finally:
        sys.path.pop(0)


async def _until(load: Any, server: Any, annotators: list[Any], seconds: float) -> None:
    working = asyncio.create_task(load.load(server.port, annotators, 30.0))
    await asyncio.sleep(seconds)
    server.process.send_signal(signal.SIGKILL)
    await working
    server.process.communicate()


def full_disk(seed: int, folder: Path) -> Outcome:
    """Let the disk of the database become full: what was not saved is refused, what was acknowledged stays."""
    rng = random.Random(seed)
    acknowledged: dict[tuple[str, int], int] = {}
    unsaid: list[str] = []
    message = ""
    with small_disk(folder / "small", rng.randrange(1 << 20, 2 << 20, 4096)) as place:
        data = place / "data"
        store = Store(data, network=rng.random() < 0.5)
        filler = place / "filler"
        filler.write_bytes(bytes(300 << 10))
        for number in range(1, 20_000):
            event = Event("page", number, "answer", {"why": "x" * rng.randrange(2000)})
            try:
                seq = store.write_now(lambda connection, event=event: append(connection, "a", time.time(), event))
            except ApiError as error:
                message = str(error)
                if not filler.exists():
                    break
                unsaid += [] if "disk of the server is full" in message else [message]
                filler.unlink()
                continue
            acknowledged["a", number] = seq
            if not filler.exists() and len(acknowledged) % 20 == 0:
                break
        store.close()
        outcome = _account("full disk of the server", seed, data, acknowledged)
    return replace(outcome, message=message, unsaid=tuple(unsaid), hit=bool(message))


def _events(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute("SELECT * FROM event ORDER BY seq")]


@dataclass(frozen=True)
class ServerFault:
    """A kind of fault of the labelling server."""

    name: str
    words: str
    attack: Callable[[int, Path], Outcome]
    without: Callable[[], str | None] = lambda: None
    """Why it cannot be tried on this machine."""


_KINDS: Final = (
    ServerFault(
        "kill in a commit",
        "SIGKILL of the process that saves answers, three times, with and without WAL",
        killed_in_a_commit,
    ),
    ServerFault("kill the server", "SIGKILL of `segloop label` while four people answer", killed_server),
    ServerFault(
        "full disk of the server", "a full file system below the answers' database", full_disk, without=cannot_mount
    ),
    ServerFault("flipped bit in the database", "one bit of the answers' database flips", damaged_database),
)

FAULTS: Final[Mapping[str, ServerFault]] = {fault.name: fault for fault in _KINDS}
