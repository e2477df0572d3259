"""The question pages and those around them, by mouse and by keyboard, in a real browser on a waiting iteration."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ..unit.labelmelite.loop.conftest import make_run
from .conftest import LabelServer, Watched

pytestmark = pytest.mark.browser

PAGES = ["/", "/questions", "/edit", "/review", "/tree", "/map", "/progress", "/help"]


def _server(folder: Path, *, tokens: bool = False) -> LabelServer:
    (folder / "run").mkdir()
    make_run(folder / "run")
    # A browser that is driven by a program answers faster than anybody can look.
    (folder / "settings.yaml").write_text("loop: {least_seconds: 0}\n", encoding="utf-8")
    arguments = ["--run", str(folder / "run"), "--iteration", "1", "--settings", str(folder / "settings.yaml")]
    return LabelServer(arguments, folder / "data", tokens=tokens)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """A server on an iteration that waits for answers."""
    folder = tmp_path_factory.mktemp("people")
    one = _server(folder)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def asked(watched: Watched) -> Page:
    """The question page with its first mask in sight."""
    page = watched.page("/questions")
    expect(page.locator(".cell.now")).to_be_visible()
    return page


def place(page: Page) -> str:
    return page.locator(".cell.now .place").inner_text()


def saved(page: Page) -> None:
    expect(page.locator(".saving")).to_have_text("saved")


def answers(server: LabelServer) -> list[dict[str, Any]]:
    return list(server.get("/api/review?offset=0&limit=1000")["answers"])


def test_a_task_is_answered_from_the_keyboard_alone(asked: Page, server: LabelServer) -> None:
    before = len(answers(server))
    count = int(place(asked).split(" of ")[1])
    expect(asked.get_by_role("button", name=re.compile("^Submit"))).to_be_disabled()
    asked.keyboard.press("y")
    if count > 1:
        assert place(asked).startswith("2 of")
        asked.keyboard.press("b")
        asked.keyboard.press("ArrowLeft")
        expect(asked.locator(".cell.now .verdict")).to_have_text(
            "✗ no: bad boundary" if count == 2 else re.compile("no")
        )
        asked.keyboard.press("Space")
        expect(asked.locator(".cell.now")).to_have_attribute("data-reply", "yes")
        asked.keyboard.press("ArrowRight")
    for _ in range(count):
        if asked.locator(".cell.now").get_attribute("data-reply") is None:
            asked.keyboard.press("n")
        else:
            asked.keyboard.press("ArrowRight")
    saved(asked)
    asked.keyboard.press("Control+Enter")
    expect(asked.locator(".toast.problem")).to_have_count(0)
    expect(asked.locator(".cell.now .verdict")).to_be_hidden()
    assert len(answers(server)) == before + count


def test_a_reload_in_the_middle_finds_what_was_answered(asked: Page) -> None:
    asked.keyboard.press("y")
    saved(asked)
    open_now = asked.locator(".left").inner_text()
    asked.reload()
    expect(asked.locator(".cell.now")).to_be_visible()
    assert asked.locator(".left").inner_text() == open_now
    asked.keyboard.press("ArrowLeft")
    expect(asked.locator(".cell.now")).to_have_attribute("data-reply", "yes")


def test_answers_outlive_a_server_that_is_killed(asked: Page, server: LabelServer) -> None:
    before = {(one["task"], one["item"]["id"]): one["reply"] for one in answers(server)}
    server.kill()
    asked.keyboard.press("ArrowLeft")
    asked.keyboard.press("ArrowLeft")
    asked.keyboard.press("n")
    asked.keyboard.press("y")
    expect(asked.locator(".saving")).to_have_text(re.compile("not saved yet"))
    server.start()
    expect(asked.locator(".saving")).to_have_text("saved", timeout=20_000)
    after = {(one["task"], one["item"]["id"]): one["reply"] for one in answers(server)}
    changed = {key for key in after if before.get(key) != after[key]}
    assert {after[key] for key in changed} == {"yes", "no"}
    assert set(before) <= set(after)


def test_answers_of_a_closed_tab_are_sent_by_the_next_page(watched: Watched, server: LabelServer) -> None:
    context = watched.context()
    page = watched.page("/questions", context)
    expect(page.locator(".cell.now")).to_be_visible()
    context.route("**/answers", lambda route: route.abort())
    page.keyboard.press("n")
    expect(page.locator(".saving")).to_have_text(re.compile("not saved yet"))
    before = len(answers(server))
    page.close()
    context.unroute("**/answers")
    watched.page("/help", context)
    for _ in range(100):
        if len(answers(server)) > before:
            break
        context.pages[0].wait_for_timeout(50)
    assert len(answers(server)) == before + 1


def test_a_grid_is_toggled_by_numbers_and_clicks(asked: Page, screenshots: Callable[[Page, str], None]) -> None:
    asked.keyboard.press("g")
    expect(asked.locator(".stage.grid")).to_be_visible()
    cells = asked.locator(".stage.grid .cell")
    asked.keyboard.press("1")
    expect(cells.nth(0)).to_have_attribute("data-reply", re.compile("yes|no"))
    first = cells.nth(0).get_attribute("data-reply")
    cells.nth(0).click()
    expect(cells.nth(0)).not_to_have_attribute("data-reply", first or "")
    screenshots(asked, "grid")


def test_hold_keys_hide_the_mask_and_show_the_whole_image(asked: Page) -> None:
    pixels = "() => { const c = document.querySelector('.cell.now canvas'); return c.toDataURL(); }"
    expect(asked.locator(".cell.now canvas").first).to_be_visible()
    asked.wait_for_timeout(300)
    shown = asked.evaluate(pixels)
    asked.keyboard.down("h")
    assert asked.evaluate(pixels) != shown
    asked.keyboard.up("h")
    assert asked.evaluate(pixels) == shown
    asked.keyboard.down("z")
    expect(asked.locator(".whole")).to_be_visible()
    asked.keyboard.up("z")
    expect(asked.locator(".whole")).to_have_count(0)


def test_the_definition_is_a_dialogue_that_escape_closes(asked: Page) -> None:
    asked.keyboard.press("e")
    dialogue = asked.get_by_role("dialog")
    expect(dialogue).to_contain_text("Of the kind")
    asked.keyboard.press("y")
    expect(asked.locator(".cell.now .verdict")).to_be_hidden()
    asked.keyboard.press("Escape")
    expect(dialogue).to_have_count(0)


def test_what_is_said_to_those_who_do_not_see_it(asked: Page) -> None:
    asked.keyboard.press("n")
    expect(asked.locator("#live")).to_have_text(re.compile(r"question \d+ of \d+, kind \d, answer ✗ no"))


def test_an_earlier_answer_is_changed_on_its_page(watched: Watched, server: LabelServer) -> None:
    page = watched.page("/review")
    first = page.locator(".stage.grid > div").first
    expect(first).to_be_visible()
    changed = answers(server)[0]
    other = "no" if changed["reply"] == "yes" else "yes"
    first.get_by_role("button", name=re.compile("Yes" if other == "yes" else "No")).click()
    expect(first.locator(".cell")).to_have_attribute("data-reply", other)
    saved(page)
    now = {(one["task"], one["item"]["id"]): one["reply"] for one in answers(server)}
    assert now[changed["task"], changed["item"]["id"]] == other
    # The truth of a gold mask is the answer as it is now.
    page.route("**/api/gold", lambda route: route.fulfill(status=200, body="{}"))
    with page.expect_request("**/api/gold") as asked:
        first.get_by_role("button", name=re.compile("Use as gold")).click()
    assert asked.value.post_data_json["reply"] == other


def test_keys_can_be_changed_and_the_browsers_own_cannot(watched: Watched) -> None:
    page = watched.page("/help")
    row = page.get_by_role("row", name=re.compile("^Next image"))
    row.get_by_role("button").click()
    page.keyboard.press("Control+w")
    expect(page.locator(".toast.problem")).to_contain_text("belongs to the browser")
    row.get_by_role("button").click()
    page.keyboard.press("]")
    expect(page.locator(".toast.problem").last).to_contain_text("already means")
    row.get_by_role("button").click()
    page.keyboard.press(";")
    expect(row).to_contain_text(";")
    page.reload()
    expect(page.get_by_role("row", name=re.compile("^Next image"))).to_contain_text(";")
    page.get_by_role("button", name="Back to the first keys").click()
    expect(page.get_by_role("row", name=re.compile("^Next image"))).to_contain_text("PageDown")


def test_clusters_lead_from_a_category_to_its_masks_and_back(
    watched: Watched, screenshots: Callable[[Page, str], None]
) -> None:
    page = watched.page("/tree")
    page.get_by_role("link", name="kind 1", exact=True).click()
    expect(page.get_by_role("heading", name="It splits into")).to_be_visible()
    expect(page.locator(".stage.grid .cell canvas").first).to_be_visible()
    page.get_by_role("link", name=re.compile("^cluster")).first.click()
    expect(page.get_by_role("link", name="kind 1", exact=True)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("kind 1")
    screenshots(page, "tree")


def test_a_lasso_picks_masks_which_are_asked_next(watched: Watched, screenshots: Callable[[Page, str], None]) -> None:
    page = watched.page("/map")
    chart = page.get_by_role("application")
    expect(page.locator(".legend")).to_contain_text("masks on the two directions")
    box = chart.bounding_box()
    assert box is not None
    corners = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    expect(page.locator(".bar .left")).to_have_text(re.compile(r"\d+ picked"))
    screenshots(page, "map")
    page.get_by_role("button", name="Ask about these").click()
    expect(page.locator(".toast")).to_contain_text("asked about next")


def test_the_lasso_works_without_a_mouse(watched: Watched) -> None:
    page = watched.page("/map")
    expect(page.locator(".legend")).to_contain_text("masks on the two directions")
    page.get_by_role("application").focus()
    for key, times in (("ArrowLeft", 45), ("ArrowUp", 25), ("ArrowRight", 90), ("ArrowDown", 50), ("ArrowLeft", 90)):
        for _ in range(times):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
    page.keyboard.press("c")
    expect(page.locator(".bar .left")).to_have_text(re.compile(r"\d+ picked"))
    page.keyboard.press("Escape")
    expect(page.locator(".bar .left")).to_have_text("nothing picked")


@pytest.mark.parametrize(("width", "height"), [(390, 780), (3840, 2160)])
def test_pages_fit_a_phone_and_a_4k_screen(
    watched: Watched, width: int, height: int, screenshots: Callable[[Page, str], None]
) -> None:
    context = watched.context(width, height)
    for path in PAGES:
        page = watched.page(path, context)
        expect(page.locator("main > *").first).to_be_visible()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        screenshots(page, f"{path.strip('/') or 'datasets'}_{width}")
        page.close()


def test_no_page_breaks_a_rule_of_accessibility(watched: Watched, node_modules: Path) -> None:
    axe = (node_modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    found = []
    context = watched.context()
    for path in PAGES:
        page = watched.page(path, context)
        expect(page.locator("main > *").first).to_be_visible()
        page.wait_for_timeout(300)
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [(path, one["id"], one["nodes"][0]["html"][:120]) for one in result["violations"]]
        page.close()
    assert found == []


# --- several people ---------------------------------------------------------------------------------------------------


@pytest.fixture
def with_tokens(tmp_path: Path) -> Iterator[LabelServer]:
    """A server that asks who comes; `owner_link` is what it printed."""
    one = _server(tmp_path, tokens=True)
    one.start()
    yield one
    one.stop()


def test_two_invited_annotators_get_different_masks(browser: Browser, with_tokens: LabelServer) -> None:
    watched = Watched(browser, with_tokens.address)
    owner = watched.context().new_page()
    owner.goto(with_tokens.owner_link)
    owner.wait_for_url("**/")
    contexts = [_invited(watched, owner, name) for name in ("Ada", "Ben")]
    tasks = []
    for context in contexts:
        page = context.pages[0]
        expect(page.locator(".cell.now")).to_be_visible()
        tasks.append(page.evaluate("fetch('/api/review?offset=0&limit=1').then(r => r.status)"))
        page.keyboard.press("y")
        saved(page)
    assert tasks == [200, 200]
    keys = [_first_mask(context.pages[0]) for context in contexts]
    assert keys[0] != keys[1]
    owner.goto(f"{with_tokens.address}/progress")
    expect(owner.get_by_role("row", name=re.compile("^Ada .*working"))).to_be_visible()
    expect(owner.get_by_role("row", name=re.compile("^Ben .*working"))).to_be_visible()
    for context in (*contexts, owner.context):
        context.close()
    assert watched.problems == []


def _invited(watched: Watched, owner: Page, name: str) -> BrowserContext:
    """Invite somebody on the owner's page and open the link in a browser of their own."""
    owner.goto(f"{watched.address}/progress")
    owner.get_by_label("Name").fill(name)
    owner.get_by_role("button", name="Make a link").click()
    link = owner.locator("code").inner_text()
    assert "/join#" in link
    context = watched.context()
    page = context.new_page()
    page.goto(link)
    page.wait_for_url("**/questions")
    assert "#" not in page.url
    return context


def _first_mask(page: Page) -> str:
    return str(
        page.evaluate("fetch('/api/review?offset=0&limit=1').then(r => r.json()).then(r => r.answers[0].item.crop_url)")
    )
