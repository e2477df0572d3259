import itertools
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from segloop.annotation.oracle import match_truth
from segloop.annotation.redraws import draw_sample, mean_interval, measure_quality, read_redraws, stated
from segloop.annotation.verdicts import REASONS, Verdicts, write_verdicts
from segloop.config import AnnotationConfig
from segloop.data.masks import to_json
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.store.index import read_index

from .conftest import rle_of

Unit = st.floats(0, 1)


# --- the interval -----------------------------------------------------------------------------------------------------


@given(st.lists(Unit, min_size=1, max_size=40), st.floats(0.01, 0.4))
def test_the_interval_holds_the_sample_mean_and_narrows_with_delta(values, delta):
    low, high = mean_interval(values, delta)
    assert 0 <= low <= np.mean(values) <= high <= 1
    wider = mean_interval(values, delta / 2)
    assert wider[0] <= low + 1e-9 and high - 1e-9 <= wider[1]
    mirrored = mean_interval(1 - np.array(values), delta)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)
    assert mean_interval(values[::-1], delta) == pytest.approx((low, high), abs=1e-9)


@given(st.lists(Unit, min_size=1, max_size=20), st.integers(0, 30))
def test_what_was_not_drawn_lies_between_0_and_1(values, left):
    low, high = mean_interval(values, 0.05, len(values) + left)
    assert low >= sum(values) / (len(values) + left) - 1e-12
    assert high <= (sum(values) + left) / (len(values) + left) + 1e-12
    if not left:
        assert low == pytest.approx(high) == pytest.approx(np.mean(values))


@pytest.mark.parametrize("delta", [0.05, 0.3])
@pytest.mark.parametrize("population", [[0, 1, 1, 1, 1, 1, 1, 1], [0.9, 0.8, 1, 0, 0.7, 0.9, 0.95, 0.1], [0.5] * 8])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_no_more_than_delta_of_all_samples_miss(population, count, delta):
    """By enumeration of every sample that can be drawn."""
    truth, sides = np.mean(population), [0, 0]
    samples = list(itertools.combinations(population, count))
    for sample in samples:
        low, high = mean_interval(sample, delta, len(population))
        sides[0] += low > truth + 1e-9
        sides[1] += high < truth - 1e-9
    assert max(sides) <= delta / 2 * len(samples)


def test_it_holds_where_students_fails():
    """A few masks that lie beside their objects among many good ones."""
    random = np.random.default_rng(0)
    population = np.where(random.random(2000) < 0.03, 0.0, random.beta(18, 2, 2000))
    missed = np.zeros(2)
    for _ in range(150):
        sample = random.choice(population, 50, replace=False)
        student = stats.t.interval(0.95, 49, sample.mean(), stats.sem(sample))
        for number, (low, high) in enumerate((mean_interval(sample, 0.05, 2000), student)):
            missed[number] += not low <= population.mean() <= high
    assert missed[0] <= 0.05 * 150
    assert missed[1] > 2 * 0.05 * 150


def test_it_narrows_with_the_sample_and_beats_hoeffding():
    values = np.random.default_rng(1).beta(18, 2, 400)
    widths = [np.diff(mean_interval(values[:count], 0.05))[0] for count in (25, 100, 400)]
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]
    hoeffding = [2 * np.sqrt(np.log(2 / 0.05) / (2 * count)) for count in (25, 100, 400)]
    assert all(width < bound for width, bound in zip(widths, hoeffding, strict=True))


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0), (1.0, 1)])
def test_extremes(value, expected):
    low, high = mean_interval(np.full(60, value), 0.05)
    assert (low if expected == 0 else high) == expected
    # As Clopper and Pearson's bound, which nothing that is valid can beat by much.
    assert (high if expected == 0 else 1 - low) == pytest.approx(1 - 0.025 ** (1 / 60), abs=0.04)


