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


SMALL: dict[str, object] = {
    "pool": {"shards": 1},
    "clustering": {"batches": 1},
    "loop": {"iterations": 1, "control": False, "upper_bound": False},
}
SUMMARY = "results/iter_1/summary.json"


def test_two_detectors_share_a_loop(new_loop: "Callable[..., Loop]") -> None:
    run = new_loop(detectors=DETECTORS, **SMALL)
    run.run(SUMMARY, "results/iter_1/figures/neighbours.png", "results/iter_1/separability.json")
    results = run.directory / "results"
    for iteration in (0, 1):
        models = [read_json(results / f"iter_{iteration}/detector_{one['name']}/model/model.json") for one in DETECTORS]
        assert [model["embedding_dim"] for model in models] == [32, 48]
        assert [model["detector"]["mask_iou_head"] for model in models] == [False, True]
        assert [model["steps"] for model in models] == ([80, 60] if iteration == 0 else [12, 12])
    summary = read_json(run.directory / SUMMARY)
    assert list(summary["detectors"]) == ["plain", "judging"]
    assert summary["ap"] == summary["detectors"]["plain"]["ap"]
    for name, row in summary["detectors"].items():
        assert row["ap"] == read_json(results / f"iter_1/detector_{name}/evaluation.json")["ap"]
    assert sum(row["predictions"] for row in summary["detectors"].values()) == summary["predictions"]
    shard = PredictionShard.open(results / "iter_1/predictions/0.zarr")
    left_out = [row["duplicates_left_out"] for row in summary["detectors"].values()]
    assert left_out == shard.duplicates_between_detectors
    collected = read_json(results / "iter_1/collected.json")["annotations"]
    found = Counter(annotation["provenance"]["detector"] for annotation in collected)
    assert {name: row["collected"] for name, row in summary["detectors"].items()} == {
        name: found[name] for name in ("plain", "judging")
    }
    assert sum(found.values()) == summary["collected"] > 0
    files = RunFiles(run.directory)
    assert {step.name: len(files.complete(step, 1)) for step in files.steps(1) if step.of_detectors} == {
        "train": 2,
        "evaluate": 2,
    }
    assert all(len(files.complete(step, 1)) == step.parts(files.config) for step in files.steps(1))
    assert "Nothing to be done" in run.run(SUMMARY, "--dry-run")
    # Another length of one training leaves the other's model alone.
    longer = [DETECTORS[0], DETECTORS[1] | {"training": {"steps": 61}}]
    changed = run.copy(run.directory.with_name("changed"), detectors=longer, **SMALL)
    models = [f"results/iter_0/detector_{one['name']}/model" for one in DETECTORS]
    planned = changed.run("--dry-run", *models)
    assert planned.count("rule train_detector:") == 1
    assert "output: results/iter_0/detector_judging/model" in planned
