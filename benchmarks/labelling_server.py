"""The labelling server under load: simulated annotators who answer as fast as they are acknowledged, and `kill -9`.

The annotators are coroutines of one process that speak HTTP over connections of their own, so that the load costs
little beside the server, which runs on the same machine. Each sends one answer (or one change of a mask) a request and
waits for its acknowledgement before the next one. In the middle the server is killed and started again; what was not
acknowledged is sent again, as the pages do. In the end the database is read: each acknowledged answer must stand in
it once, under the number that was told.
"""

import asyncio
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segloop.data import masks
from segloop.files import write_json

MASKS = 960
SIDE = 512
OWN = 10
"""Masks that one annotator changes."""


@dataclass
class Annotator:
    """One simulated annotator: a session, a task, and what was acknowledged."""

    headers: str
    build: Callable[[int], tuple[str, dict[str, Any]]]
    acknowledged: dict[int, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    next_number: int = 1


class Server:
    """`segloop label` on a bundle of questions, which is a data set of masks too."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "segloop", "label", "--bundle", str(folder / "bundle.json")]
        command += ["--data", str(folder / "data"), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while "LabelMeLite" not in line:
            line = self.process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)/join#(\S+)", line)
        assert found is not None, line
        self.port, self.token = int(found[1]), found[2]

    def cpu_seconds(self) -> float:
        """Return the time that the server has computed so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: int) -> None:
        """Send a signal and wait."""
        self.process.send_signal(number)
        self.process.communicate()


