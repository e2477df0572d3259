"""Set-ups of learning that differ from the default, in the workflow."""

from pathlib import Path
from typing import TYPE_CHECKING

from segloop.files import read_json

if TYPE_CHECKING:
    from loops import Loop


def test_an_iteration_learns_as_the_configuration_says(undisturbed: "Loop", tmp_path: Path) -> None:
    learning = {
        "finetune_epochs": 2,
        "seed_share": 0.5,
        "collected_weight": 0.5,
        "evaluate_steps": 4,
        "keep": "best",
        "patience": 3,
    }
    run = undisturbed.copy(tmp_path / "run", training=learning)
    run.remove("results/iter_1/model", "results/iter_1/evaluation.json")
    run.run("results/iter_1/evaluation.json", "--rerun-triggers", "mtime")
    model = read_json(run.directory / "results/iter_1/model/model.json")
    images = len(read_json(run.directory / "results/iter_1/training_set.json")["images"])
    assert images > 12, "nothing was collected"
    measured = dict(model["evaluations"])
    assert model["steps"] == -(-2 * images // 4) or len(measured) >= 4
    assert model["kept_step"] == max(measured, key=lambda step: (measured[step], -step))
    # What the step of its own finds is what was measured while it trained.
    assert read_json(run.directory / "results/iter_1/evaluation.json")["ap"] == measured[model["kept_step"]]
