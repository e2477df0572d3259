"""report.html in a real browser: it opens offline, shows every figure and asks no other host."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from ..loops import Loop

pytestmark = [pytest.mark.workflow, pytest.mark.browser]

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
FIGURES = {
    ("1 Run",): [
        "Table 3.1",
        "Average precision by iteration",
        "Questions and masks by iteration",
        "Figure 2-1: images",
    ],
    ("2 Masks", "iteration 2"): ["Nearest neighbours", "Accepted masks", "Rejected masks", "Undecided masks"],
}
BROKEN = (
    "Array.from(document.images).filter(image => image.complete && image.naturalWidth === 0).map(image => image.src)"
)


def _open(page: Page, address: str, path: tuple[str, ...]) -> str:
    """Click through the menu of the report and return the text of the page."""
    page.goto(address)
    for entry in path:
        page.get_by_text(entry, exact=True).first.click()
        page.wait_for_timeout(300)
    return page.inner_text("body")


def test_the_report_opens_offline_and_shows_every_figure(undisturbed: Loop, tmp_path: Path, chromium: str) -> None:
    report = tmp_path / "report.html"
    undisturbed.run("--report", str(report))
    assert report.stat().st_size < 30_000_000
    foreign: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("request", lambda request: foreign.append(request.url) if request.url.startswith("http") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        for path, figures in FIGURES.items():
            text = _open(page, report.as_uri(), path)
            assert [figure for figure in figures if figure not in text] == []
        page.get_by_text("Accepted masks").first.locator("xpath=ancestor::*[.//a or .//button][1]").locator(
            "a, button"
        ).first.click()
        page.wait_for_timeout(1000)
        assert page.evaluate("document.images.length") > 0
        assert page.evaluate(BROKEN) == []
        browser.close()
    assert foreign == []
    assert errors == []
