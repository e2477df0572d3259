import copy
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segloop.clustering.building import cluster_predictions
from segloop.clustering.separability import measure_separability
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.reporting.separability import plot_separability, separability_line

from .conftest import Iteration, match

Measured = dict[str, Any]


@pytest.fixture
def known() -> Measured:
    """A measurement as a large run has it."""
    histogram = {"from": [1, 2, 4, 8, 16], "count": [0, 3, 0, 1, 0]}
    quantiles = {"0.0": 2, "0.25": 2, "0.5": 3, "0.75": 3, "0.9": 9, "1.0": 9}
    sizes = {"count": 4, "largest": 9, "quantiles": quantiles, "histogram": histogram}
    category = {"category": 1, "predictions": 9000, "known": 500, "good_share": 0.31, "queries": 400, "auc": 0.777}
    unknown = {"category": 9, "predictions": 40, "known": 0, "good_share": None, "queries": 0, "auc": None}
    return {
        "schema_version": 1,
        "iteration": 2,
        "predictions": {
            "indexed": 9100,
            "repeat_earlier_iterations": 50,
            "copies": 1,
            "without_embedding": 9,
            "clustered": 9040,
            "near_duplicates": 1,
            "near_duplicate_iou": 0.8,
        },
        "known": {"source": "truth", "masks": 500, "good_share": 0.3, "held": 500, "queries": 500, "neighbours": 30},
        "auc": {"neighbours": 0.8123, "standard_error": 0.012, "score": 0.7, "predicted_iou": 0.75, "reason": None},
        "by_share": [
            {"from": 0.1, "masks": 300, "good": 30, "mean_share": 0.14},
            {"from": 0.9, "masks": 200, "good": 180, "mean_share": 0.93},
        ],
        "categories": sizes | {"of_the_largest": [category, unknown]},
        "partitions": sizes,
        "tree": {
            "leaves": 9040,
            "depth": {"mean": 20.4, "median": 19, "max": 1200, "histogram": {"width": 20, "leaves": [5, 0, 9]}},
            "inversions": 1,
            "near_copies": {"height": 0.001, "merges": 3},
        },
        "how": {"linkage": "average"},
    }


@pytest.fixture
def unknown(known: Measured) -> Measured:
    """The same in a run of which nothing is known."""
    changed = copy.deepcopy(known)
    changed["known"] |= {"source": None, "masks": 0, "good_share": None, "held": 0, "queries": 0, "neighbours": 0}
    changed["auc"] = dict.fromkeys(known["auc"]) | {"reason": "neither the truth nor any answer is known yet"}
    changed["by_share"] = []
    for row in changed["categories"]["of_the_largest"]:
        row |= {"known": 0, "good_share": None, "queries": 0, "auc": None}
    return changed


