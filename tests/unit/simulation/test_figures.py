from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segloop.reporting.style import BLUE, VERMILLION
from segloop.simulation.figures import draw_cost_curves, mean_curve
from segloop.simulation.replay import Curve, Result

MakeResult = Callable[..., Result]


def curve(*points: tuple[int, int, int, int]) -> Curve:
    return Curve(*np.array(points, np.int64).T)


def draw(folder: Path, results: list[Result]) -> tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    folder.mkdir()
    svg, png = folder / "c.svg", folder / "c.png"
    draw_cost_curves(results, svg, png)
    with Image.open(png) as image:
        pixels = np.asarray(image.convert("RGB"))
    return svg.read_text(), pixels


def shows(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], colour: str) -> bool:
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return bool((pixels == wanted).all(axis=-1).sum() > 50)


@pytest.fixture
def results(make_result: MakeResult) -> list[Result]:
    course = curve((0, 0, 0, 0), (20, 10, 10, 10), (100, 300, 280, 60))
    return [
        make_result(curve=course),
        make_result(curve=course, seed=1, certified=None),
        make_result("thesis", certified=None),
        make_result("score_threshold", questions=0, confirmed=0, certified=None, curve=curve((0, 300, 280, 0))),
        make_result("per_mask", accepted=0, correct=0, confirmed=0, certified=None, curve=curve((100, 0, 0, 0))),
    ]


def test_policies_that_accept_nothing_are_drawn_beside_one_that_asks_nothing(
    tmp_path: Path, make_result: MakeResult
) -> None:
    nothing = {"accepted": 0, "correct": 0, "confirmed": 0, "certified": None}
    results = [
        make_result("certified", **nothing, curve=curve((100, 0, 0, 0))),
        make_result("score_threshold", questions=0, confirmed=0, certified=None, curve=curve((0, 300, 280, 0))),
    ]
    svg, _ = draw(tmp_path / "a", results)
    assert svg


def test_every_policy_is_drawn_in_both_formats(tmp_path: Path, results: list[Result]) -> None:
    svg, pixels = draw(tmp_path / "a", results)
    assert shows(pixels, VERMILLION) and shows(pixels, BLUE)
    assert VERMILLION.lower() in svg.lower()
    again, _ = draw(tmp_path / "b", results)
    assert again == svg
    fewer, _ = draw(tmp_path / "c", results[2:])
    assert fewer != svg


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    svg, pixels = draw(tmp_path / "a", [])
    assert len(svg) > 1000 and not (pixels == 255).all()


def test_policies_without_questions_alone_can_be_drawn(tmp_path: Path, results: list[Result]) -> None:
    _, pixels = draw(tmp_path / "a", [results[3]])
    assert shows(pixels, VERMILLION)


def test_the_mean_holds_each_seed_where_it_ended(make_result: MakeResult) -> None:
    short = make_result(questions=10, curve=curve((0, 0, 0, 0), (10, 100, 100, 10)))
    long = make_result(questions=1000, curve=curve((0, 0, 0, 0), (1000, 300, 200, 10)))
    questions, recall = mean_curve([short, long], "recall")
    assert questions[0] == 1 and questions[-1] == 1000
    assert recall[0] == 0 and recall[-1] == pytest.approx((100 / 500 + 200 / 500) / 2)
    assert recall[np.searchsorted(questions, 500)] == pytest.approx(0.1)
    _, precision = mean_curve([short, long], "precision")
    assert np.isnan(precision[0]) and precision[-1] == pytest.approx((1 + 2 / 3) / 2)
