"""Part of `load.py`: the labelling server with annotators who look at each mask and take as long as people do.

The server is a process of its own, started as `segloop label` starts it, on simulated masks whose images exist; the
annotators are coroutines of another one. In the end the database and the files of the run are read: each answer that
was acknowledged must stand there once, as it was given.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from labelling_server import call, exchange, open_connection, sign_in
from labelling_tasks import simulated_iteration
from labelmelite.images import Pixels
from labelmelite.loop.session import LoopSession
from labelmelite.server import serve
from labelmelite.settings import Settings, read_settings
from labelmelite.sources.base import Source
from labelmelite.store import Store
from segloop.annotation.people import read_records
from segloop.data.pool import read_shard
from segloop.simulation.worlds import world_of_arrays
from simulated_world import simulate as simulated_world

MASKS: Final = 40_000
PACE: Final = (0.5, 2.0)
"""Seconds that somebody looks at a mask: the least and the most, all between equally likely."""


@dataclass
class Annotator:
    """One simulated annotator and what became of each request."""

    headers: str
    numbers: random.Random
    answered: dict[int, tuple[int, str, str]] = field(default_factory=dict)
    """By own number: the number in the log, the item, the reply."""
    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {"answer": [], "crop": [], "task": [], "submit": []}
    )
    errors: Counter[str] = field(default_factory=Counter)
    waited: int = 0
    aside: int = 0
    counted: int = 0
    """Answers of tasks that were submitted and accepted: those that the run goes on with."""


class _Simulated:
    """What `segloop label` serves: the iteration of simulated masks."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.roots = (str(run.resolve()),)

    def sources(self) -> list[Source]:
        """Return no data set beside the questions."""
        return []

    def start(self, store: Store, settings: Settings, pixels: Pixels) -> LoopSession:
        """Return the session."""
        arrays = vars(simulated_world("D", n=MASKS, per_subcluster=80, seed=0))
        iteration = simulated_iteration(world_of_arrays(arrays, arrays["good"], "D", seed=0), "per_mask", self.run)
        _write_images(self.run)
        return LoopSession(iteration, store, settings.loop, settings.question)


def _write_images(run: Path) -> None:
    """Write one photograph under the name of every image of the pool."""
    first = run / "photograph.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(first, quality=90)
    for name in read_shard(run / "resources" / "pool" / "shards" / "0.parquet").file_name:
        os.link(first, run / name)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Let annotators work and return how long they waited, and what was lost."""
    server = subprocess.Popen(
        [sys.executable, __file__, str(folder / "run")], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    while "LabelMeLite" not in line:
        assert line, "the server did not start"
        line = server.stdout.readline()
    address, _, token = line.strip().partition("/join#")
    begun = time.monotonic()
    try:
        people = asyncio.run(_all(int(address.rpartition(":")[2]), token, options.annotators, options.minutes * 60))
    finally:
        wall = time.monotonic() - begun
        peak = _peak(server.pid)
        server.send_signal(signal.SIGTERM)
        server.communicate()
    times = {name: sorted(one for each in people for one in each.seconds[name]) for name in people[0].seconds}
    return {
        "annotators": options.annotators,
        "minutes": round(wall / 60, 2),
        "server_peak_mb": peak,
        "server_status": server.returncode,
        "errors": dict(sum((one.errors for one in people), Counter[str]())),
        "waited": sum(one.waited for one in people),
        "set_aside": sum(one.aside for one in people),
        "times": {name: _quantiles(values) for name, values in times.items()},
        **_checked(folder / "run", people),
    }


def _peak(process: int) -> int:
    """Return the peak of a process's memory in MB."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split()[0]) // 1000


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    places = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}
    found = {name: round(1e3 * values[min(len(values) - 1, int(len(values) * q))], 1) for name, q in places.items()}
    mean = round(1e3 * statistics.fmean(values), 1)
    return {"count": len(values), "mean_ms": mean, **found, "longest_ms": round(1e3 * values[-1], 1)}


async def _all(port: int, token: str, count: int, seconds: float) -> list[Annotator]:
    connection = await open_connection(port)
    owner = await sign_in(connection, token)
    people = []
    for place in range(count):
        made = await call(connection, owner, "POST", "/api/invites", {"name": f"annotator {place}", "days": 1})
        people.append(Annotator(await sign_in(connection, made["token"]), random.Random(place)))
    connection[1].close()
    until = time.monotonic() + seconds
    await asyncio.gather(*(_work(port, one, until) for one in people))
    return people


async def _work(port: int, one: Annotator, until: float) -> None:
    """Take task after task until the time is over."""
    await asyncio.sleep(one.numbers.uniform(0, 2))
    connection = await open_connection(port)
    while time.monotonic() < until:
        given = await _timed(one, "task", connection, "POST", "/api/tasks", {"kind": "questions"})
        task = None if given is None else given["task"]
        if task is None:
            one.waited += 1
            await asyncio.sleep(1)
            continue
        begun = time.monotonic()
        for item in task["items"]:
            if time.monotonic() >= until:
                break
            await _answer(one, connection, task["id"], item["id"])
        else:
            path = f"/api/tasks/{task['id']}/submit"
            ended = await _timed(one, "submit", connection, "POST", path, {"seconds": time.monotonic() - begun})
            if ended is not None:
                one.aside += not ended["accepted"]
                one.counted += len(task["items"]) if ended["accepted"] else 0
    connection[1].close()


