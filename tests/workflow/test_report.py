"""report.html in a real browser: it opens offline, shows every figure and asks no other host."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from segloop.collection.explanation import explain
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.reporting.explanation_page import explanation_text, write_explanation_page
from segloop.running import build_report

from ..loops import TINY, Loop, same_results

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
OF_THE_RUN = ("results/summary.json", "results/ledger.json", "results/run.json", "results/census.json")
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


def test_a_run_that_has_not_ended_is_reported_as_far_as_it_is_done(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(tmp_path / "run")
    # Cut off in the second iteration: trained, partly predicted; nothing of the whole run is there.
    loop.remove("results/iter_2", "results/*.json", "results/figures", "results/control", "results/upper_bound")
    again = [sys.executable, "-m", "segloop", "report", "--configfile", str(loop.configfile)]
    again += ["--directory", str(loop.directory), "--output", str(tmp_path / "part.html")]
    done = subprocess.run(again, env=loop.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "1 of 2 iterations are done: the report is of these" in done.stdout
    assert "<html" in (tmp_path / "part.html").read_text(encoding="utf-8")
    assert not (loop.directory / "results" / "iter_2").exists()
    assert not (loop.directory / "results" / "control").exists()
    table = (loop.directory / "results/figures/table31.html").read_text(encoding="utf-8")
    assert "The run has not ended: 1 of 2 iterations are done." in table
    assert (
        same_results(undisturbed, loop, ("results/iter_2", "results/control", "results/upper_bound", *OF_THE_RUN)) == []
    )
    # Going on, nothing of the first iteration is made again; the whole run's own files are, without `until`.
    planned = loop.run("-n", "-q", "rules")
    assert "summarise_run" in planned
    assert re.search(r"^predict_shard +2$", planned, re.MULTILINE)


def test_nothing_is_reported_of_a_run_that_has_done_nothing(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="no iteration that is done"):
        build_report(profile="local", configfile=TINY, directory=tmp_path, output=tmp_path / "report.html")


def test_the_embedding_map_shows_a_mask_where_the_cursor_is(undisturbed: Loop, chromium: str) -> None:
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((undisturbed.directory / "results/iter_1/figures/map.html").as_uri())
        chart = page.locator("canvas, svg").first
        chart.wait_for()
        box = chart.bounding_box()
        assert box is not None
        for step in range(400):
            x, y = step % 20, step // 20
            page.mouse.move(box["x"] + (x + 0.5) * box["width"] / 20, box["y"] + (y + 0.5) * box["height"] / 20)
            if page.locator("#vg-tooltip-element.visible img").count():
                break
        assert page.locator("#vg-tooltip-element.visible img").get_attribute("src").startswith("data:image/jpeg")
        browser.close()
    assert errors == []


def test_a_mask_is_explained_from_the_tree_down_to_its_answers(undisturbed: Loop, tmp_path: Path) -> None:
    content = read_json(undisturbed.directory / "results" / "iter_1" / "collected.json")
    for one in content["annotations"]:
        found = explain(undisturbed.directory, one["provenance"]["prediction"])
        assert (found.iteration, found.annotation_id) == (1, one["id"])
        assert found.path[0]["size"] >= found.path[-1]["size"] == 1
        assert all(above["size"] > below["size"] for above, below in pairwise(found.path))
        assert [step["node"] for step in found.path if step["decided"]] == [one["provenance"]["node"]]
        assert {answer["answer_id"] for answer in found.answers} == set(one["provenance"]["answers"])
        assert "reply" in found.answers[0]
        assert found.model["weights_sha256"] == one["provenance"]["weights_sha256"]
    write_explanation_page(found, undisturbed.directory, tmp_path / "why.html")
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 2
    assert found.image["file_name"] in explanation_text(found)
    several = read_json(undisturbed.directory / "results" / "iter_2" / "collected.json")["annotations"]
    if several:
        with pytest.raises(SegloopError, match="Say which one by --iteration"):
            explain(undisturbed.directory, "1")
    with pytest.raises(SegloopError, match="no collected mask"):
        explain(undisturbed.directory, "0", iteration=1)