@pytest.fixture
def draw(tmp_path: Path) -> Callable[[Measured], tuple[str, Path]]:
    """Draw a measurement; return the SVG (letters are outlines, each text stands as a comment) and where the PNG is."""

    def make(measured: Measured, folder: str = "figures") -> tuple[str, Path]:
        seed_set, path = tmp_path / "train.json", tmp_path / "separability.json"
        write_json(
            seed_set, {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a" * 12 + "-" + "b" * 12}]}
        )
        write_json(path, measured)
        svg, png = tmp_path / folder / "a.svg", tmp_path / folder / "a.png"
        plot_separability(separability=path, seed_set=seed_set, svg=svg, png=png, table=svg.with_suffix(".csv"))
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
        return svg.read_text(encoding="utf-8"), png

    return make


def test_the_figure_says_what_was_measured(draw: Any, known: Measured) -> None:
    words, png = draw(known)
    assert "<!-- kNN-AUC 0.81 ± 0.02, score alone 0.70 -->" in words
    assert "<!-- predicted IoU alone 0.75 -->" in words
    assert "<!-- all known masks: 30 % -->" in words
    assert "<!-- 9,000, 31 % good, AUC 0.78 -->" in words
    assert "<!-- aaaaaaaaaaa…bbbbbbbbbb -->" in words
    assert "<!-- category 9 -->" in words
    assert "<!-- Depth: 20 on average, at most 1,200 -->" in words
    assert "<!-- 4 partitions, the largest of 9 -->" in words
    assert "1 exact copy, 9 without an embedding" in words
    assert "1 near-duplicate (mask IoU ≥ 0.8)" in words
    with Image.open(png) as image:
        assert image.size == (1440, 1094)


def test_the_same_measurement_gives_the_same_bytes(draw: Any, known: Measured) -> None:
    first, second = draw(known, "first"), draw(known, "second")
    assert first[0] == second[0]
    assert first[1].read_bytes() == second[1].read_bytes()


def test_what_is_unknown_is_said(draw: Any, unknown: Measured) -> None:
    words, _ = draw(unknown)
    assert "Unknown: neither the truth nor any answer is" in words
    assert "kNN-AUC" not in words
    assert "hatched" not in words
    assert "% good" not in words


def test_an_empty_iteration_is_drawn(draw: Any, unknown: Measured) -> None:
    empty = {"count": 0, "largest": 0, "quantiles": {}, "histogram": {"from": [], "count": []}}
    unknown |= {"categories": empty | {"of_the_largest": []}, "partitions": empty}
    unknown["predictions"] |= dict.fromkeys(("indexed", "clustered", "copies", "without_embedding"), 0)
    unknown["tree"]["leaves"] = 0
    unknown["tree"]["depth"] = {"mean": None, "median": None, "max": None, "histogram": {"width": 1, "leaves": []}}
    words, _ = draw(unknown)
    assert words.count("<!-- No prediction was clustered. -->") == 2
    assert "<!-- No prediction in this iteration. -->" in words


def test_the_line_for_a_terminal(known: Measured, unknown: Measured, tmp_path: Path) -> None:
    path = tmp_path / "separability.json"
    write_json(path, known)
    assert separability_line(path) == (
        "iteration 2: 9,040 predictions in 4 categories and 4 partitions (largest 9); 1 exact copy and 9 without an "
        "embedding left out; 1 near-duplicate; tree 20 deep on average, 1,200 at most; good and bad masks lie apart "
        "with kNN-AUC 0.81 (score alone 0.70, predicted IoU alone 0.75, 30% of 500 known masks are good)"
    )
    write_json(path, unknown)
    assert separability_line(path).endswith("; separability unknown (neither the truth nor any answer is known yet)")


def test_another_file_is_refused(tmp_path: Path, known: Measured) -> None:
    path = tmp_path / "separability.json"
    for content in ({}, [], known | {"schema_version": 2}, {key: known[key] for key in known if key != "tree"}):
        path.unlink(missing_ok=True)
        write_json(path, content)
        with pytest.raises(SegloopError, match=r"separability\.json is no measurement"):
            separability_line(path)
    with pytest.raises(SegloopError, match="does not exist"):
        separability_line(tmp_path / "none.json")


def test_what_is_measured_can_be_drawn(iteration: Callable[..., Iteration], tmp_path: Path) -> None:
    made = iteration(each=8)
    match(made, [0.9, 0.1] * 12)
    tree = tmp_path / "tree.zarr"
    cluster_predictions(
        index=tmp_path / "index.zarr", predictions=made.predictions, output=tree, config=ClusteringConfig(), seed=0
    )
    measure_separability(
        partitions=made.partitions,
        tree=tree,
        index=tmp_path / "index.zarr",
        predictions=made.predictions,
        output=tmp_path / "separability.json",
        t_iou=0.8,
        matching="any",
        duplicates_iou=0.8,
        threads=1,
        seed=0,
        truth_match=made.truth_match,
    )
    assert read_json(tmp_path / "separability.json")["auc"]["neighbours"] is not None
    figures = [tmp_path / "a.svg", tmp_path / "a.png"]
    plot_separability(
        separability=tmp_path / "separability.json",
        seed_set=made.seed_set,
        svg=figures[0],
        png=figures[1],
        table=tmp_path / "numbers.csv",
    )
    numbers = (tmp_path / "numbers.csv").read_text(encoding="utf-8").splitlines()
    assert numbers[0] == "panel,name,count,good_share,auc"
    assert any(line.startswith("category,green,") for line in numbers)
    assert "<!-- green -->" in figures[0].read_text(encoding="utf-8")
    assert separability_line(tmp_path / "separability.json").startswith("iteration 1: 24 predictions in 3 categories")
