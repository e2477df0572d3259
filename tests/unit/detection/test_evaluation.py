import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segloop.config import PredictionConfig
from segloop.data import masks
from segloop.detection.evaluation import average_precision, bootstrap_ap, evaluate_detector
from segloop.detection.segmenter import load_segmenter
from segloop.errors import SegloopError
from segloop.files import read_json, write_json

Annotate = Callable[..., dict[str, Any]]
CATEGORIES = [{"id": 2, "name": "two"}, {"id": 5, "name": "five"}, {"id": 9, "name": "absent"}]


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((60, 80), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def result(image_id: int, category: int, mask: np.ndarray, score: float) -> dict[str, Any]:
    rows, columns = np.nonzero(mask)
    return {
        "image_id": image_id,
        "category_id": category,
        "segmentation": masks.to_json(masks.encode(mask)),
        "bbox": [float(columns.min()), float(rows.min()), float(np.ptp(columns)) + 1, float(np.ptp(rows)) + 1],
        "score": score,
    }


@pytest.fixture
def noisy(annotate: Annotate) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a truth of 12 images with crowds, and detections of all qualities, with ties in the score."""
    random = np.random.default_rng(3)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    results = []
    for image_id in range(1, 13):
        truth["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": 60, "width": 80})
        for _ in range(int(random.integers(0, 5))):
            top, left, height, width = (
                int(random.integers(*limits)) for limits in ((0, 30), (0, 50), (5, 30), (5, 30))
            )
            category = int(random.choice([2, 5]))
            number = len(truth["annotations"]) + 1
            mask = rectangle(top, left, height, width)
            truth["annotations"].append(annotate(number, image_id, category, mask, int(random.random() < 0.15)))
            for _ in range(int(random.integers(0, 4))):
                moved = rectangle(top, left + int(random.integers(0, 6)), height, width)
                said = category if random.random() < 0.8 else 7 - category
                results.append(result(image_id, said, moved, round(float(random.random()), 1)))
        results.append(result(image_id, 2, rectangle(40, 60, 8, 8), round(float(random.random()), 1)))
    return truth, results


def coco_stats(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


def test_it_is_the_average_precision_of_coco(noisy: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    measured = average_precision(*noisy, 100)
    stats = coco_stats(*noisy)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert [measured[name] if measured[name] is not None else -1 for name in names] == pytest.approx(stats, abs=1e-12)
    assert 0.1 < measured["ap"] < 0.9
    assert set(measured["ap_per_category"]) == {"two", "five", "absent"}
    assert measured["ap_per_category"]["absent"] is None
    assert measured["ap_large"] is None


def test_a_perfect_result_has_precision_one_and_ids_from_zero_do_not_matter(annotate: Annotate) -> None:
    mask = rectangle(5, 5, 20, 20)
    truth = {
        "images": [{"id": 0, "file_name": "0.png", "height": 60, "width": 80}],
        "annotations": [annotate(0, 0, 2, mask)],
        "categories": CATEGORIES,
    }
    measured = average_precision(truth, [result(0, 2, mask, 0.9)], 100)
    assert measured["ap"] == pytest.approx(1.0)


def test_nothing_found_and_nothing_to_find(noisy: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    truth, results = noisy
    assert average_precision(truth, [], 100)["ap"] == 0.0
    nothing = average_precision({**truth, "annotations": []}, results, 100)
    assert nothing["ap"] is None
    assert set(nothing["ap_per_category"].values()) == {None}


def test_more_than_a_hundred_detections_of_an_image_can_count(annotate: Annotate) -> None:
    boxes = [rectangle(4 * row, 4 * column, 3, 3) for row in range(12) for column in range(10)]
    truth = {
        "images": [{"id": 1, "file_name": "1.png", "height": 60, "width": 80}],
        "annotations": [annotate(number + 1, 1, 2, mask) for number, mask in enumerate(boxes)],
        "categories": CATEGORIES,
    }
    results = [result(1, 2, mask, 0.9 - number / 1000) for number, mask in enumerate(boxes)]
    assert average_precision(truth, results, 120)["ap"] == pytest.approx(1.0)
    assert average_precision(truth, results, 100)["ap"] < 0.9


def test_a_resample_is_the_average_precision_of_its_images(noisy: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    truth, results = noisy
    samples = bootstrap_ap(truth, {"a": results, "none": []}, 100, resamples=20, seed=4)
    assert samples["a"].shape == (20,)
    assert samples["a"].std() > 0.01
    assert not samples["none"].any()
    assert np.array_equal(bootstrap_ap(truth, {"a": results}, 100, resamples=20, seed=4)["a"], samples["a"])
    draw = np.random.default_rng(0)
    drawn = drawn_images(truth, 20, 4)
    for row in draw.choice(20, 4, replace=False):
        repeated = repeat(truth, results, drawn[row])
        assert samples["a"][row] == pytest.approx(average_precision(*repeated, 100)["ap"], abs=0.02)


def drawn_images(truth: dict[str, Any], resamples: int, seed: int) -> np.ndarray:
    from segloop.randomness import generator

    count = len(truth["images"])
    return generator("bootstrap", seed).integers(count, size=(resamples, count))


def repeat(
    truth: dict[str, Any], results: list[dict[str, Any]], draw: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Copy images as often as they were drawn; ties in the score may fall otherwise, hence the tolerance above."""
    ids = sorted(image["id"] for image in truth["images"])
    copied: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    found = []
    for number, place in enumerate(draw, start=1):
        source = ids[place]
        copied["images"].append({"id": number, "file_name": "", "height": 60, "width": 80})
        for one in truth["annotations"]:
            if one["image_id"] == source:
                copied["annotations"].append({**one, "id": len(copied["annotations"]) + 1, "image_id": number})
        found += [{**one, "image_id": number} for one in results if one["image_id"] == source]
    return copied, found


@pytest.fixture
def evaluate(trained: tuple[Path, Path], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(truth: dict[str, Any], max_skipped: float = 0.0) -> dict[str, Any]:
        write_json(tmp_path / "val.json", truth)
        evaluate_detector(
            model=trained[0],
            validation_set=tmp_path / "val.json",
            output=tmp_path / "evaluation.json",
            results=tmp_path / "results.json",
            prediction=PredictionConfig(),
            device="cpu",
            max_skipped=max_skipped,
        )
        evaluation: dict[str, Any] = read_json(tmp_path / "evaluation.json")
        return evaluation

    return run


def test_a_trained_detector_scores_on_what_it_has_seen(
    trained: tuple[Path, Path], tmp_path: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    evaluation = evaluate(read_json(trained[1]))
    assert evaluation["schema_version"] == 1
    assert evaluation["ap50"] > 0.6
    assert evaluation["ap50"] >= evaluation["ap"] >= 0
    assert evaluation["images"] == 4
    assert evaluation["instances"] == 8
    assert evaluation["max_detections"] == 100
    assert set(evaluation["ap_per_category"]) == {"bright", "dark"}
    assert evaluation["weights_sha256"] == read_json(trained[0] / "model.json")["weights_sha256"]
    assert evaluation["device"] == "cpu"
    results = read_json(tmp_path / "results.json")
    assert len(results) == evaluation["detections"] > 0
    assert {one["category_id"] for one in results} <= {3, 7}
    assert load_segmenter(trained[0], device="cpu", threads=1).categories == read_json(trained[1])["categories"]


def test_an_unreadable_validation_image_is_left_out(
    trained: tuple[Path, Path], tmp_path: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    truth = read_json(trained[1])
    truth["images"][0]["file_name"] = str(tmp_path / "gone.png")
    evaluation = evaluate(truth, max_skipped=0.5)
    assert (evaluation["images"], evaluation["skipped"], evaluation["instances"]) == (3, 1, 6)
    with pytest.raises(SegloopError, match=r"gone\.png"):
        evaluate(truth)


def test_other_categories_are_refused(trained: tuple[Path, Path], evaluate: Callable[..., dict[str, Any]]) -> None:
    truth = read_json(trained[1])
    truth["categories"][0]["name"] = "else"
    with pytest.raises(SegloopError, match="different categories"):
        evaluate(truth)
