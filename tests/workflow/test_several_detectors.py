"""Two detectors in one run: the whole loop, what it says of each, and how it goes on."""

from collections import Counter
from typing import TYPE_CHECKING

from segloop.files import read_json
from segloop.progress import RunFiles
from segloop.store.predictions import PredictionShard

if TYPE_CHECKING:
    from collections.abc import Callable

    from loops import Loop

DETECTORS = [
    {"name": "plain"},
    {"name": "judging", "mask_iou_head": True, "embedding_dim": 24, "training": {"steps": 60}},
]


def test_two_detectors_share_a_loop(new_loop: "Callable[..., Loop]") -> None:
    run = new_loop(
        detectors=DETECTORS,
        loop={"iterations": 1, "control": False, "upper_bound": False},
        report={"neighbour_queries": 1, "gallery": 2},
    )
    planned = run.run("--dry-run")
    assert "train_detector               4" in planned and "predict_shard                2" in planned
    run.run()
    results = run.directory / "results"
    for iteration in (0, 1):
        models = [read_json(results / f"iter_{iteration}/detector_{one['name']}/model/model.json") for one in DETECTORS]
        assert [model["embedding_dim"] for model in models] == [32, 48]
        assert [model["detector"]["mask_iou_head"] for model in models] == [False, True]
    assert [read_json(results / f"iter_0/detector_{n}/model/model.json")["steps"] for n in ("plain", "judging")] == [
        80,
        60,
    ]
    summary = read_json(results / "iter_1/summary.json")
    assert list(summary["detectors"]) == ["plain", "judging"]
    assert summary["ap"] == summary["detectors"]["plain"]["ap"]
    for name, row in summary["detectors"].items():
        assert row["ap"] == read_json(results / f"iter_1/detector_{name}/evaluation.json")["ap"]
    assert sum(row["predictions"] for row in summary["detectors"].values()) == summary["predictions"]
    shards = [PredictionShard.open(results / f"iter_1/predictions/{shard}.zarr") for shard in range(2)]
    left_out = [sum(counts) for counts in zip(*(one.duplicates_between_detectors for one in shards), strict=True)]
    assert [row["duplicates_left_out"] for row in summary["detectors"].values()] == left_out
    found = Counter(
        annotation["provenance"]["detector"]
        for annotation in read_json(results / "iter_1/collected.json")["annotations"]
    )
    assert {name: row["collected"] for name, row in summary["detectors"].items()} == {
        name: found[name] for name in ("plain", "judging")
    }
    assert sum(found.values()) == summary["collected"] > 0
    where = RunFiles(run.directory).progress()
    assert (where.step, where.iteration) == (None, 1)
    assert "Nothing to be done" in run.run("--dry-run")
    # Another length of one training leaves the other's model alone.
    changed = run.copy(
        run.directory.with_name("changed"),
        detectors=[DETECTORS[0], DETECTORS[1] | {"training": {"steps": 61}}],
        loop={"iterations": 1, "control": False, "upper_bound": False},
        report={"neighbour_queries": 1, "gallery": 2},
    )
    again = changed.run("--dry-run", "results/iter_0/detector_judging/model", "results/iter_0/detector_plain/model")
    assert "train_detector    1" in again