def test_quality_of_the_masks_that_match():
    found = stated(np.array([0.9, 0.8, 0.5, 0.0]), 100)
    assert (found["sample"], found["redrawn"], found["matched"]) == (4, 4, 2)
    assert found["mean_iou"] == pytest.approx(0.55)
    assert found["sq"] == pytest.approx(0.85)
    assert 0.5 <= found["sq_interval"][0] < 0.85 < found["sq_interval"][1] <= 1
    whole = stated(np.array([0.9, 0.8, 0.5, 0.0]), 4)
    assert whole["interval"] == pytest.approx([0.55, 0.55])
    assert whole["sq_interval"] == pytest.approx([0.85, 0.85])


@pytest.mark.parametrize("iou", [[], [np.nan], [0.9, np.nan]])
def test_a_sample_that_is_not_redrawn_whole_shows_nothing(iou):
    found = stated(np.array(iou, np.float64), 10)
    assert (found["sample"], found["redrawn"]) == (len(iou), max(0, len(iou) - 1))
    assert {found[name] for name in ("mean_iou", "sq", "matched")} == {None}
    assert found["interval"] is found["sq_interval"] is None


def test_nothing_matches():
    found = stated(np.zeros(5), 10)
    assert (found["mean_iou"], found["matched"], found["sq"], found["sq_interval"]) == (0, 0, None, None)


# --- the sample -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sets(st.integers(0, 500), max_size=60), st.integers(0, 80), st.integers(0, 5))
def test_the_sample_is_drawn_without_replacement_and_grows(accepted, count, seed):
    rows = np.array(sorted(accepted), np.int64)
    drawn = draw_sample(rows, count, seed, 1)
    assert len(set(drawn.tolist())) == len(drawn) == min(count, len(rows))
    assert set(drawn.tolist()) <= accepted
    assert np.array_equal(draw_sample(rows, count + 3, seed, 1)[: len(drawn)], drawn)


def test_every_mask_is_drawn_equally_often():
    rows = np.arange(10)
    drawn = np.concatenate([draw_sample(rows, 3, seed, 2) for seed in range(1000)])
    assert stats.chisquare(np.bincount(drawn, minlength=10)).pvalue > 1e-3
    assert not np.array_equal(draw_sample(rows, 10, 0, 1), draw_sample(rows, 10, 0, 2))


# --- files ------------------------------------------------------------------------------------------------------------

LEFT, NEAR, RIGHT, BELOW = (0, 0, 10, 10), (0, 0, 10, 8), (10, 0, 20, 10), (0, 10, 8, 20)


@pytest.fixture
def quality(tmp_path, scene):
    """Three accepted masks of two categories, a rejected one, and an accepted duplicate; none for a fourth object."""
    rows = [(3, 1, 0.9, LEFT), (3, 1, 0.8, RIGHT), (3, 2, 0.7, BELOW)]
    inputs = scene.predict([*rows, (3, 2, 0.6, RIGHT)], [(4, 1, 0.9, LEFT)])
    index = read_index(inputs["index"])
    reason = np.array([REASONS.index(word) for word in ("prefix", "answered", "prefix", "", "duplicate")], np.int8)
    verdict = np.array([1, 1, 1, -1, 1], np.int8)
    columns = index.prediction, verdict, reason, np.full(5, -1), np.full(5, -1, np.int16)
    write_verdicts(tmp_path / "verdicts.parquet", Verdicts(*columns))
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "star"}]
    (tmp_path / "seed.json").write_text(json.dumps({"categories": categories}))

    def measure(redraws=3, **more):
        config = more.pop("config", {})
        measure_quality(
            **inputs,
            verdicts=tmp_path / "verdicts.parquet",
            seed_set=tmp_path / "seed.json",
            output=tmp_path / "quality.json",
            sample=tmp_path / "quality_sample.json",
            annotation=AnnotationConfig.model_validate({"audit": {"redraws": redraws}, "hourly_wage": 36.0} | config),
            iteration=1,
            seed=0,
            **more,
        )
        return read_json(tmp_path / "quality.json"), read_json(tmp_path / "quality_sample.json")["masks"]

    measure.index = index
    measure.inputs = inputs
    return measure


