import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from segloop.annotation.answers import ANSWER_SCHEMA, write_answers
from segloop.errors import SegloopError
from segloop.reporting.calibration import Bin, binned, plot_calibration
from segloop.store.index import read_index

from .conftest import Iteration, match


def answers(iteration: Iteration, purposes: list[str], replies: list[str]) -> Path:
    index = read_index(iteration.folder / "index.zarr")
    records = [
        {"answer_id": str(n), "prediction": int(index.prediction[n]), "mask_key": index.mask_key[n].tobytes(),
         "annotator": "p", "purpose": purpose, "reply": reply}
        for n, (purpose, reply) in enumerate(zip(purposes, replies, strict=True))
    ]  # fmt: skip
    path = iteration.folder / "answers.parquet"
    write_answers(path, pa.Table.from_pylist(records, schema=ANSWER_SCHEMA))
    return path


def drawn(iteration: Iteration, path: Path, truth: Path | None) -> list[dict[str, str]]:
    folder = iteration.folder
    plot_calibration(
        index=folder / "index.zarr",
        answers=path,
        truth_match=truth,
        t_iou=0.8,
        matching="any",
        svg=folder / "c.svg",
        png=folder / "c.png",
        table=folder / "c.csv",
    )
    with (folder / "c.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_truth_says_what_a_score_means(judged: Iteration) -> None:
    found = drawn(judged, answers(judged, [], []), judged.truth_match)
    assert {row["number"] for row in found} == {"score"}
    assert sum(int(row["masks"]) for row in found) == 9
    assert sum(int(row["good"]) for row in found) == 6
    assert all(float(row["low"]) <= float(row["share"]) <= float(row["high"]) for row in found)
    assert all(row["mean_iou"] for row in found)


def test_without_truth_the_answers_of_audits_count_and_no_others(judged: Iteration) -> None:
    path = answers(judged, ["audit", "decide", "calibrate", "gold"], ["yes", "yes", "no", "yes"])
    found = drawn(judged, path, None)
    assert sum(int(row["masks"]) for row in found) == 2
    assert sum(int(row["good"]) for row in found) == 1


def test_neither_truth_nor_audit_is_said(judged: Iteration) -> None:
    assert drawn(judged, answers(judged, [], []), None) == []


def test_truth_of_other_predictions_is_refused(judged: Iteration) -> None:
    match(judged, [0.9] * 4)
    with pytest.raises(SegloopError, match="different predictions"):
        drawn(judged, answers(judged, [], []), judged.truth_match)


@pytest.mark.parametrize(("good", "count"), [(0, 7), (7, 7), (3, 7), (120, 200)])
def test_intervals_are_those_of_clopper_and_pearson(good: int, count: int) -> None:
    low, high = Bin(count, 0.5, good, None).interval
    if good:
        assert binom.sf(good - 1, count, low) == pytest.approx(0.025)
    if good < count:
        assert binom.cdf(good, count, high) == pytest.approx(0.025)
    assert low <= good / count <= high


def test_bins_hold_every_value_once() -> None:
    values = np.array([0.0, 0.05, 0.1, 0.999, 1.0])
    bins = binned(values, np.array([True, False, True, True, True]), None)
    assert [one.count for one in bins] == [2, 1, 2]
    assert [one.good for one in bins] == [1, 1, 2]
