import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from segloop.annotation.oracle import MATCH_SCHEMA
from segloop.annotation.tables import write_table
from segloop.clustering import separability as module
from segloop.clustering.building import cluster_predictions
from segloop.clustering.separability import auc, measure_separability, standard_error
from segloop.collection.index import index_predictions
from segloop.config import ClusteringConfig
from segloop.data import masks
from segloop.detection.segmenter import Detections
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.ids import prediction_ids
from segloop.store.index import read_index
from segloop.store.predictions import PredictionWriter

SIDE, EACH = 36, 6


def mask(place: int) -> npt.NDArray[np.bool_]:
    """Masks of places 0..5 are apart; each further round of six covers them but for some pixels."""
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[: 20 - place // EACH, 6 * (place % EACH) : 6 * (place % EACH) + 5] = True
    return pixels


@dataclass(frozen=True)
class Made:
    """An iteration on disk."""

    folder: Path
    predictions: list[Path]
    ids: npt.NDArray[np.uint64]

    def truth(self, is_good: npt.NDArray[np.bool_], ids: npt.NDArray[np.uint64] | None = None) -> Path:
        n = len(is_good)
        iou = np.where(is_good, 0.9, 0.3).astype(np.float32)
        columns: dict[str, Any] = {"prediction": pa.array(self.ids if ids is None else ids)}
        columns |= {"iou": iou, "truth_id": np.ones(n, np.int64), "matched_iou": iou}
        # One to one, the first half serves no truth.
        columns["matched_id"] = ((np.arange(n) >= n // 2) & is_good).astype(np.int64)
        path = self.folder / "truth_match.parquet"
        write_table(path, pa.table(columns, schema=MATCH_SCHEMA.with_metadata({"t_iou": "0.8"})))
        return path

    def answers(self, *replies: tuple[int, str, str]) -> Path:
        """Write (row, reply, purpose); row -1 is about a mask that is not of this iteration."""
        keys = [*read_index(self.folder / "index.zarr").mask_key, np.zeros(32, np.uint8)]
        records = [
            {
                "answer_id": str(number),
                "prediction": 1,
                "mask_key": keys[row].tobytes().hex(),
                "annotator": "somebody",
                "purpose": purpose,
                "reply": reply,
            }
            for number, (row, reply, purpose) in enumerate(replies)
        ]
        path = self.folder / "answers.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return path

    def measure(self, name: str = "separability.json", **options: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "partitions": self.folder / "scratch" / "partitions.zarr",
            "tree": self.folder / "tree.zarr",
            "index": self.folder / "index.zarr",
            "predictions": self.predictions,
            "output": self.folder / name,
            "t_iou": 0.8,
            "matching": "any",
            "duplicates_iou": 0.8,
            "threads": 1,
            "seed": 0,
        }
        measure_separability(**inputs | options)
        found = read_json(self.folder / name)
        assert isinstance(found, dict)
        return found


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write two shards of six predictions an image, their index and their tree."""

    def write(
        embeddings: npt.NDArray[Any],
        category: npt.NDArray[np.integer] | None = None,
        score: npt.NDArray[np.floating] | None = None,
        predicted_iou: npt.NDArray[np.floating] | None = None,
        each: int = EACH,
        cluster: bool = True,
        place: Callable[[int], int] = lambda row: row,
        parts: dict[str, int] | None = None,
    ) -> Made:
        n = len(embeddings)
        kinds = np.ones(n, np.int32) if category is None else category.astype(np.int32)
        scores = np.full(n, 0.9) if score is None else score
        halves = np.array_split(np.arange(n), [n // 2 // each * each])
        paths, ids = [], []
        for shard, own in enumerate(halves):
            paths.append(tmp_path / f"{shard}.zarr")
            ids.append(prediction_ids(1, shard, len(own)))
            options: dict[str, Any] = {"iteration": 1, "shard": shard, "model_sha256": "", "embedding_dim": 8}
            options["embedding_parts"] = parts
            with PredictionWriter(paths[-1], has_predicted_iou=predicted_iou is not None, **options) as writer:
                for first in range(0, len(own), each):
                    rows = own[first : first + each]
                    found = Detections(
                        score=scores[rows].astype(np.float32),
                        category=kinds[rows],
                        box=np.zeros((len(rows), 4), np.float32),
                        masks=[masks.encode(mask(place(row))) for row in range(len(rows))],
                        embedding=embeddings[rows],
                        predicted_iou=None if predicted_iou is None else predicted_iou[rows].astype(np.float32),
                    )
                    writer.append(int(rows[0]), SIDE, SIDE, found)
        index_predictions(
            predictions=paths,
            earlier=[],
            earlier_verdicts=[],
            output=tmp_path / "index.zarr",
            score=0.1,
            duplicates_iou=0.8,
            iteration=1,
        )
        if cluster:
            cluster_predictions(
                index=tmp_path / "index.zarr",
                predictions=paths,
                output=tmp_path / "tree.zarr",
                config=ClusteringConfig(),
                seed=0,
                scratch=tmp_path / "scratch",
            )
        return Made(tmp_path, paths, np.concatenate(ids))

    return write


def noisy(is_good: npt.NDArray[np.bool_], distance: float) -> npt.NDArray[np.float32]:
    """Directions of which the first coordinate tells good from bad, the better the larger the distance."""
    rows = np.random.default_rng(1).standard_normal((len(is_good), 8)).astype(np.float32)
    rows[:, 0] += np.where(is_good, distance, -distance)
    return rows


def some_good(n: int, share: float = 0.4) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(2).random(n) < share


def pairs(values: npt.NDArray[Any], is_good: npt.NDArray[np.bool_]) -> float:
    difference = values[is_good][:, None].astype(float) - values[~is_good][None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


# --- the area ---


def test_the_area_counts_pairs_and_ties_half() -> None:
    values, is_good = np.random.default_rng(0).integers(0, 5, 80), some_good(80)
    assert auc(values, is_good) == pytest.approx(pairs(values, is_good))
    assert auc(np.array([2, 1]), np.array([True, False])) == 1
    assert auc(np.array([1, 1]), np.array([True, False])) == 0.5
    assert auc(np.array([1, 2]), np.array([True, True])) is None
    assert auc(np.zeros(0), np.zeros(0, bool)) is None


def test_each_stored_embedding_is_measured(make: Make) -> None:
    """Two embeddings of which the second alone knows good from bad; with one there is nothing to compare."""
    is_good = some_good(240)
    rows = noisy(is_good, 3.0)[:, [1, 2, 3, 4, 0, 5, 6, 7]]
    made = make(rows, parts={"box_head": 4, "mask_weighted": 4})
    found = made.measure(truth_match=made.truth(is_good))
    assert list(found["embeddings"]) == ["box_head", "mask_weighted"]
    assert found["embeddings"]["box_head"] == found["auc"]["neighbours"] < 0.7
    assert found["embeddings"]["mask_weighted"] > 0.9
    unknown = made.measure()
    assert unknown.get("embeddings", {}) == {}


def test_the_standard_error_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(0)
    is_good = np.arange(120) < 50
    areas = [auc(rng.standard_normal(120) + is_good, is_good) or 0.0 for _ in range(400)]
    assert standard_error(float(np.mean(areas)), 50, 70) == pytest.approx(np.std(areas), rel=0.15)
    assert standard_error(1.0, 10, 10) == 0


@pytest.mark.parametrize(("distance", "low", "high"), [(6.0, 0.999, 1.0), (1.0, 0.8, 0.98), (0.0, 0.38, 0.62)])
def test_the_area_tells_how_far_good_and_bad_lie_apart(make: Make, distance: float, low: float, high: float) -> None:
    is_good = some_good(240)
    made = make(noisy(is_good, distance))
    found = made.measure(truth_match=made.truth(is_good))
    assert low <= found["auc"]["neighbours"] <= high
    assert found["auc"]["score"] == 0.5
    assert found["auc"]["reason"] is None


def test_the_area_equals_a_full_comparison(make: Make) -> None:
    n, is_good = 198, some_good(198)
    embeddings, score = noisy(is_good, 0.7).astype(np.float16), np.linspace(0.2, 0.9, n)
    category = np.random.default_rng(3).integers(1, 3, n)
    made = make(embeddings, category, score, predicted_iou=is_good * 0.5)
    found = made.measure(truth_match=made.truth(is_good))
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    share = is_good[np.argsort(-cosine, axis=1)[:, :30]].mean(axis=1)
    assert found["auc"]["neighbours"] == pytest.approx(pairs(share, is_good), abs=1e-4)
    assert found["auc"]["score"] == pytest.approx(pairs(score, is_good), abs=1e-4)
    assert found["auc"]["predicted_iou"] == 1
    for row in found["categories"]["of_the_largest"]:
        own = category == row["category"]
        assert (row["predictions"], row["known"], row["queries"]) == (own.sum(),) * 3
        assert row["good_share"] == pytest.approx(is_good[own].mean(), abs=1e-4)
        assert row["auc"] == pytest.approx(pairs(share[own], is_good[own]), abs=1e-4)
    bars = {bar["from"]: (bar["masks"], bar["good"]) for bar in found["by_share"]}
    middle = (share >= 0.3 - 1e-6) & (share < 0.4 - 1e-6)
    assert bars[0.3] == (middle.sum(), is_good[middle].sum())
    assert sum(count for count, _ in bars.values()) == n


def test_samples_are_limited_and_drawn_by_seed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    is_good = some_good(180, 0.5)
    made = make(noisy(is_good, 1))
    truth = made.truth(is_good)
    whole = made.measure(truth_match=truth)
    monkeypatch.setattr(module, "HELD", 120)
    monkeypatch.setattr(module, "QUERIES", 70)
    found = made.measure("first.json", truth_match=truth)
    assert [found["known"][key] for key in ("masks", "held", "queries", "neighbours")] == [180, 120, 70, 30]
    assert found["known"]["good_share"] == whole["known"]["good_share"]
    monkeypatch.setattr(module, "_BLOCK", 17)
    monkeypatch.setattr(module, "_QUERY_BLOCK", 9)
    made.measure("again.json", truth_match=truth)
    assert (made.folder / "again.json").read_bytes() == (made.folder / "first.json").read_bytes()
    assert made.measure("other.json", truth_match=truth, seed=1)["auc"] != found["auc"]


def test_what_is_good_follows_the_matching(make: Make) -> None:
    is_good = some_good(60)
    made = make(noisy(is_good, 1))
    truth = made.truth(is_good)
    assert made.measure(truth_match=truth)["known"]["good_share"] == pytest.approx(is_good.mean(), abs=1e-4)
    late = made.measure(truth_match=truth, matching="one_to_one")["known"]["good_share"]
    assert late == pytest.approx(is_good[30:].sum() / 60, abs=1e-4)
    assert made.measure(truth_match=truth, t_iou=0.95)["known"]["good_share"] == 0


# --- what is not known ---


def test_without_truth_or_answers_the_area_is_null_with_a_reason(make: Make) -> None:
    made = make(noisy(some_good(30), 1))
    for recorded in (None, made.folder / "none.jsonl"):
        found = made.measure(recorded_answers=recorded)
        assert found["auc"]["neighbours"] is None
        assert found["auc"]["score"] is None
        assert found["auc"]["reason"] == "neither the truth nor any answer is known yet"
        assert found["known"]["source"] is None
        assert found["by_share"] == []
        assert found["categories"]["of_the_largest"][0]["good_share"] is None
        assert found["predictions"]["clustered"] == 30


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_too_few_of_one_kind_give_no_area(make: Make, share: float) -> None:
    is_good = np.arange(30) < 30 * share
    made = make(noisy(is_good, 1))
    found = made.measure(truth_match=made.truth(is_good))["auc"]
    assert found["neighbours"] is None
    assert (
        found["reason"]
        == f"of 30 known masks {is_good.sum()} are good and {(~is_good).sum()} bad; 10 of each are needed"
    )


def test_peoples_answers_are_matched_by_mask_key_and_the_last_counts(make: Make) -> None:
    is_good = np.arange(48) % 2 == 0
    made = make(noisy(is_good, 6))
    first = [(row, "yes" if is_good[row] else "no", "decide") for row in range(30)]
    changed = [
        (0, "no", "decide"),
        (0, "yes", "audit"),
        (1, "yes", "gold"),
        (2, "other", "decide"),
        (-1, "yes", "decide"),
    ]
    found = made.measure(recorded_answers=made.answers(*first, *changed))
    # Row 2 is unknown now; row 0 is good again; the answer on row 1 measured the annotator.
    assert found["known"]["source"] == "answers"
    assert found["known"]["masks"] == 29
    assert found["known"]["good_share"] == pytest.approx(14 / 29, abs=1e-4)
    assert found["known"]["neighbours"] == 28
    stale = made.measure(recorded_answers=made.answers((-1, "yes", "decide")))
    assert stale["auc"]["reason"] == "no answer in answers.jsonl is about a mask of this iteration"
    truth = made.measure(recorded_answers=made.folder / "answers.jsonl", truth_match=made.truth(is_good))
    assert truth["known"]["source"] == "truth"


def test_a_damaged_answer_is_named_by_its_line(make: Make) -> None:
    made = make(noisy(some_good(12), 1))
    path = made.answers((0, "yes", "decide"), (1, "perhaps", "decide"))
    with pytest.raises(SegloopError, match=r"answers\.jsonl, line 2"):
        made.measure(recorded_answers=path)


# --- counts ---


def test_what_is_left_out_is_counted(make: Make) -> None:
    embeddings = noisy(some_good(48), 1)
    embeddings[[3, 8]] = 0
    embeddings[9] = np.nan
    # Twelve an image: place 7 nearly covers place 1, and rows 10 and 11 repeat the mask of row 0.
    made = make(embeddings, each=12, place=lambda row: 0 if row in (10, 11) else row)
    found = made.measure(truth_match=made.truth(some_good(48)))
    counts = found["predictions"]
    assert counts["indexed"] == 48
    assert counts["copies"] == 2 * 4
    assert counts["without_embedding"] == 3
    assert counts["clustered"] == 48 - 8 - 3
    # Places 6 to 9 overlap places 0 to 3 in 19 of 20 rows of pixels.
    assert counts["near_duplicates"] == 4 * 4
    assert found["known"]["masks"] == counts["clustered"]
    assert found["tree"]["leaves"] == counts["clustered"]
    assert found["iteration"] == 1
    assert found["how"]["scope"] == "category"


@pytest.mark.parametrize("n", [0, 1])
def test_an_iteration_without_neighbours(make: Make, n: int) -> None:
    is_good = np.ones(n, bool)
    made = make(noisy(is_good, 1))
    found = made.measure(truth_match=made.truth(is_good))
    assert found["known"]["queries"] == 0
    assert found["auc"]["neighbours"] is None
    assert found["tree"]["depth"]["max"] == (0 if n else None)
    assert found["partitions"]["count"] == n


# --- inputs that do not belong together ---


def test_inputs_of_different_iterations_are_refused(make: Make) -> None:
    is_good = some_good(24)
    made = make(noisy(is_good, 1))
    with pytest.raises(SegloopError, match="Run match_truth again"):
        made.measure(truth_match=made.truth(is_good[1:], made.ids[1:]))
    make(noisy(some_good(36), 1), cluster=False)
    with pytest.raises(SegloopError, match="do not hold the same predictions"):
        made.measure()


def test_a_missing_store_is_named(make: Make) -> None:
    made = make(noisy(some_good(12), 1))
    for name in ("partitions", "tree", "index"):
        with pytest.raises(SegloopError, match=r"none\.zarr is not a Zarr store"):
            made.measure(**{name: made.folder / "none.zarr"})
    assert not list(made.folder.glob("*.json"))
