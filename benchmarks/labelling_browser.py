"""The editor in headless Chromium: work per frame of brush, reroute, pan and zoom on 4 megapixels with 500 masks.

The pointer is moved step by step, as a hand does. A frame's work is the time from its first event to the end of
drawing: a pixel of each canvas is read back at the end, so that drawing is done and not only ordered. Rendering is in
software.

Usage: python benchmarks/labelling_browser.py [--steps 300]
"""

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from common import machine
from segloop.data import masks

WIDTH, HEIGHT = 2400, 1700
MASKS = 500
WINDOW = {"width": 1600, "height": 1000}
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
CENTRE = (1200, 850)
RADIUS = 420


def blob(x: float, y: float, radius: float, phase: float) -> np.ndarray:
    """Return a wavy disc of shape (HEIGHT, WIDTH)."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    reach = int(radius * 1.3) + 2
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    rows, columns = np.mgrid[top : min(HEIGHT, int(y) + reach), left : min(WIDTH, int(x) + reach)] + 0.5
    angle = np.arctan2(rows - y, columns - x)
    edge = radius * (1 + 0.12 * np.sin(7 * angle + phase) + 0.05 * np.sin(23 * angle))
    mask[top : top + rows.shape[0], left : left + rows.shape[1]] = np.hypot(rows - y, columns - x) <= edge
    return mask


def write_scene(folder: Path) -> None:
    """Write one image of 4 megapixels with 500 masks: one large, the others of 30 to 70 pixels' radius."""
    rng = np.random.default_rng(6)
    picture = rng.integers(60, 110, (HEIGHT, WIDTH, 3), np.uint8)
    annotations = []
    for number in range(1, MASKS + 1):
        large = number == MASKS
        x, y = CENTRE if large else (float(rng.uniform(0, WIDTH)), float(rng.uniform(0, HEIGHT)))
        mask = blob(x, y, RADIUS if large else float(rng.uniform(30, 70)), float(rng.uniform(0, 6)))
        picture[mask] += 40
        rle = masks.encode(mask)
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "segmentation": masks.to_json(rle),
                "bbox": masks.boxes([rle])[0].tolist(),
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
        )
    (folder / "images").mkdir(parents=True)
    Image.fromarray(picture).save(folder / "images" / "scene.jpg", quality=92)
    value = {
        "images": [{"id": 1, "file_name": "scene.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "blob"}],
    }
    (folder / "annotations.json").write_text(json.dumps(value), encoding="utf-8")


def start_server(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start `segloop label` on the scene and return it with its address."""
    command = [sys.executable, "-m", "segloop", "label", "--annotations", str(folder / "annotations.json")]
    command += ["--images", str(folder / "images"), "--data", str(folder / "data"), "--no-tokens"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        for word in line.split():
            if word.startswith("http://127.0.0.1"):
                return process, word.rstrip("/")
    raise RuntimeError("the server printed no address")


class Hand:
    """Moves the pointer over the image, point by point."""

    def __init__(self, page: Page) -> None:
        self.page = page
        box = page.locator(".stage").bounding_box()
        assert box is not None
        self.box = box

    def move(self, x: float, y: float) -> None:
        """Go to a point of the image."""
        sx, sy = self.page.evaluate("([x, y]) => editor.view.toScreen(x, y)", [x, y])
        self.page.mouse.move(self.box["x"] + sx, self.box["y"] + sy)

    def stroke(self, points: list[tuple[float, float]]) -> list[dict[str, float]]:
        """Draw through points and return the work of each frame; the last one holds the commit."""
        self.page.evaluate("window.frames_measured = []")
        places = self.page.evaluate("points => points.map(([x, y]) => editor.view.toScreen(x, y))", points)
        for number, (sx, sy) in enumerate(places):
            self.page.mouse.move(self.box["x"] + sx, self.box["y"] + sy)
            if number == 0:
                self.page.mouse.down()
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        moved: list[dict[str, float]] = self.page.evaluate("window.frames_measured.splice(0)")
        self.page.mouse.up()
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return moved + [{**one, "commit": 1} for one in self.page.evaluate("window.frames_measured")]


def arc(steps: int, radius: float, begin: float, end: float) -> list[tuple[float, float]]:
    """Return points of a wavy arc around the large mask."""
    angles = np.linspace(begin, end, steps)
    return [
        (
            CENTRE[0] + (radius + 25 * math.sin(9 * a)) * math.cos(a),
            CENTRE[1] + (radius + 25 * math.sin(9 * a)) * math.sin(a),
        )
        for a in angles
    ]


def measure(steps: int = 300) -> dict[str, Any]:
    """Return the work of each frame in milliseconds, by what the hand does."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("error: chromium is not installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene(folder)
        process, address = start_server(folder)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
                page = browser.new_page(viewport=WINDOW)
                record = on_page(page, address, steps)
                record["browser"] = f"Chromium {browser.version}"
                browser.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
    return record


def on_page(page: Page, address: str, steps: int) -> dict[str, Any]:
    """Measure on one page."""
    started = time.perf_counter()
    page.goto(f"{address}/d/1/1")
    while not page.evaluate("window.editor && !document.querySelector('.stage').hasAttribute('aria-busy')"):
        page.wait_for_timeout(10)
    opening = time.perf_counter() - started
    hand = Hand(page)
    work: dict[str, list[dict[str, float]]] = {}
    page.evaluate(f"editor.select('{MASKS}')")
    page.keyboard.press("2")
    # Around half of the object beside its contour; first with the whole image in sight, then three times as large.
    work["reroute preview, whole image in sight"] = hand.stroke(arc(steps, RADIUS * 1.15, 0.2, 3.0))
    # The first commit of a page includes the compiling of its code.
    work["the same on the other side"] = hand.stroke(arc(steps, RADIUS * 1.15, 3.3, 6.1))
    page.keyboard.press("3")
    page.evaluate("editor.brush.size = 60")
    work["brush of 60 pixels, whole image in sight"] = hand.stroke(arc(steps, RADIUS * 0.7, 0.2, 4.5))
    page.evaluate(
        "([x, y]) => { editor.view.centre(x, y, editor.view.fitZoom * 3); editor.moved(); }",
        [CENTRE[0] + RADIUS, CENTRE[1]],
    )
    page.wait_for_timeout(100)
    page.keyboard.press("2")
    work["reroute preview, zoom 3"] = hand.stroke(arc(steps, RADIUS * 1.1, -0.45, 0.45))
    page.keyboard.press("3")
    work["brush of 60 pixels, zoom 3"] = hand.stroke(arc(steps, RADIUS * 0.9, -0.45, 0.45))
    page.keyboard.press("1")
    page.mouse.move(hand.box["x"] + 300, hand.box["y"] + 300)
    page.evaluate("window.frames_measured = []")
    page.mouse.down()
    for step in range(steps):
        page.mouse.move(hand.box["x"] + 300 + 2 * (step % 150), hand.box["y"] + 300 + step % 70)
    page.mouse.up()
    work["dragging the image, zoom 3"] = page.evaluate("window.frames_measured")
    saved = page.locator(".saving").inner_text()
    return {
        "load_average": os.getloadavg()[0],
        "opening_seconds": opening,
        "saved": saved,
        "steps": steps,
        "rows": [summary(name, frames) for name, frames in work.items()],
    }


def summary(name: str, frames: list[dict[str, float]]) -> dict[str, Any]:
    """Return median, 95th percentile and largest work of the frames, and that of the commit."""
    drawn = [one["drawn"] for one in frames if "commit" not in one]
    commits = [one["drawn"] for one in frames if "commit" in one]
    return {
        "what": name,
        "frames": len(drawn),
        "median_ms": statistics.median(drawn),
        "p95_ms": float(np.percentile(drawn, 95)),
        "largest_ms": max(drawn),
        "scripted_median_ms": statistics.median(one["scripted"] for one in frames if "commit" not in one),
        "commit_ms": max(commits, default=None),
    }


def lines(record: dict[str, Any]) -> list[str]:
    """Return the part of the page about the browser."""
    page = [
        "## Editor in the browser",
        "",
        f"{record['browser']}, headless, drawing in software, window {WINDOW['width']} x {WINDOW['height']}; one image"
        f" of {WIDTH} x {HEIGHT} pixels with {MASKS} masks. Work of a frame from its first event to the end of drawing,"
        " in milliseconds; target: median 8, 95th percentile 25. The commit is the frame in which the pixels are made"
        " (target 100).",
        f"Opening the image took {record['opening_seconds']:.2f} s. Load average of the machine at the end:"
        f" {record['load_average']:.1f}.",
        "",
        "| what | frames | median | 95 % | largest | script alone, median | commit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        commit = "–" if row["commit_ms"] is None else f"{row['commit_ms']:.0f}"
        numbers = (row["median_ms"], row["p95_ms"], row["largest_ms"], row["scripted_median_ms"])
        page.append(f"| {row['what']} | {row['frames']} | {' | '.join(f'{one:.1f}' for one in numbers)} | {commit} |")
    return [*page, ""]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="pointer moves of each stroke")
    print(machine())
    print("\n".join(lines(measure(parser.parse_args().steps))))


if __name__ == "__main__":
    main()
