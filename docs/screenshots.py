"""Take the four pictures of LabelMeLite in docs/ (the thesis's Figures 4-1 to 4-4) on generated scenes.

`make screenshots` runs it; it needs Debian's chromium and what `make test` installs.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from segloop.data import masks
from segloop.data.demo import generate

DOCS = Path(__file__).resolve().parent
SIDE = 512
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """Start a server on a data set or bundle; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "segloop", "label", *arguments, "--data", str(folder), "--port", str(port)]
    process = subprocess.Popen([*command, "--no-tokens"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"the server ended with status {process.returncode}")
            try:
                urllib.request.urlopen(f"{address}/api/session", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def scenes(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Generate scenes; return the folder of their images and the truth, whose file names lie below it."""
    generate(folder, seed=5, seed_images=1, pool_images=12, validation_images=1, image_size=SIDE)
    return folder / "pool" / "images", json.loads((folder / "pool" / "truth.json").read_text(encoding="utf-8"))


def spoiled(rle: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a mask as a detector might predict it: some are shifted, some lack a part."""
    mask = masks.decode(masks.check(rle))
    if number % 3 == 1:
        mask = np.roll(mask, (9, -14), axis=(0, 1))
    if number % 3 == 2:
        rows = np.flatnonzero(mask.any(axis=1))
        mask = mask.copy()
        mask[int(rows[len(rows) * 3 // 5]) :] = False
    return masks.to_json(masks.encode(mask))


def bundle(truth: dict[str, Any], path: Path, task: str) -> Path:
    """Write tasks about one category as a file: `yesno` or `edit`."""
    kind = max(truth["categories"], key=lambda one: sum(a["category_id"] == one["id"] for a in truth["annotations"]))
    chosen = [one for one in truth["annotations"] if one["category_id"] == kind["id"] and one["area"] > 2500][:9]
    annotations = []
    for number, one in enumerate(chosen):
        rle = spoiled(one["segmentation"], number)
        box = masks.boxes([masks.check(rle)])[0].tolist()
        annotations.append(one | {"segmentation": rle, "bbox": box, "score": 0.9 - 0.03 * number, "current_task": task})
    used = {one["image_id"] for one in chosen}
    images = [one for one in truth["images"] if one["id"] in used]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [kind]}), encoding="utf-8")
    return path


def opened(browser: Browser, address: str, *, loaded: str) -> Page:
    """Open a page and wait for what says that it is complete."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.locator(loaded).first.wait_for()
    page.wait_for_timeout(1500)
    return page


def keep(page: Page, name: str) -> None:
    """Save a picture of the page in 256 colours, which the eye hardly tells from all of them."""
    with Image.open(BytesIO(page.screenshot())) as image:
        image.convert("RGB").quantize(256).save(DOCS / f"labelmelite_{name}.png", optimize=True)


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return where a point of the image stands on the page."""
    box = page.locator(".stage").bounding_box()
    assert box is not None
    left, top = page.evaluate("([x, y]) => editor.view.toScreen(x, y)", [x, y])
    return box["x"] + left, box["y"] + top


def reroute(page: Page, box: list[float]) -> None:
    """Draw a new boundary across the upper left corner of an object and keep the button down."""
    x, y, width, height = box
    path = [(0.02, 0.55), (-0.12, 0.2), (0.1, -0.1), (0.55, 0.02)]
    for step, (right, down) in enumerate(path):
        page.mouse.move(*at(page, x + right * width, y + down * height), steps=12)
        if step == 0:
            page.mouse.down()
    page.wait_for_timeout(300)


def largest_box(address: str) -> list[float]:
    """Return the box of the largest object of the first image, as the server has it."""
    with urllib.request.urlopen(f"{address}/api/datasets/1/images/1", timeout=20) as answer:
        rles = [masks.check(one["mask"]) for one in json.loads(answer.read())["objects"]]
    return [float(value) for value in masks.boxes(rles)[int(masks.area(rles).argmax())]]


def main_interface(browser: Browser, address: str) -> None:
    """Take figures 4-1 (the main interface) and 4-2 (editing by boundary reroute)."""
    page = opened(browser, f"{address}/d/1/1", loaded=".stage:not([aria-busy])")
    keep(page, "main")
    x, y, width, height = box = largest_box(address)
    page.mouse.dblclick(*at(page, x + 0.15 * width, y + height / 2))
    page.wait_for_timeout(800)
    reroute(page, box)
    keep(page, "reroute")
    page.close()


def question_page(browser: Browser, address: str) -> None:
    """Take figure 4-3: yes or no."""
    page = opened(browser, f"{address}/questions", loaded=".cell.now")
    for key in ("y", "b"):
        page.keyboard.press(key)
        page.wait_for_timeout(400)
    keep(page, "questions")
    page.close()


def edit_page(browser: Browser, address: str) -> None:
    """Take figure 4-4: one mask to edit."""
    page = opened(browser, f"{address}/edit", loaded=".stage")
    page.wait_for_timeout(1500)
    keep(page, "edit")
    page.close()


def main() -> None:
    """Write docs/labelmelite_*.png."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        images, truth = scenes(folder / "scenes")
        annotations = folder / "truth.json"
        annotations.write_text(json.dumps(truth), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        with served(folder / "one", "--annotations", str(annotations), "--images", str(images)) as address:
            main_interface(browser, address)
        for task, take in (("yesno", question_page), ("edit", edit_page)):
            tasks = bundle(truth, folder / f"{task}.json", task)
            with served(folder / task, "--bundle", str(tasks), "--images", str(images)) as address:
                take(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