def make_bundle(folder: Path) -> None:
    """Write a bundle of discs on one image."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(folder / "image.png")
    annotations = []
    for number in range(1, MASKS + 1):
        rle = masks.to_json(disc(number, 20))
        annotations.append({"id": number, "image_id": 1, "category_id": 1, "segmentation": rle})
    value = {
        "images": [{"id": 1, "file_name": "image.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": annotations,
    }
    write_json(folder / "bundle.json", value)


def disc(number: int, radius: int) -> masks.Rle:
    """Return a disc of a place of its own."""
    left, top = 10 + number * 37 % (SIDE - 70), 10 + number * 101 % (SIDE - 70)
    y, x = np.mgrid[-25:25, -25:25]
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + 50, left : left + 50] = x**2 + y**2 < radius**2
    return masks.encode(mask)


async def call(connection: Any, head: str, method: str, path: str, value: Any = None) -> Any:
    """Send one request over an open connection and return the JSON of the response."""
    status, content = await exchange(connection, head, method, path, value)
    found = json.loads(content)
    if status >= 400:
        raise RuntimeError(f"{path}: {found}")
    return found


async def exchange(connection: Any, head: str, method: str, path: str, value: Any = None) -> tuple[int, bytes]:
    """Send one request over an open connection and return the status and the body of the response."""
    reader, writer = connection
    body = b"" if value is None else json.dumps(value).encode()
    lines = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{head}"
    writer.write(f"{lines}Content-Type: application/json\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
    assert length is not None, answer
    return int(answer.split(b" ", 2)[1]), await reader.readexactly(int(length[1]))


async def sign_in(connection: Any, token: str) -> str:
    """Return the headers of a new session."""
    session = await call(connection, "", "POST", "/api/session", {"token": token})
    return f"Authorization: Bearer {session['session']}\r\nX-Labelmelite: {session['csrf']}\r\n"


async def open_connection(port: int) -> Any:
    """Return a connection, once the server listens."""
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)


async def invite(port: int, owner: str, count: int, kind: str) -> list[Annotator]:
    """Return annotators who have signed in; each answers the first task, or changes masks of their own."""
    connection = await open_connection(port)
    found = []
    for place in range(count):
        made = await call(connection, owner, "POST", "/api/invites", {"name": f"{kind} {place}", "days": 1})
        headers = await sign_in(connection, made["token"])
        if kind == "answers":
            task = (await call(connection, headers, "POST", "/api/tasks", {"kind": "questions"}))["task"]
            build = answers_of(task["id"], [item["id"] for item in task["items"]])
        else:
            build = changes_of(range(place * OWN + 1, (place + 1) * OWN + 1))
        found.append(Annotator(headers, build))
    connection[1].close()
    return found


def answers_of(task: str, items: list[str]) -> Callable[[int], tuple[str, dict[str, Any]]]:
    """Return what makes the answer with a number."""

    def build(number: int) -> tuple[str, dict[str, Any]]:
        answer = {"client_no": number, "item": items[number % len(items)], "reply": "yes", "reason": None}
        answer |= {"seconds": 1.4, "default_used": False}
        return f"/api/tasks/{task}/answers", {"client": "load", "answers": [answer]}

    return build


def changes_of(objects: range) -> Callable[[int], tuple[str, dict[str, Any]]]:
    """Return what makes the change with a number: masks in turn, each to and fro between two sizes."""
    states = {number: [masks.to_json(disc(number, radius)) for radius in (20, 24)] for number in objects}

    def build(number: int) -> tuple[str, dict[str, Any]]:
        turn, place = divmod(number - 1, len(objects))
        name = objects[place]
        payload = {"before": states[name][turn % 2], "after": states[name][(turn + 1) % 2]}
        event = {"client_no": number, "dataset": 1, "image": 1, "object": str(name), "kind": "edit"}
        return "/api/events", {"client": "load", "events": [event | {"payload": payload, "seconds": 1.4}]}

    return build


async def work(port: int, annotator: Annotator, until: float) -> None:
    """Send one after the other until the time is over or the server is gone."""
    connection: Any = None
    try:
        connection = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            number = annotator.next_number
            path, value = annotator.build(number)
            begun = time.perf_counter()
            acks = (await call(connection, annotator.headers, "POST", path, value))["acks"]
            annotator.seconds.append(time.perf_counter() - begun)
            assert "seq" in acks[0], acks
            annotator.acknowledged[number] = acks[0]["seq"]
            annotator.next_number = number + 1
    except (OSError, asyncio.IncompleteReadError):
        pass  # killed: the number that was under way is sent again
    finally:
        if connection is not None:
            connection[1].close()


async def load(port: int, annotators: list[Annotator], seconds: float) -> None:
    """Let all annotators work at once."""
    until = time.monotonic() + seconds
    await asyncio.gather(*(work(port, one, until) for one in annotators))


def measure(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """Return what the server bears of each kind of request, and what a kill costs."""
    loads = [one_load(folder / kind, kind, count, seconds) for kind in ("answers", "changes")]
    return {"loads": loads, "load_average": os.getloadavg()[0]}


def one_load(folder: Path, kind: str, count: int, seconds: float) -> dict[str, Any]:
    """Measure one kind of request, with a kill in the middle, and check the database."""
    make_bundle(folder)
    server = Server(folder)
    annotators = asyncio.run(_begin(server, count, kind))
    begun, used = time.monotonic(), server.cpu_seconds()
    asyncio.run(load(server.port, annotators, seconds))
    wall, used = time.monotonic() - begun, server.cpu_seconds() - used
    rate = sum(len(one.acknowledged) for one in annotators) / wall
    cost = used / sum(len(one.acknowledged) for one in annotators)
    times = sorted(second for one in annotators for second in one.seconds)
    asyncio.run(_killed(server, annotators))
    before = sum(len(one.acknowledged) for one in annotators)
    again = Server(folder, server.port)
    begun = time.monotonic()
    asyncio.run(load(again.port, annotators, 2.0))
    resumed = (sum(len(one.acknowledged) for one in annotators) - before) / (time.monotonic() - begun)
    again.end(signal.SIGTERM)
    return {
        "kind": kind,
        "annotators": count,
        "per_second": round(rate, 1),
        "per_second_after_restart": round(resumed, 1),
        "server_cpu_ms": round(cost * 1000, 2),
        "median_ms": round(statistics.median(times) * 1000, 1),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
        **checked(folder / "data" / "labelmelite.sqlite", annotators),
    }


async def _begin(server: Server, count: int, kind: str) -> list[Annotator]:
    connection = await open_connection(server.port)
    owner = await sign_in(connection, server.token)
    connection[1].close()
    return await invite(server.port, owner, count, kind)


async def _killed(server: Server, annotators: list[Annotator]) -> None:
    working = asyncio.create_task(load(server.port, annotators, 30.0))
    await asyncio.sleep(1.0)
    server.process.send_signal(signal.SIGKILL)
    await working
    server.process.communicate()


def checked(path: Path, annotators: list[Annotator]) -> dict[str, int]:
    """Count what was acknowledged and is missing, stands twice, or under another number."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT annotator, client_no, seq FROM event WHERE client = 'load'").fetchall()
    whole = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    by_seq = {seq: number for _, number, seq in rows}
    acknowledged = [(number, seq) for one in annotators for number, seq in one.acknowledged.items()]
    lost = sum(by_seq.get(seq) != number for number, seq in acknowledged)
    doubled = len(rows) - len({(annotator, number) for annotator, number, _ in rows})
    assert whole == "ok", whole
    return {
        "acknowledged": len(acknowledged),
        "lost": lost,
        "doubled": doubled + len(acknowledged) - len({seq for _, seq in acknowledged}),
        "saved_but_not_acknowledged": len(rows) - len(acknowledged),
    }


def lines(record: dict[str, Any]) -> list[str]:
    """Return the part of the page about the server."""
    records = record["loads"]
    table = [
        "## The server under load",
        "",
        f"{records[0]['annotators']} simulated annotators on the same machine, one answer a request. Each waits for",
        "its acknowledgement, which comes after the commit has reached the disk. After the measured time the server is",
        "killed with `kill -9` in mid-work and started again, and what was not acknowledged is sent again.",
        "`computing` is the time that the server's process used for one request. Load average of the machine at the",
        f"end: {record['load_average']:.1f}.",
        "",
        "| what is sent | acknowledged a second | after the restart | median | 99 % | computing"
        " | acknowledged in all | lost | doubled |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    names = {"answers": "yes/no answers", "changes": "edits of masks (two RLE each, checked)"}
    for one in records:
        cells = [
            names[one["kind"]],
            f"{one['per_second']:.0f}",
            f"{one['per_second_after_restart']:.0f}",
            f"{one['median_ms']:.0f} ms",
            f"{one['p99_ms']:.0f} ms",
            f"{one['server_cpu_ms']:.2f} ms",
            *(str(one[key]) for key in ("acknowledged", "lost", "doubled")),
        ]
        table.append(f"| {' | '.join(cells)} |")
    return [*table, ""]
