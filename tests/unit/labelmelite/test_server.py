import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelmelite.settings import Settings, read_settings
from segloop.cli import main
from segloop.errors import SegloopError

from .conftest import rectangle


class Server:
    """A running `segloop label`."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "segloop", "label", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(("SIGTERM", "Ctrl+C", "error")):
                break
        found = re.search(r"LabelMeLite: (http://[^/]+)/(?:join#(\S+))?", "\n".join(self.lines))
        assert found, self.lines
        self.base, self.token = found[1], found[2]
        self.headers: dict[str, str] = {"Content-Type": "application/json"}

    def call(self, path: str, value: Any = None, method: str | None = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self.base + path, data, self.headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)

    def join(self) -> None:
        session = self.call("/api/session", {"token": self.token})
        self.headers |= {"Authorization": f"Bearer {session['session']}", "X-Labelmelite": session["csrf"]}

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=30)
        return rest


@pytest.fixture
def arguments(coco: Path, tmp_path: Path) -> Iterator[list[str]]:
    yield ["--annotations", str(coco), "--images", str(tmp_path / "images")]


def test_start_answer_kill_restart(arguments: list[str], coco: Path) -> None:
    server = Server(*arguments)
    try:
        server.join()
        a, b = rectangle(2, 3, 5, 6), rectangle(2, 3, 5, 7)
        seen: list[int] = []

        def work() -> None:
            masks = [a, b]
            try:
                for number in range(1, 100_000):
                    payload = {"before": masks[(number + 1) % 2], "after": masks[number % 2]}
                    event = {
                        "client_no": number,
                        "dataset": 1,
                        "image": 1,
                        "object": "1",
                        "kind": "edit",
                        "payload": payload,
                    }
                    seen.append(server.call("/api/events", {"client": "c", "events": [event]})["acks"][0]["seq"])
            except (OSError, urllib.error.URLError):
                pass  # killed

        thread = threading.Thread(target=work)
        thread.start()
        while len(seen) < 20:
            assert thread.is_alive()
        server.process.kill()
        thread.join()
        server.process.communicate()
    finally:
        server.process.kill()
    again = Server(*arguments)
    try:
        # The session outlives the server.
        again.headers = server.headers
        events = again.call("/api/datasets/1/images/1/events")
        assert [one["seq"] for one in events][: len(seen)] == seen
        assert len(events) <= len(seen) + 1
        present = again.call("/api/datasets/1/images/1")["objects"][0]
        assert present["mask"] == events[-1]["payload"]["after"] and present["seq"] == events[-1]["seq"]
        # What was not acknowledged is sent again, and counts once.
        last = len(seen) + 1
        masks = [a, b]
        payload = {"before": masks[(last + 1) % 2], "after": masks[last % 2]}
        event = {"client_no": last, "dataset": 1, "image": 1, "object": "1", "kind": "edit", "payload": payload}
        assert again.call("/api/events", {"client": "c", "events": [event]})["acks"][0]["seq"] == last
        assert again.end() == "stopped; everything that was acknowledged is saved\n"
        assert again.process.returncode == 0
        # Only the owner may read the database: it holds who may do what.
        assert (coco.parent / "set.labelmelite" / "labelmelite.sqlite").stat().st_mode & 0o077 == 0
    finally:
        again.process.kill()


def test_a_server_on_a_remote_machine_says_how_to_reach_it(arguments: list[str], tmp_path: Path) -> None:
    env = {"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22", "USER": "ada"}
    server = Server(*arguments, "--data", str(tmp_path / "d"), "--no-tokens", env=env)
    try:
        port = server.base.rpartition(":")[2]
        assert any(re.search(rf"ssh -N -L {port}:127\.0\.0\.1:{port} ada@", line) for line in server.lines)
        assert server.token is None
        assert server.call("/api/session")["annotator"]["role"] == "owner"
        assert "stopped" in server.end(signal.SIGINT)
    finally:
        server.process.kill()


def test_a_folder_of_images_alone_on_every_address(arguments: list[str], tmp_path: Path) -> None:
    server = Server("--images", arguments[3], "--data", str(tmp_path / "d"), "--host", "0.0.0.0")
    try:
        assert any("put a proxy with TLS before it" in line for line in server.lines)
        server.base = f"http://127.0.0.1:{server.base.rpartition(':')[2]}"
        server.join()
        assert server.call("/api/datasets")[0]["kind"] == "folder"
        server.end()
    finally:
        server.process.kill()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to label"),
        (["--images", "/nowhere/at/all"], "is no folder"),
        (["--images", "https://example.org/x"], "a URL cannot be listed"),
        (["--annotations", "/nowhere.json", "--images", "."], "does not exist"),
        (["--images", ".", "--host", "0.0.0.0", "--no-tokens"], "everybody needs a token"),
        (["--images", ".", "--settings", "/nowhere.yaml"], "does not exist"),
        (["--images", ".", "--host", "300.0.0.1"], "cannot be used"),
        (["--run", ".", "--images", "."], "name one thing to label"),
        (["--images", ".", "--public", "label.example.org"], "such as https://label.example.org"),
        (["--images", ".", "--public", "label.example.org:8080"], "such as https://label.example.org"),
        (["--images", ".", "--public", "https://example.org/label"], "without a path"),
    ],
)
def test_what_cannot_be_served(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", *options, "--data", str(tmp_path / "d")]) == 1
    assert message in capsys.readouterr().err


def test_settings_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("adapter: study\nstudy:\n  participant: PID\nquestion:\n  layout: grid\nwage: 12\n")
    found = read_settings(path, data=tmp_path, port=80)
    assert (found.adapter, found.study.participant, found.question.layout, found.wage) == ("study", "PID", "grid", 12.0)
    assert (found.port, found.study.study) == (80, "study")
    assert read_settings(None, data=tmp_path) == Settings(data=tmp_path)
    for text, message in (
        ("colour: red", "colour"),
        ("study: {x: 1}", r"study\.x"),
        ("wage: much", "wage"),
        ("- 1", "by name"),
        ("a: [", "not valid YAML"),
    ):
        path.write_text(text)
        with pytest.raises(SegloopError, match=message):
            read_settings(path, data=tmp_path)