def test_the_truth_redraws(quality, scene, tmp_path):
    match = tmp_path / "truth_match.parquet"
    # The right mask has no object of its category.
    truth = scene.truth([(3, 1, NEAR, 0), (3, 2, BELOW, 0), (3, 2, RIGHT, 0)])
    match_truth(**quality.inputs, truth=truth, output=match, t_iou=0.8, workers=1)
    found, sample = quality(truth_match=match, config={"oracle": {"redraw_seconds": 50.0}})
    accepted = quality.index.prediction[:3]
    assert {one["prediction"] for one in sample} == {str(name) for name in accepted}
    ious = {one["prediction"]: one["iou"] for one in found["masks"]}
    assert [ious[str(name)] for name in accepted] == pytest.approx([0.8, 0.0, 1.0])
    assert (found["accepted"], found["sample"], found["redrawn"], found["matched"]) == (3, 3, 3, 2)
    assert found["mean_iou"] == pytest.approx(0.6) and found["sq"] == pytest.approx(0.9)
    assert found["interval"] == pytest.approx([0.6, 0.6]), "all accepted masks are in the sample"
    assert {name: one["mean_iou"] for name, one in found["by_category"].items()} == pytest.approx(
        {"disc": 0.4, "star": 1.0}
    )
    assert [(one["annotator"], one["seconds"], one["price"]) for one in found["redraws"]] == [("oracle", 50.0, 0.5)] * 3
    some, _ = quality(redraws=1, truth_match=match)
    assert (some["sample"], len(some["masks"])) == (1, 1)
    assert some["masks"][0] == found["masks"][0]


def redraw(index, row, rect, **more):
    mask = None if rect is None else to_json(rle_of(rect))
    key = index.mask_key[row].tobytes().hex()
    known = {"redraw_id": f"r{row}", "prediction": str(index.prediction[row]), "mask_key": key, "annotator": "p"}
    return known | {"segmentation": mask, "seconds": 100.0} | more


def log_of(tmp_path, *lines, end="\n"):
    path = tmp_path / "redraws.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end)
    return path


def test_people_redraw_what_the_sample_names(quality, tmp_path, caplog):
    index = quality.index
    waiting, sample = quality()
    assert (waiting["sample"], waiting["redrawn"], waiting["mean_iou"]) == (3, 0, None)
    one = next(one for one in sample if one["prediction"] == str(index.prediction[2]))
    assert (one["image_id"], one["category"], one["box"]) == (3, "star", [0, 10, 8, 20])
    assert one["mask_key"] == index.mask_key[2].tobytes().hex() and "segmentation" not in one
    some, _ = quality(recorded=log_of(tmp_path, redraw(index, 0, LEFT)))
    assert (some["redrawn"], some["mean_iou"], len(some["redraws"])) == (1, None, 1)
    stale = redraw(index, 0, LEFT, redraw_id="s", mask_key="00" * 32, price=7.0)
    beside = redraw(index, 3, RIGHT)
    lines = [redraw(index, 0, NEAR), redraw(index, 1, None), redraw(index, 2, BELOW), stale, beside]
    with caplog.at_level(logging.WARNING):
        found, again = quality(recorded=log_of(tmp_path, *lines))
    assert again == sample
    assert found["mean_iou"] == pytest.approx(0.6)
    assert "1 of 5 redraws are stale" in caplog.text and "1 of 5 redraws are of masks outside the sample" in caplog.text
    # All that was drawn is paid, in the category of the mask that was drawn.
    other = [one | {"prediction": 5} for one in lines]
    renamed, _ = quality(recorded=log_of(tmp_path, *other))
    assert [one["prediction"] for one in renamed["redraws"]] == [
        *map(str, index.prediction[:3]),
        "5",
        str(index.prediction[3]),
    ]
    assert sorted(one["price"] for one in found["redraws"]) == [1.0] * 4 + [7.0]


