"""Annotators from platforms in a real browser: the frame of MTurk with its form, and a study's completion address.

The platform is a stand-in under another name than the server, so that the browser takes it for another site: cookies of
the server are not sent inside its frame, as with the real one.
"""

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page, expect

from labelmelite.crowd import PREVIEW

from .conftest import LabelServer, write_scene

pytestmark = pytest.mark.browser

ITEMS = 3


class Platform(http.server.BaseHTTPRequestHandler):
    """Shows the address of its query in a frame, and takes the final form."""

    def do_GET(self) -> None:
        shown = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("show", [""])[0]
        title = "done" if self.path.startswith("/done") else "platform"
        frame = f'<iframe src="{shown.replace("&", "&amp;")}" width="1200" height="800"></iframe>' if shown else ""
        self._send(f"<!doctype html><title>{title}</title>{frame}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.forms.append((self.path, dict(urllib.parse.parse_qsl(body))))  # type: ignore[attr-defined]
        self._send("<!doctype html><title>submitted</title><p>Thank you from the platform.")

    def _send(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def platform() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Platform) as server:
        server.forms = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def origin(platform: Any) -> str:
    return f"http://localhost:{platform.server_address[1]}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, platform: Any) -> Iterator[LabelServer]:
    """A server on a bundle of three questions, which the stand-in may frame."""
    folder = write_scene(tmp_path_factory.mktemp("crowd"), images=1)
    bundle = json.loads((folder / "annotations.json").read_text())
    for one in bundle["annotations"]:
        one["category_id"] = 1
    (folder / "bundle.json").write_text(json.dumps(bundle))
    settings = {
        "adapter": "mturk",
        "frame_hosts": [origin(platform)],
        "submit_hosts": [origin(platform)],
        "study": {
            "participant": "PID",
            "submission": "SID",
            "completion": f"{origin(platform)}/done?id={{submission}}",
        },
    }
    (folder / "settings.yaml").write_text(json.dumps(settings))
    arguments = ["--bundle", str(folder / "bundle.json"), "--images", str(folder / "images")]
    one = LabelServer([*arguments, "--settings", str(folder / "settings.yaml")], folder / "data", tokens=True)
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def links(browser: Browser, server: LabelServer) -> dict[str, str]:
    """Links of platforms, made by the owner on the page of progress."""
    page = browser.new_context().new_page()
    page.goto(server.owner_link)
    page.wait_for_url(f"{server.address}/")
    # A file of questions has no clusters and no progress of a loop.
    pages = page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()
    assert pages == ["Data sets", "Questions", "Edit", "Keys"]
    made = page.evaluate(
        """async () => {
          const session = await (await fetch("/api/session")).json();
          const headers = { "X-Labelmelite": session.csrf, "Content-Type": "application/json" };
          const ask = async (kind) => {
            const body = JSON.stringify({ name: kind, kind, days: 1 });
            return (await (await fetch("/api/invites", { method: "POST", headers, body })).json()).link;
          };
          return { study: await ask("study"), mturk: await ask("mturk") };
        }"""
    )
    page.context.close()
    return dict(made)


def in_frame(browser: Browser, platform: Any, link: str, **given: str) -> tuple[Page, Frame]:
    shown = f"{link}&{urllib.parse.urlencode(given)}"
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"{origin(platform)}/?{urllib.parse.urlencode({'show': shown})}")
    frame = page.frames[1]
    return page, frame


def answer_all(page: Page, cell: Any) -> None:
    expect(cell.locator(".cell.now")).to_be_visible()
    cell.locator(".cell.now").click()
    for _ in range(ITEMS):
        page.wait_for_timeout(800)  # nobody answers faster than the server believes
        page.keyboard.press("y")
    expect(cell.locator(".saving")).to_have_text("saved")
    page.keyboard.press("Control+Enter")


def test_a_worker_answers_in_the_frame_and_the_form_goes_to_the_platform(
    browser: Browser, platform: Any, links: dict[str, str], server: LabelServer
) -> None:
    page, frame = in_frame(
        browser,
        platform,
        links["mturk"],
        assignmentId="A1",
        hitId="H1",
        workerId="W1",
        turkSubmitTo=origin(platform),
    )
    answer_all(page, frame)
    expect(frame.get_by_text("Thank you from the platform.")).to_be_visible()
    ((path, form),) = platform.forms
    assert path == "/mturk/externalSubmit"
    assert form["assignmentId"] == "A1" and len(form["annotator"]) == 12
    # No cookie was there to be used: the frame is another site's.
    assert page.context.cookies(server.address) == []
    page.context.close()


def test_a_worker_who_only_looks_cannot_submit(browser: Browser, platform: Any, links: dict[str, str]) -> None:
    before = len(platform.forms)
    page, frame = in_frame(browser, platform, links["mturk"], assignmentId=PREVIEW, hitId="H1")
    expect(frame.locator(".cell.now")).to_be_visible()
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(300)
    expect(frame.locator(".cell.now")).to_be_visible()
    assert len(platform.forms) == before
    page.context.close()


def test_a_participant_ends_at_the_completion_address(
    browser: Browser, platform: Any, links: dict[str, str], server: LabelServer
) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{links['study']}&PID=p1&SID=s1")
    expect(page.locator(".cell.now")).to_be_visible()
    # Each load of the page opens the link again, in a browser that is signed in.
    page.reload()
    answer_all(page, page)
    page.wait_for_url(f"{origin(platform)}/done?id=s1")
    (result,) = [path for path in (server.data / "bundles").glob("*.json") if "yesno" in path.read_text()][-1:]
    done = json.loads(Path(result).read_text())["annotations"]
    assert [one["completed_task"]["accepted"] for one in done] == [True] * ITEMS
    page.context.close()


def test_a_platforms_link_that_is_not_valid_shows_why(browser: Browser, server: LabelServer) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{server.address}/study?token=unknown&PID=p2&SID=s2")
    expect(page.get_by_role("alert")).to_contain_text("Open the link that you were sent")
    page.context.close()


def test_no_other_site_may_frame_the_pages(browser: Browser, links: dict[str, str], platform: Any) -> None:
    page = browser.new_context().new_page()
    foreign = f"http://127.0.0.1:{platform.server_address[1]}"
    page.goto(f"{foreign}/?{urllib.parse.urlencode({'show': links['mturk']})}")
    page.wait_for_timeout(500)
    assert page.frames[1].url.startswith("chrome-error:") or page.frames[1].locator(".cell").count() == 0
    page.context.close()
