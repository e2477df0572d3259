"""The edit page in headless Chromium: masks of an iteration are corrected, left as they are, refused, and redrawn."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from segloop.data import masks
from segloop.store.index import read_index

from ..unit.labelmelite.loop.conftest import make_run
from .conftest import LabelServer, Watched, until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for answers about iteration 1."""
    folder = tmp_path_factory.mktemp("edit") / "run"
    folder.mkdir()
    make_run(folder)
    return folder


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[LabelServer]:
    one = LabelServer(["--run", str(run), "--iteration", "1"], run.parent / "data")
    one.start()
    yield one
    one.stop()


@pytest.fixture
def watched(browser: Browser, server: LabelServer) -> Iterator[Watched]:
    one = Watched(browser, server.address)
    yield one
    for context in one.contexts:
        context.close()
    assert one.problems == []


def ready(page: Page, place: str) -> None:
    expect(page.locator(".left")).to_have_text(place)
    until(page, "window.editor && !document.querySelector('.stage').hasAttribute('aria-busy')")


def screen(page: Page, x: float, y: float) -> tuple[float, float]:
    box = page.locator(".stage").bounding_box()
    assert box is not None
    sx, sy = page.evaluate("([x, y]) => editor.view.toScreen(x, y)", [x, y])
    return box["x"] + sx, box["y"] + sy


def records(run: Path, name: str) -> list[dict[str, Any]]:
    path = run / "data" / "answers" / "iter_1" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def test_masks_are_corrected_left_or_refused(
    watched: Watched, server: LabelServer, run: Path, screenshots: Callable[[Page, str], None]
) -> None:
    node = next(one for one in server.get("/api/tree")["nodes"] if one["category"] == "kind 1")
    sample = server.get(f"/api/tree/{node['id']}?sample=3")["sample"]
    page = watched.page("/edit?" + "&".join(f"item={item['id']}" for item in sample))
    ready(page, "1 of 3")
    expect(page.get_by_role("heading")).to_have_text("Please correct the boundary of this kind 1")
    # One tool, and what belongs to it.
    tools = page.locator(".tools button").evaluate_all("all => all.map(one => one.textContent)")
    assert tools == ["Edit", "Undo", "Redo", "Other", "Cross"]
    before = page.evaluate("editor.scene.current.mask")
    x, y, width, height = page.evaluate(
        "(({ x, y, width, height }) => [x, y, width, height])(editor.scene.current.bitmap)"
    )
    for _ in range(2):
        # The upper half of the mask goes; the second time after an undo.
        page.mouse.move(*screen(page, x - 0.4, y + height / 2))
        page.mouse.down()
        page.mouse.move(*screen(page, x + width + 0.4, y + height / 2), steps=8)
        page.mouse.up()
        expect(page.locator("#status")).to_contain_text("now has")
        page.keyboard.press("u")
        until(page, "counts => editor.scene.current.mask.counts === counts", before["counts"])
    page.keyboard.press("y")
    screenshots(page, "edit_page")
    after = page.evaluate("editor.scene.current.mask")
    assert after["counts"] != before["counts"]
    page.keyboard.press("Control+Enter")
    ready(page, "2 of 3")
    page.keyboard.press("PageDown")
    ready(page, "3 of 3")
    page.keyboard.press("PageUp")
    ready(page, "2 of 3")
    page.keyboard.press("PageDown")
    ready(page, "3 of 3")
    page.get_by_role("button", name="No kind 1 here").click()
    page.get_by_role("button", name="There is none").click()
    expect(page.get_by_role("heading", name="There is nothing to draw")).to_be_visible()
    screenshots(page, "edit_done")
    assert "item" not in page.url
    # The task is over: its keys are.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for key in ("Control+Enter", "PageUp", "u"):
        page.keyboard.press(key)
    page.wait_for_timeout(200)
    assert asked == []
    server.stop()
    server.start()
    # What was left as it is, and what is none, are no edits.
    (record,) = records(run, "edits.jsonl")
    assert record["segmentation"] == after
    assert 0 < record["seconds"] < 120


def test_a_redraw_starts_from_nothing(
    watched: Watched, server: LabelServer, run: Path, screenshots: Callable[[Page, str], None]
) -> None:
    folder = run / "results" / "iter_1"
    index = read_index(folder / "index.zarr")
    row = int(np.flatnonzero(index.category == 2)[0])
    one = {
        "prediction": str(index.prediction[row]),
        "mask_key": index.mask_key[row].tobytes().hex(),
        "category_id": int(index.category[row]),
    }
    (folder / "quality_sample.json").write_text(json.dumps({"masks": [one]}), encoding="utf-8")
    page = watched.page("/edit")
    ready(page, "1 of 1")
    expect(page.get_by_role("heading")).to_have_text("Please draw the kind 2 in the frame")
    assert page.evaluate("editor.scene.items.size") == 0
    x, y, width, height = page.evaluate("(({ x, y, width, height }) => [x, y, width, height])(editor.box)")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("first")
    for dx, dy in ((0, 0), (width, 0), (width, height), (0, height), (0, 0)):
        page.mouse.click(*screen(page, x + dx, y + dy))
        page.wait_for_timeout(60)
    until(page, "editor.scene.items.size === 1")
    screenshots(page, "redraw")
    drawn = page.evaluate("editor.scene.current.mask")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="There is nothing to draw")).to_be_visible()
    server.stop()
    server.start()
    (record,) = records(run, "redraws.jsonl")
    assert masks.area([masks.check(drawn)])[0] == round(width) * round(height)
    assert record["segmentation"] == drawn


def test_who_goes_on_before_a_mask_is_there_draws_on_no_other(watched: Watched, server: LabelServer) -> None:
    node = next(one for one in server.get("/api/tree")["nodes"] if one["category"] == "kind 2")
    sample = server.get(f"/api/tree/{node['id']}?sample=3")["sample"]
    page = watched.page("/edit?" + "&".join(f"item={item['id']}" for item in sample))
    ready(page, "1 of 3")
    page.evaluate(
        """() => {
          const { work } = editor;
          const decode = work.decode.bind(work);
          work.decode = async (masks) => {
            await new Promise((resolve) => setTimeout(resolve, 400));
            return decode(masks);
          };
        }"""
    )
    held: list[Route] = []
    page.route("**/api/items/*/image*", lambda route: held.append(route) if asked else asked.append(route.continue_()))
    asked: list[None] = []
    page.keyboard.press("PageDown")
    page.wait_for_timeout(200)
    page.keyboard.press("PageDown")
    page.wait_for_timeout(600)
    # The second mask is there while the third is waited for: what is drawn on it would be saved as the third.
    assert len(asked) == len(held) == 1
    assert page.evaluate("editor.loading") is True
    held[0].continue_()
    ready(page, "3 of 3")
