"""The loop end to end on tiny data: what it writes, that nothing is done twice, and that workers change nothing."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segloop.files import read_json
from segloop.ids import unpack_prediction_ids
from segloop.store.predictions import PredictionShard
from segloop.store.tree import read_tree, validate

from ..loops import Loop, same_results

pytestmark = pytest.mark.workflow

FIELDS = [
    "schema_version",
    "iteration",
    "predictions",
    "duplicates",
    "questions",
    "collected",
    "collected_total",
    "masks_per_question",
    "precision",
    "recall",
    "truth_recall",
    "ap",
    "ap50",
    "ap_per_category",
    "certificate",
    "reasons",
    "dollars",
    "machine_dollars",
    "value",
    "gpu_hours",
    "cpu_hours",
    "seconds",
]


def test_each_iteration_is_a_row_with_all_fields(undisturbed: Loop) -> None:
    summary = read_json(undisturbed.directory / "results/summary.json")
    assert [row["iteration"] for row in summary["iterations"]] == [0, 1, 2]
    for row in summary["iterations"]:
        assert [field for field in FIELDS if field not in row] == []
    seed, first, second = summary["iterations"]
    assert seed["questions"] is None
    assert first["questions"] > 0
    assert first["collected"] > 0
    assert second["collected_total"] == first["collected"] + second["collected"]
    assert 0 <= first["precision"] <= 1
    assert summary["stop_reason"] == "iterations"
    assert set(summary["control"]) == {"1", "2"}
    assert summary["upper_bound"]["ap"] is not None
    assert summary["versions"]["torch"]


def test_collected_masks_are_a_valid_coco_file_with_provenance(undisturbed: Loop) -> None:
    path = undisturbed.directory / "results/iter_1/collected.json"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == read_json(undisturbed.directory / "results/iter_1/summary.json")["collected"]
    shards = {
        shard: PredictionShard.open(undisturbed.directory / f"results/iter_1/predictions/{shard}.zarr")
        for shard in (0, 1)
    }
    for annotation in annotations:
        assert annotation["area"] == coco_mask.area(coco.annToRLE(annotation))
        origin = annotation["provenance"]
        shard = shards[origin["shard"]]
        assert origin["iteration"] == 1
        assert shard.image_id[origin["row"]] == coco.loadImgs(annotation["image_id"])[0]["id"]
        assert shard.rles(np.array([origin["row"]]))[0]["counts"].decode() == annotation["segmentation"]["counts"]
        assert len(origin["mask_key"]) == 64
        assert origin["verdict_reason"] in {"answered", "cluster"}
        assert origin["answers"]


def test_the_tree_holds_each_new_prediction_once(undisturbed: Loop) -> None:
    tree = read_tree(undisturbed.directory / "results/iter_1/tree.zarr")
    validate(tree)
    iteration, shard, _ = unpack_prediction_ids(tree.row_id)
    assert set(iteration.tolist()) == {1}
    assert set(shard.tolist()) == {0, 1}
    summary = read_json(undisturbed.directory / "results/iter_1/summary.json")
    assert tree.n + len(tree.null_id) == summary["predictions"] - summary["duplicates"]


def test_the_truth_is_seen_by_nobody_but_the_oracle(undisturbed: Loop) -> None:
    """Training, prediction and clustering must not read the hidden truth."""
    for log in (undisturbed.directory / "logs").rglob("*.log"):
        if not any(word in str(log) for word in ("truth", "upper_bound", "summarise", "oracle")):
            assert "truth.json" not in log.read_text(), log


def test_running_again_does_nothing(undisturbed: Loop) -> None:
    assert "Nothing to be done" in undisturbed.run()


def test_the_seed_decides_and_the_number_of_workers_does_not(undisturbed: Loop, tmp_path: Path) -> None:
    """One core and two Dask workers against two cores and none; the run on SLURM begins from nothing."""
    other = undisturbed.copy(
        tmp_path / "one_core",
        annotation={"workers": 2},
        clustering={"workers": 2, "batches": 2},
        loop={"iterations": 1, "control": False, "upper_bound": False},
    )
    other.remove("results/iter_1", "results/iter_2", "results/control", "results/upper_bound", "results/summary.json")
    other.run(cores=1)
    of_the_run = [f"results/{name}.json" for name in ("summary", "ledger", "census")]
    both = ["results/iter_2", "results/control", "results/upper_bound", *of_the_run]
    assert same_results(undisturbed, other, ignore=both) == []


def test_no_loop_output_is_taken_for_peoples_answers(undisturbed: Loop) -> None:
    assert not (undisturbed.directory / "data/answers").exists()


def test_the_record_beside_the_results_repeats_the_run(undisturbed: Loop) -> None:
    results = undisturbed.directory / "results"
    assert "numpy==" in (results / "requirements.lock").read_text()
    assert json.loads((results / "run.json").read_text())["versions"]["python"]
    assert "store_score: 0.03" in (results / "config.yaml").read_text()


def test_checkpoints_are_gone_when_training_is_done(undisturbed: Loop) -> None:
    assert not list((undisturbed.directory / "checkpoints").rglob("*.pt"))
