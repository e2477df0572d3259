"""What browser tests share: a labelling server on a small data set, headless Chromium, and pages that are watched.

A page fails its test if a script fails on it, if it asks another host for anything, or if it breaks the content
security policy.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from segloop.data import masks

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

WIDTH, HEIGHT = 320, 240


class LabelServer:
    """A server of its own, which can be killed and started again on the same data."""

    def __init__(self, arguments: list[str], data: Path, *, tokens: bool = False) -> None:
        self.arguments = arguments if tokens else [*arguments, "--no-tokens"]
        self.data = data
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "segloop", "label", *self.arguments, "--data", str(self.data)]
        command += ["--port", str(self.port)]
        self.data.mkdir(exist_ok=True)
        with (self.data / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no server: {(self.data / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    @property
    def owner_link(self) -> str:
        """The address with its token, as the server printed it."""
        printed = (self.data / "server.log").read_text(encoding="utf-8")
        return next(word for word in printed.split() if word.startswith(f"{self.address}/join#"))

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/api/session", timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a power failure would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=20) as answer:
            return json.loads(answer.read())


def until(page: Page, expression: str, arg: Any = None) -> None:
    """Wait until an expression is true; Playwright waits by evaluating text in the page, which the policy forbids."""
    deadline = time.monotonic() + 10
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, f"still not: {expression}"
        page.wait_for_timeout(20)


def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    """A mask of shape (HEIGHT, WIDTH)."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    return np.asarray(((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1)


def write_scene(folder: Path, images: int = 24) -> Path:
    """Write pictures of bright ellipses with their masks; one is a ring, one name holds markup."""
    (folder / "images").mkdir(parents=True)
    names = ["car", "dog", "<b>bold</b>"]
    records: list[dict[str, Any]] = []
    rng = np.random.default_rng(4)
    for number in range(1, images + 1):
        picture = np.full((HEIGHT, WIDTH, 3), (46, 58, 64), np.uint8) + rng.integers(
            0, 12, (HEIGHT, WIDTH, 1), np.uint8
        )
        shapes = [
            (1, ellipse(90, 120, 50, 40)),
            (2, ellipse(230, 80, 45, 45) & ~ellipse(230, 80, 20, 20)),
            (3, ellipse(230, 185, 40, 25)),
        ]
        for category, mask in shapes[: 3 if number != 2 else 1]:
            picture[mask] = [(196, 176, 120), (120, 170, 196), (190, 120, 130)][category - 1]
            rle = masks.to_json(masks.encode(mask))
            records.append({"id": len(records) + 1, "image_id": number, "category_id": category, "segmentation": rle})
        Image.fromarray(picture).save(folder / "images" / f"scene_{number}.png")
    record = {
        "images": [
            {"id": n, "file_name": f"scene_{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(1, images + 1)
        ],
        "annotations": [
            {**one, "bbox": masks.boxes([masks.check(one["segmentation"])])[0].tolist(), "iscrowd": 0}
            for one in records
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
    }
    (folder / "annotations.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """A server on generated images; tests that change something take an image of their own."""
    folder = write_scene(tmp_path_factory.mktemp("scene"))
    arguments = ["--annotations", str(folder / "annotations.json"), "--images", str(folder / "images")]
    one = LabelServer(arguments, folder / "data")
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    # Not for the whole session: another test that starts Playwright itself would find its event loop running.
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield one
        one.close()


class Watched:
    """Opens pages and remembers what went wrong on them."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser = browser
        self.address = address
        self.problems: list[str] = []
        self.contexts: list[BrowserContext] = []

    def context(self, width: int = 1280, height: int = 800, **options: Any) -> BrowserContext:
        one = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        one.set_default_timeout(10_000)
        self.contexts.append(one)
        return one

    def page(self, path: str, context: BrowserContext | None = None, **options: Any) -> Page:
        page = (context or self.context(**options)).new_page()
        page.on("request", self._check_host)
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("console", self._check_console)
        page.goto(self.address + path)
        return page

    def _check_host(self, request: Any) -> None:
        if request.url.startswith("http") and not request.url.startswith(self.address):
            self.problems.append(f"foreign host: {request.url}")

    def _check_console(self, message: Any) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            self.problems.append(message.text)


@pytest.fixture
def watched(browser: Browser, server: LabelServer) -> Iterator[Watched]:
    one = Watched(browser, server.address)
    yield one
    for context in one.contexts:
        context.close()
    assert one.problems == []


@pytest.fixture
def screenshots() -> Callable[[Page, str], None]:
    """Return a function that keeps a picture of a page where SEGLOOP_SCREENSHOTS names a folder."""
    folder = os.environ.get("SEGLOOP_SCREENSHOTS")

    def keep(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(Path(folder) / f"{name}.png"))

    return keep