async def _answer(one: Annotator, connection: Any, task: str, item: str) -> None:
    """Look at a mask, then answer."""
    await _timed(one, "crop", connection, "GET", f"/api/items/{item}/crop?side=400")
    looked = one.numbers.uniform(*PACE)
    await asyncio.sleep(looked)
    number, reply = len(one.answered) + 1, one.numbers.choice(["yes", "no"])
    answer = {"client_no": number, "item": item, "reply": reply, "reason": None, "seconds": round(looked, 3)}
    body = {"client": "load", "answers": [answer | {"default_used": False}]}
    given = await _timed(one, "answer", connection, "POST", f"/api/tasks/{task}/answers", body)
    if given is not None:
        ack = given["acks"][0]
        if "seq" in ack:
            one.answered[number] = (ack["seq"], item, reply)
        else:
            one.errors[f"answer: {ack['error']['code']}"] += 1


async def _timed(one: Annotator, what: str, connection: Any, method: str, path: str, value: Any = None) -> Any:
    """Send a request and note how long it took; return the JSON of the response, None for an error or a picture."""
    begun = time.perf_counter()
    status, content = await exchange(connection, one.headers, method, path, value)
    one.seconds[what].append(time.perf_counter() - begun)
    if status >= 400:
        one.errors[f"{what}: status {status}"] += 1
        return None
    return json.loads(content) if what != "crop" else None


def _checked(run: Path, people: list[Annotator]) -> dict[str, int]:
    """Look for each acknowledged answer in the database, and in the file that the run goes on with."""
    connection = sqlite3.connect(run / "server" / "labelmelite.sqlite")
    rows = connection.execute("SELECT seq, client_no, item, payload FROM event WHERE client = 'load'").fetchall()
    whole = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    assert whole == "ok", whole
    by_seq = {seq: (number, item, json.loads(payload)["reply"]) for seq, number, item, payload in rows}
    lost = wrong = 0
    for one in people:
        for number, (seq, item, reply) in one.answered.items():
            lost += seq not in by_seq
            wrong += seq in by_seq and by_seq[seq] != (number, item, reply)
    acknowledged = sum(len(one.answered) for one in people)
    files = list(run.rglob("answers.jsonl"))
    return {
        "acknowledged": acknowledged,
        "in_database": len(rows),
        "lost": lost,
        "wrong": wrong,
        "doubled": acknowledged - len({seq for one in people for seq, _, _ in one.answered.values()}),
        "submitted": sum(one.counted for one in people),
        "in_file": sum(len(read_records(file)) for file in files),
    }


def lines(record: dict[str, Any]) -> list[str]:
    """Return the part of the page about people."""
    low, high = PACE
    found = [
        "## People",
        "",
        f"{record['annotators']} simulated annotators for {record['minutes']:.1f} minutes at `segloop label`, on",
        f"the same machine: an iteration of {MASKS:,} simulated masks (policy `per_mask`). Each fetches the crop of a",
        f"mask, looks at it for {low} to {high} s (all between equally likely), sends the answer and waits for its",
        "acknowledgement; after the last one of a task it submits the task and takes the next. The machine carried",
        f"other work: load average {record['load_average_before']} before, {record['load_average']} at the end. The",
        "masks of an image lie in one place, so that most crops come from the server's cache.",
        "",
        "| request | how many | mean | median | 95 % | 99 % | 99.9 % | longest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    names = {
        "answer": "an answer, until it is acknowledged",
        "crop": "a crop",
        "task": "a new task",
        "submit": "the end of a task",
    }
    for name, shown in names.items():
        one = record["times"][name]
        keys = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "p999_ms", "longest_ms")
        found.append(f"| {shown} | {one['count']:,} | " + " | ".join(f"{one[key]:.0f} ms" for key in keys) + " |")
    errors = ", ".join(f"{count} of {what}" for what, count in record["errors"].items()) or "none"
    return [
        *found,
        "",
        f"Errors: {errors}. Tasks set aside as too fast: {record['set_aside']}. Times that nothing was open for",
        f"somebody: {record['waited']}. Acknowledged answers: {record['acknowledged']:,}; looked for one by one in the",
        f"database, lost: {record['lost']}, other than given: {record['wrong']}, doubled: {record['doubled']}. In the",
        f"run's `answers.jsonl` after the server had ended: {record['in_file']:,}; of submitted tasks:",
        f"{record['submitted']:,}. Peak of the server's memory: {record['server_peak_mb']} MB.",
        "",
    ]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True)
    sys.exit(serve(read_settings(None, data=place / "server", host="127.0.0.1", port=0), _Simulated(place)))
