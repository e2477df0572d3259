"""The main interface in headless Chromium: every tool, saving, undo after a reload, two tabs, a server that dies."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from segloop.data import masks

from .conftest import HEIGHT, WIDTH, LabelServer, Watched, ellipse, until

pytestmark = pytest.mark.browser

CAR = ellipse(90, 120, 50, 40)
DOG = ellipse(230, 80, 45, 45) & ~ellipse(230, 80, 20, 20)


class EditorPage:
    """An image in the editor; points are those of the image."""

    def __init__(
        self, watched: Watched, server: LabelServer, image: int, context: BrowserContext | None = None, **options: Any
    ) -> None:
        self.server = server
        self.image = image
        self.page: Page = watched.page(f"/d/1/{image}", context, **options)
        self.wait()

    def wait(self) -> None:
        until(self.page, "window.editor && !document.querySelector('.stage').hasAttribute('aria-busy')")
        # The car is the first object of the image.
        self.box = self.page.locator(".stage").bounding_box()

    def place(self, x: float, y: float) -> tuple[float, float]:
        assert self.box is not None
        sx, sy = self.page.evaluate("([x, y]) => editor.view.toScreen(x, y)", [x, y])
        return self.box["x"] + sx, self.box["y"] + sy

    def click(self, x: float, y: float, **options: Any) -> None:
        self.page.mouse.click(*self.place(x, y), **options)

    def drag(self, *points: tuple[float, float], release: bool = True) -> None:
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point), steps=5)
        if release:
            self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def status(self, text: str) -> None:
        expect(self.page.locator("#status")).to_contain_text(text)

    def saved(self) -> None:
        expect(self.page.locator(".saving")).to_have_text("saved")

    def objects(self) -> list[dict[str, Any]]:
        objects: list[dict[str, Any]] = self.server.get(f"/api/datasets/1/images/{self.image}")["objects"]
        return objects

    def mask(self, category: str = "car") -> np.ndarray:
        """The mask of an object as the server holds it."""
        self.saved()
        found = [one for one in self.objects() if one["category"] == category]
        assert len(found) == 1
        return masks.decode(masks.check(found[0]["mask"], (HEIGHT, WIDTH)))

    def events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self.server.get(f"/api/datasets/1/images/{self.image}/events")
        return events


Open = Callable[..., EditorPage]


@pytest.fixture
def opened(watched: Watched, server: LabelServer) -> Open:
    return lambda image, context=None, **options: EditorPage(watched, server, image, context, **options)


def test_a_click_selects_a_double_click_centres_and_edits(
    opened: Open, screenshots: Callable[[Page, str], None]
) -> None:
    one = opened(1)
    screenshots(one.page, "select")
    one.click(230, 185)
    expect(one.page.locator(".objects [aria-current]")).to_contain_text("<b>bold</b>")
    expect(one.page.locator(".objects b")).to_have_count(0)
    one.click(5, 5)
    expect(one.page.locator(".objects [aria-current]")).to_have_count(0)
    before = one.page.evaluate("editor.view.zoom")
    one.page.mouse.dblclick(*one.place(90, 120))
    expect(one.page.get_by_role("button", name="Edit", exact=True)).to_have_attribute("aria-pressed", "true")
    assert one.page.evaluate("editor.view.zoom") > before
    x, y = one.place(90, 120)
    assert one.box is not None
    assert abs(x - one.box["x"] - one.box["width"] / 2) < 3
    assert abs(y - one.box["y"] - one.box["height"] / 2) < 3
    assert one.events() == []


def test_a_trace_reroutes_the_boundary_and_nothing_else(opened: Open, screenshots: Callable[[Page, str], None]) -> None:
    one = opened(2)
    one.click(90, 120)
    one.press("2")
    one.drag((60, 87), (60, 60), (120, 60), (120, 87), release=False)
    one.page.wait_for_timeout(100)
    screenshots(one.page, "edit")
    one.page.mouse.up()
    one.status("now has")
    after = one.mask()
    gained = after & ~CAR
    assert not (CAR & ~after).any()
    rows, columns = np.nonzero(gained)
    assert after[65, 90]
    assert columns.min() >= 59
    assert columns.max() <= 121
    assert rows.min() >= 59
    assert rows.max() <= 92


def test_x_keeps_the_other_part(opened: Open, screenshots: Callable[[Page, str], None]) -> None:
    one = opened(3)
    one.press("2")
    one.drag((39, 100), (141, 100), release=False)
    one.press("x")
    one.status("The other part is kept")
    one.page.wait_for_timeout(100)
    screenshots(one.page, "edit_other")
    one.page.mouse.up()
    one.status("now has")
    after = one.mask()
    assert not after[105:].any()
    np.testing.assert_array_equal(after[:97], CAR[:97])


def test_two_clicks_make_a_trace_and_escape_drops_it(opened: Open) -> None:
    one = opened(4)
    one.press("2")
    one.click(39, 100)
    one.status("Click where it ends")
    one.page.mouse.move(*one.place(90, 100), steps=4)
    one.press("Escape")
    assert one.page.evaluate("editor.tool.trace") is None
    one.click(39, 100)
    one.page.mouse.move(*one.place(90, 100), steps=4)
    one.page.wait_for_timeout(450)
    one.page.mouse.move(*one.place(141, 100), steps=4)
    one.press("Space")
    one.status("now has")
    after = one.mask()
    assert not after[:97].any()
    np.testing.assert_array_equal(after[104:], CAR[104:])
    assert len(one.events()) == 1


def test_a_closed_trace_is_a_hole_and_backspace_fills_it(opened: Open) -> None:
    one = opened(5)
    one.press("2")
    one.drag((80, 115), (100, 115), (100, 130), (80, 130), (80, 116))
    one.status("now has")
    assert not one.mask()[118:127, 84:97].any()
    one.page.mouse.move(*one.place(90, 122))
    one.press("Backspace")
    one.status("now has")
    np.testing.assert_array_equal(one.mask(), CAR)


def test_the_brush_adds_takes_away_and_erases(opened: Open, screenshots: Callable[[Page, str], None]) -> None:
    one = opened(6)
    one.click(90, 120)
    one.press("3")
    one.drag((90, 120), (160, 120), release=False)
    one.page.wait_for_timeout(100)
    screenshots(one.page, "brush")
    one.page.mouse.up()
    one.status("now has")
    added = one.mask()
    assert added[120, 155]
    assert not (CAR & ~added).any()
    one.drag((160, 150), (90, 150))
    one.status("now has")
    taken = one.mask()
    assert not taken[150, 60:150].any() or taken.sum() < added.sum()
    assert not (taken & ~added).any()
    one.page.keyboard.down("Control")
    one.drag((70, 110), (90, 110))
    one.page.keyboard.up("Control")
    one.page.wait_for_timeout(100)
    assert not one.mask()[110, 72:88].any()
    assert [event["tool"] for event in one.events()] == ["brush add", "brush erase", "brush erase"]


def test_the_brush_changes_its_size(opened: Open) -> None:
    one = opened(1)
    one.press("3")
    size = one.page.locator(".size")
    expect(size).to_have_text("Brush 15 px")
    one.press("]")
    expect(size).to_have_text("Brush 18 px")
    one.press("[", "9")
    expect(size).to_have_text("Brush 13 px")
    one.press("0")
    expect(size).to_have_text("Brush 16 px")
    one.page.mouse.move(*one.place(100, 100))
    one.page.keyboard.down("Alt")
    one.page.mouse.wheel(0, -100)
    one.page.keyboard.up("Alt")
    expect(size).to_have_text("Brush 19 px")
    assert one.page.locator(".brush-circle").is_visible()


def test_a_new_polygon_asks_for_its_name(opened: Open, screenshots: Callable[[Page, str], None]) -> None:
    one = opened(7)
    one.press("n")
    for point in ((20, 20), (60, 20), (60, 60), (20, 60)):
        one.click(*point)
    screenshots(one.page, "new")
    one.press("Backspace")
    one.click(30, 60)
    one.click(20, 20)
    name = one.page.get_by_label("What is it?")
    expect(name).to_be_visible()
    screenshots(one.page, "name")
    assert (
        one.page.locator("#category-names option").evaluate_all("all => all.map(one => one.value)")
        == [
            "<b>bold</b>",
            "car",
            "dog",
        ]
        or one.page.locator("#category-names option").count() == 3
    )
    one.press("Escape")
    expect(name).to_have_count(0)
    assert one.page.evaluate("editor.tool.corners.length") == 4
    one.press("Enter")
    name.fill("  a   tree ")
    one.press("Enter")
    expect(one.page.locator(".objects [aria-current]")).to_contain_text("a tree")
    tree = one.mask("a tree")
    assert tree[20:59, 31:59].all()
    assert tree.sum() < 40 * 40


def test_delete_rename_undo_and_redo_survive_a_reload(opened: Open) -> None:
    one = opened(8)
    start = one.objects()
    one.click(90, 120)
    one.press("r")
    one.page.get_by_label("What is it?").fill("lorry")
    one.press("Enter")
    one.press("Delete")
    one.status("is deleted")
    one.click(230, 50)
    one.press("Shift+G", "Delete")
    one.saved()
    assert [item["category"] for item in one.objects()] == ["<b>bold</b>"]
    one.page.reload()
    one.wait()
    one.press("u", "Control+z", "u", "u")
    one.saved()
    expect(one.page.locator(".objects li")).to_have_count(3)
    assert [(item["category"], item["mask"]) for item in one.objects()] == [
        (item["category"], item["mask"]) for item in start
    ]
    one.page.reload()
    one.wait()
    one.press("y", "Control+Shift+Z")
    one.saved()
    assert [item["category"] for item in one.objects()] == ["dog", "<b>bold</b>"]
    events = one.events()
    assert [bool(event["undoes"]) for event in events[4:8]] == [True] * 4
    assert [bool(event["redoes"]) for event in events[8:]] == [True] * 2


def test_snapping_moves_a_contour_to_the_edge(opened: Open) -> None:
    one = opened(9)
    one.click(90, 120)
    one.press("Shift+G", "Shift+G")
    grown = one.mask()
    one.press("g")
    until(one.page, "editor.history.done.length === 3")
    snapped = one.mask()
    assert (snapped ^ CAR).sum() < 0.4 * (grown ^ CAR).sum()


def test_holes_are_filled_and_the_largest_part_is_kept(opened: Open) -> None:
    one = opened(10)
    one.click(230, 45)
    one.press("o")
    one.status("now has")
    np.testing.assert_array_equal(one.mask("dog"), ellipse(230, 80, 45, 45))
    one.press("2")
    one.drag((290, 20), (310, 20), (310, 40), (290, 40), (290, 21))
    one.status("now has")
    assert one.mask("dog")[30, 300]
    one.press("l")
    until(one.page, "editor.history.done.length === 3")
    assert not one.mask("dog")[30, 300]


def test_hiding_by_tap_and_by_hold(opened: Open) -> None:
    one = opened(1)
    one.press("h")
    assert one.page.evaluate("editor.stage.hidden") is True
    one.press("h")
    assert one.page.evaluate("editor.stage.hidden") is False
    one.page.keyboard.down("h")
    assert one.page.evaluate("editor.stage.hidden") is True
    one.page.wait_for_timeout(420)
    one.page.keyboard.up("h")
    assert one.page.evaluate("editor.stage.hidden") is False


def test_the_view_moves_like_a_map(opened: Open) -> None:
    one = opened(1)
    x, y = one.place(230, 80)
    one.page.mouse.move(x, y)
    one.page.mouse.wheel(0, -300)
    until(one.page, "editor.view.zoom > editor.view.fitZoom * 1.2")
    after = one.place(230, 80)
    assert abs(after[0] - x) < 1
    assert abs(after[1] - y) < 1
    one.page.mouse.down()
    one.page.mouse.move(x - 60, y + 30, steps=4)
    one.page.mouse.up()
    moved = one.place(230, 80)
    assert abs(moved[0] - (x - 60)) < 1
    assert abs(moved[1] - (y + 30)) < 1
    one.press("2")
    one.page.keyboard.down("Space")
    one.page.mouse.down()
    one.page.mouse.move(x, y, steps=4)
    one.page.mouse.up()
    one.page.keyboard.up("Space")
    assert abs(one.place(230, 80)[0] - x) < 1
    assert one.events() == []
    one.press(*["q"] * 30)
    assert one.page.evaluate("editor.view.zoom / editor.view.fitZoom") == pytest.approx(0.75)
    one.press(*["e"] * 40)
    assert one.page.evaluate("editor.view.zoom") == pytest.approx(one.page.evaluate("editor.view.mostZoom"))
    one.press("Home")
    assert one.page.evaluate("editor.view.zoom / editor.view.fitZoom") == pytest.approx(1)


def test_everything_by_keyboard_alone(opened: Open, screenshots: Callable[[Page, str], None]) -> None:
    one = opened(11)
    one.press("j")
    expect(one.page.locator(".objects [aria-current]")).to_contain_text("car")
    one.press("4", "m")
    start = one.page.evaluate("[editor.cross.x, editor.cross.y]")
    one.press("Enter", *["ArrowRight"] * 6, "Enter", *["ArrowDown"] * 6, "Enter")
    screenshots(one.page, "cross")
    one.page.wait_for_timeout(550)
    one.press(*["ArrowUp"] * 6, *["ArrowLeft"] * 6, "Enter")
    one.page.get_by_label("What is it?").fill("cat")
    one.press("Enter")
    cat = one.mask("cat")
    assert cat.sum() > 20
    assert cat[int(start[1]) + 1, int(start[0]) + 8]
    # The brush is pressed and let go; the edit tool takes two presses.
    one.press("3", "Enter", *["ArrowRight"] * 3, "Enter")
    one.status("now has")
    assert one.mask("cat").sum() != cat.sum()
    one.press("m")
    assert one.page.evaluate("editor.cross.on") is False


def test_images_are_turned_and_searched_by_category(opened: Open) -> None:
    one = opened(12)
    one.press("PageDown")
    expect(one.page.locator(".file")).to_have_text("scene_13.png")
    until(one.page, "!document.querySelector('.stage').hasAttribute('aria-busy')")
    one.press("PageUp")
    expect(one.page.locator(".file")).to_have_text("scene_12.png")
    until(one.page, "!document.querySelector('.stage').hasAttribute('aria-busy')")
    one.page.go_back()
    expect(one.page.locator(".file")).to_have_text("scene_13.png")
    one.page.goto(f"{one.server.address}/d/1/1")
    one.wait()
    one.page.get_by_label("Only images with this category").select_option(label="dog (23)")
    one.press("PageDown")
    expect(one.page.locator(".file")).to_have_text("scene_3.png")
    until(one.page, "!document.querySelector('.stage').hasAttribute('aria-busy')")
    one.page.get_by_label("State of the image").select_option("finished")
    one.page.wait_for_timeout(200)
    assert one.server.get("/api/datasets/1/images/3")["state"] == "finished"
    before = one.server.get("/api/datasets/1/images/4")["state"]
    # After a choice with the mouse the keys mean the image; in the list they turn pages and choose nothing.
    assert one.page.evaluate("document.activeElement.className") == "stage"
    one.page.get_by_label("State of the image").focus()
    one.press("PageDown")
    expect(one.page.locator(".file")).to_have_text("scene_4.png")
    one.press("PageUp")
    expect(one.page.locator(".file")).to_have_text("scene_3.png")
    until(one.page, "!document.querySelector('.stage').hasAttribute('aria-busy')")
    assert [one.server.get(f"/api/datasets/1/images/{image}")["state"] for image in (3, 4)] == ["finished", before]
    one.page.get_by_label("Filter the list by category").fill("DO")
    expect(one.page.locator(".objects li:visible")).to_have_count(1)


@pytest.mark.parametrize(("image", "choice"), [(14, "Keep mine"), (15, "Take theirs")])
def test_two_tabs_change_one_object(
    opened: Open, watched: Watched, image: int, choice: str, screenshots: Callable[[Page, str], None]
) -> None:
    context = watched.context()
    first, second = opened(image, context), opened(image, context)
    for one, key in ((first, "Shift+G"), (second, "Shift+S")):
        one.page.bring_to_front()
        one.click(90, 120)
        one.press(key)
        one.status("now has")
    expect(second.page.get_by_role("dialog")).to_contain_text("was changed somewhere else")
    screenshots(second.page, "conflict")
    grown, shrunk = first.mask(), second.page.evaluate("editor.scene.current.area")
    second.page.get_by_role("button", name=choice).click()
    expect(second.page.get_by_role("dialog")).to_have_count(0)
    mask = second.mask()
    if choice == "Keep mine":
        assert mask.sum() == shrunk
    else:
        np.testing.assert_array_equal(mask, grown)
        assert second.page.evaluate("editor.scene.current.area") == grown.sum()
    second.press("Shift+G")
    second.status("now has")
    assert second.mask().sum() > mask.sum()


def test_a_server_that_dies_costs_nothing(
    opened: Open, watched: Watched, server: LabelServer, screenshots: Callable[[Page, str], None]
) -> None:
    context = watched.context()
    one, closed = opened(16, context), opened(17, context)
    for tab in (closed, one):
        tab.page.bring_to_front()
        tab.click(90, 120)
    one.press("Shift+G")
    one.saved()
    server.kill()
    one.press("Shift+G", "Shift+G", "u")
    expect(one.page.locator(".saving")).to_have_text("3 not saved yet")
    closed.page.bring_to_front()
    closed.press("Shift+G")
    expect(closed.page.locator(".saving")).to_have_text("1 not saved yet")
    closed.page.wait_for_timeout(200)
    screenshots(closed.page, "offline")
    closed.page.close()
    server.start()
    # What waits is sent again by itself, and the undo made without the server is known as one.
    expect(one.page.locator(".saving")).to_have_text("saved", timeout=20_000)
    events = one.events()
    assert [event["kind"] for event in events] == ["edit"] * 4
    assert events[3]["undoes"] == events[2]["seq"]
    one.page.bring_to_front()
    one.page.reload()
    one.wait()
    one.press("u", "u")
    np.testing.assert_array_equal(one.mask(), CAR)
    # The closed tab's change is sent by the next page, before that shows the image.
    again = opened(17, context)
    assert len(again.events()) == 1
    assert again.page.evaluate("editor.scene.items.values().next().value.area") > CAR.sum()


@pytest.mark.parametrize(("width", "height", "name"), [(390, 780, "phone"), (3840, 2160, "4k")])
def test_small_and_large_windows(
    opened: Open, width: int, height: int, name: str, screenshots: Callable[[Page, str], None]
) -> None:
    one = opened(18 if name == "phone" else 19, width=width, height=height, has_touch=name == "phone")
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    assert one.page.evaluate("document.documentElement.scrollHeight") <= height
    one.page.get_by_role("button", name="Edit", exact=True).click()
    screenshots(one.page, name)
    one.drag((39, 100), (141, 100))
    one.status("now has")
    assert one.mask().sum() < CAR.sum()
    small = one.page.locator("button:visible").evaluate_all(
        "all => all.filter(one => one.offsetWidth < 44 || one.offsetHeight < 44).map(one => one.outerHTML)"
    )
    assert small == []
    if name == "phone":
        one.page.get_by_role("button", name="Objects").click()
        expect(one.page.locator(".objects")).to_be_visible()
        screenshots(one.page, "phone_list")


def test_a_reader_looks_and_changes_nothing(opened: Open, watched: Watched, server: LabelServer) -> None:
    context = watched.context()
    session = server.get("/api/session")
    session["annotator"]["role"] = "reader"
    context.route("**/api/session", lambda route: route.fulfill(json=session))
    one = opened(21, context)
    assert one.page.locator(".tools button").evaluate_all("all => all.map(one => one.textContent)") == ["Select"]
    one.click(90, 120)
    expect(one.page.locator(".objects [aria-current]")).to_contain_text("car")
    one.press("Delete", "2", "Shift+G", "u", "Backspace")
    one.page.mouse.dblclick(*one.place(90, 120))
    one.page.wait_for_timeout(200)
    assert one.events() == []
    expect(one.page.locator(".objects li")).to_have_count(3)


def test_an_image_that_cannot_be_shown_is_told(opened: Open, watched: Watched) -> None:
    context = watched.context()
    context.route("**/pixels", lambda route: route.fulfill(status=200, content_type="image/png", body=b"no image"))
    one = opened(22, context)
    expect(one.page.locator(".toast")).to_contain_text("cannot be shown")
    expect(one.page.locator(".objects li")).to_have_count(3)


def test_turning_a_page_without_the_server_keeps_the_image(opened: Open, watched: Watched) -> None:
    context = watched.context()
    one = opened(23, context)
    context.set_offline(True)
    one.press("PageDown")
    expect(one.page.locator(".toast")).to_contain_text("cannot be reached")
    expect(one.page.locator(".file")).to_have_text("scene_23.png")
    context.set_offline(False)
    one.press("PageDown")
    expect(one.page.locator(".file")).to_have_text("scene_24.png")


def test_two_fingers_zoom_and_drop_the_trace(opened: Open, watched: Watched) -> None:
    one = opened(20, watched.context(390, 780, has_touch=True))
    one.page.get_by_role("button", name="Edit", exact=True).click()
    before = one.page.evaluate("editor.view.zoom")
    session = one.page.context.new_cdp_session(one.page)
    x, y = one.place(90, 120)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        session.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": px, "y": py, "id": n} for n, (px, py) in enumerate(points)]},
        )

    touch("touchStart", (x - 20, y))
    touch("touchMove", (x - 25, y))
    touch("touchStart", (x - 25, y), (x + 20, y))
    for step in range(1, 6):
        touch("touchMove", (x - 25 - 8 * step, y), (x + 20 + 8 * step, y))
    touch("touchEnd")
    until(one.page, "before => editor.view.zoom > before * 1.5", before)
    assert one.page.evaluate("editor.tool.trace") is None
    assert one.events() == []
