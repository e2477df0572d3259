import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from segloop.errors import SegloopError
from segloop.reporting import curves
from segloop.reporting.curves import plot_ap, plot_questions, short_count
from segloop.reporting.style import new_figure, style

from .conftest import row

Plot = Callable[..., None]
BOTH = pytest.mark.parametrize("plot", [plot_ap, plot_questions])


def draw(plot: Plot, summary: Path, folder: Path) -> tuple[Path, Path]:
    svg, png = folder / "figure.svg", folder / "figure.png"
    plot(summary=summary, svg=svg, png=png, table=folder / "figure.csv")
    return svg, png


def words(svg: Path) -> str:
    # Letters are outlines; matplotlib leaves each text as a comment.
    return svg.read_text(encoding="utf-8")


@BOTH
def test_both_formats_are_written_and_open(plot: Plot, full: Path, tmp_path: Path) -> None:
    svg, png = draw(plot, full, tmp_path / "new")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    with Image.open(png) as image:
        assert image.size == (1296, 619)
    assert sorted(path.name for path in svg.parent.iterdir()) == ["figure.csv", "figure.png", "figure.svg"]


@BOTH
def test_the_same_run_gives_the_same_bytes(plot: Plot, full: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in draw(plot, full, tmp_path / "a")]
    assert [path.read_bytes() for path in draw(plot, full, tmp_path / "b")] == first


@BOTH
def test_nothing_of_this_machine_stands_in_the_file(plot: Plot, full: Path, tmp_path: Path) -> None:
    svg, _ = draw(plot, full, tmp_path)
    assert "dc:date" not in words(svg)
    assert str(tmp_path) not in words(svg)


def test_the_numbers_stand_beside_the_figures(full: Path, tmp_path: Path) -> None:
    draw(plot_ap, full, tmp_path)
    head, first, *_, last = (tmp_path / "figure.csv").read_text(encoding="utf-8").splitlines()
    assert head == "iteration,ap,ap50,control_ap,control_ap50"
    assert first.startswith("0,")
    assert last.startswith("upper bound,0.353,")
    draw(plot_questions, full, tmp_path)
    lines = (tmp_path / "figure.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["iteration,questions,collected,masks_per_question", "1,800,200,0.25"]


def test_control_and_upper_bound_are_named_where_there_are_any(full: Path, tmp_path: Path) -> None:
    svg, _ = draw(plot_ap, full, tmp_path)
    assert "control (seed set alone)" in words(svg)
    assert "upper bound" in words(svg)
    assert words(svg).count("<!-- average precision (%) -->") == 2


def test_a_run_without_comparison_has_no_legend_of_it(summary: Callable[..., Path], tmp_path: Path) -> None:
    svg, _ = draw(plot_ap, summary(row(0, ap=0.2, ap50=0.4), row(1, ap=0.3, ap50=0.5)), tmp_path)
    assert "control" not in words(svg)
    assert "upper bound" not in words(svg)


@pytest.mark.parametrize(("plot", "message"), [(plot_ap, "has an AP."), (plot_questions, "has asked a question yet.")])
def test_a_run_that_knows_nothing_gives_a_picture_that_says_so(
    plot: Plot, message: str, summary: Callable[..., Path], tmp_path: Path
) -> None:
    svg, _ = draw(plot, summary(row(0)), tmp_path)
    assert message in words(svg)


@BOTH
def test_one_point_zeros_and_missing_values_are_drawn(plot: Plot, summary: Callable[..., Path], tmp_path: Path) -> None:
    path = summary(
        row(0, ap=0.0, ap50=0.0),
        row(1, ap=None, questions=0, collected=0),
        row(2, ap=0.1, questions=5, collected=None, masks_per_question=None),
    )
    draw(plot, path, tmp_path)


@BOTH
def test_a_long_run_is_drawn(plot: Plot, summary: Callable[..., Path], tmp_path: Path) -> None:
    rows = [
        row(n, ap=0.01 * n, ap50=0.02 * n, questions=10**n, collected=9**n, masks_per_question=0.9**n) for n in range(9)
    ]
    draw(plot, summary(*rows), tmp_path)


def test_a_file_that_is_no_summary_is_named(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for content in ("{}", '{"iterations": 3}', '{"iterations": [{}]}', "[]"):
        path.write_text(content)
        with pytest.raises(SegloopError, match=r"summary\.json has no list of iterations"):
            draw(plot_ap, path, tmp_path)
    with pytest.raises(SegloopError, match="does not exist"):
        draw(plot_ap, tmp_path / "none.json", tmp_path)


def test_values_stand_where_the_other_curve_is_not(full: Path) -> None:
    axes = drawn_axes(lambda axes: curves._ap_panel(axes, curves.read_run(full), "ap", ""))
    below = {text.get_text() for text in axes.texts if text.get_va() == "top"}
    assert below == {"18.0", "19.0"}


def test_the_line_of_one_mask_per_question_is_drawn_only_where_it_is_in_reach() -> None:
    near = drawn_axes(lambda axes: curves._yield_bars(axes, [row(1, masks_per_question=0.6)]))
    far = drawn_axes(lambda axes: curves._yield_bars(axes, [row(1, masks_per_question=0.05)]))
    assert [len(axes.lines) for axes in (near, far)] == [1, 0]


def drawn_axes(draw_on: Callable[[Axes], Any]) -> Axes:
    with style():
        axes = new_figure(4, 4).subplots()
        draw_on(axes)
    return axes


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"),
        (950, 3, "950"),
        (4213, 3, "4,213"),
        (9999, 3, "9,999"),
        (82_306, 3, "82.3k"),
        (237_219, 3, "237k"),
        (1_204_000, 3, "1.20M"),
        (46_000_000, 3, "46.0M"),
        (950, 2, "950"),
        (4213, 2, "4.2k"),
        (82_306, 2, "82k"),
        (999_999, 3, "1.00M"),
    ],
)
def test_counts_are_short(value: float, digits: int, text: str) -> None:
    assert short_count(value, digits) == text
