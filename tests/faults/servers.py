"""Faults of the labelling server: it dies while answers are acknowledged, its disk fills, its database is damaged."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from labelmelite.events import Event, append
from labelmelite.store import FILE, Store
from segloop.errors import SegloopError

from .harness import Outcome

WRITER: Final = r"""
import json, os, sys, threading, time
from pathlib import Path
from labelmelite.events import Event, append
from labelmelite.store import Store

store = Store(Path(sys.argv[1]), network=sys.argv[2] == "True")

def work(annotator, first):
    for number in range(first, first + 100_000):
        event = Event("page", number, "answer", {"reply": "yes", "number": number}, task="t", item=str(number))
        seq = store.write_now(lambda connection: append(connection, annotator, time.time(), event))
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


def _events(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute("SELECT * FROM event ORDER BY seq")]


FAULTS: Final[Mapping[str, tuple[str, Callable[[int, Path], Outcome]]]] = {
    "kill in a commit": (
        "SIGKILL of the process that saves answers, three times, with and without WAL",
        killed_in_a_commit,
    ),
    "flipped bit in the database": ("one bit of the answers' database flips", damaged_database),
}