def test_the_last_drawing_of_each_counts_and_several_people_are_averaged(quality, tmp_path):
    index = quality.index
    rest = [redraw(index, 1, RIGHT), redraw(index, 2, BELOW)]
    first = redraw(index, 0, None)
    better, other = redraw(index, 0, LEFT, redraw_id="b"), redraw(index, 0, NEAR, redraw_id="o", annotator="q")
    found, _ = quality(recorded=log_of(tmp_path, first, better, other, *rest))
    ious = {one["prediction"]: one["iou"] for one in found["masks"]}
    assert ious[str(index.prediction[0])] == pytest.approx((1.0 + 0.8) / 2)
    assert len(found["redraws"]) == 5


def test_nothing_accepted_needs_no_redraw(quality, tmp_path):
    index = quality.index
    none = np.zeros(5, np.int8)
    columns = index.prediction, none, none, np.full(5, -1), np.full(5, -1, np.int16)
    write_verdicts(tmp_path / "verdicts.parquet", Verdicts(*columns))
    found, sample = quality()
    assert (found["accepted"], found["sample"], found["mean_iou"], sample) == (0, 0, None, [])


def test_a_mask_of_another_image_size_is_named(quality, tmp_path):
    small = {"size": [3, 3], "counts": [0, 9]}
    with pytest.raises(SegloopError, match=r"redraw r0 has size \[3, 3\].*its image \[20, 20\]"):
        quality(recorded=log_of(tmp_path, redraw(quality.index, 0, LEFT, segmentation=small)))


def test_files_of_another_iteration_are_refused(quality, scene, tmp_path):
    match = tmp_path / "truth_match.parquet"
    match_truth(**quality.inputs, truth=scene.truth([]), output=match, t_iou=0.8, workers=1)
    scene.predict([(3, 1, 0.9, LEFT)])
    with pytest.raises(SegloopError, match="hold different predictions"):
        quality(truth_match=match)


FINE = {"redraw_id": "r", "prediction": 5, "mask_key": "00" * 32, "annotator": "p", "segmentation": None}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[]", "line 2 is not a JSON object"),
        ("{}", "line 2 lacks redraw_id, prediction, mask_key, annotator"),
        (json.dumps({name: value for name, value in FINE.items() if name != "segmentation"}), "lacks segmentation"),
        (FINE | {"mask_key": "xyz"}, "line 2 is no redraw"),
        (FINE | {"mask_key": "00"}, "line 2 is no redraw .*64 digits"),
        (FINE | {"mask_key": 5}, "line 2 is no redraw"),
        (FINE | {"prediction": "many"}, "line 2 is no redraw"),
        (FINE | {"segmentation": [[0, 0, 1, 1, 2, 2]]}, "line 2 is no redraw .*run-length"),
        (FINE | {"segmentation": {"size": [2, 2], "counts": [9]}}, "line 2 is no redraw .*sum to 9"),
        (FINE | {"seconds": -1}, "seconds is -1"),
        (FINE | {"seconds": "long"}, "line 2 is no redraw"),
        (FINE | {"redraw_id": "first", "annotator": "q"}, "another answer with the id first of line 1"),
    ],
)
def test_damaged_records_are_named_by_their_line(tmp_path, line, message):
    with pytest.raises(SegloopError, match=message):
        read_redraws(log_of(tmp_path, FINE | {"redraw_id": "first"}, line, FINE))


def test_a_cut_line_is_left_aside_and_a_batch_may_come_twice(tmp_path, caplog):
    whole = [FINE | {"redraw_id": name} for name in "ab"]
    path = log_of(tmp_path, *whole, *whole, json.dumps(FINE)[:40], end="")
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert [one["redraw_id"] for one in read_redraws(path)] == ["a", "b"]
    assert "ends in the middle of line 5" in caplog.text
    assert path.read_bytes() == before
