"""What a run does when something is missing, empty or bad."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segloop.files import read_json

from ..loops import Loop, same_results

pytestmark = pytest.mark.workflow


def _summary(loop: Loop) -> dict[str, object]:
    value = read_json(loop.directory / "results/summary.json")
    assert isinstance(value, dict)
    return value


def test_missing_data_is_named_by_the_job_that_needs_it(new_loop: Callable[..., Loop]) -> None:
    loop = new_loop(demo_data=None, data_root="/nowhere/at/all")
    output = loop.run("resources/seed/train.json", status=1)
    assert "error: the category table /nowhere/at/all/categories.txt" in output
    assert "Check data_root" in output
    assert "Traceback" not in output


def test_an_empty_pool_is_refused(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(tmp_path / "run")
    (loop.directory / "data/demo/pool/list.txt").write_text("\n")
    output = loop.run("-f", "resources/pool/manifest.json", status=1)
    assert "the pool is empty" in output


def test_too_many_bad_images_stop_the_job_and_a_few_do_not(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(tmp_path / "run", max_skipped=0.2)
    name = sorted((loop.directory / "data/demo/pool/images").rglob("*.jpg"))[0]
    name.write_bytes(name.read_bytes()[:200])
    loop.run("-f", "results/iter_1/predictions/0.zarr")
    skipped = read_json(loop.directory / "results/iter_1/predictions/0.skipped.json")
    assert [Path(one["file"]).name for one in skipped["skipped"]] == [name.name]
    strict = undisturbed.copy(tmp_path / "strict", max_skipped=0.01)
    shutil.copy(name, strict.directory / name.relative_to(loop.directory))
    output = strict.run("-f", "results/iter_1/predictions/0.zarr", status=1)
    assert "more than max_skipped = 0.01" in output
    assert name.name in output


def test_an_iteration_without_predictions_ends_well(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(
        tmp_path / "run",
        index={"score": 0.9999},
        loop={"iterations": 1, "control": False, "upper_bound": False, "stop": ["no_new_masks"]},
    )
    loop.remove("results/iter_2", "results/control", "results/upper_bound")
    loop.run()
    row = _summary(loop)["iterations"][1]  # type: ignore[index]
    assert (row["predictions"], row["questions"], row["collected"]) == (0, 0, 0)
    assert row["precision"] is None
    assert _summary(loop)["stop_reason"] == "no_new_masks"


def test_nothing_accepted_stops_the_run_where_the_rule_says_so(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(
        tmp_path / "run",
        annotation={"t_iou": 0.999},
        loop={"iterations": 2, "control": False, "upper_bound": False, "stop": ["no_new_masks"]},
    )
    loop.remove("results/iter_2", "results/control", "results/upper_bound", "results/summary.json")
    loop.run()
    summary = _summary(loop)
    assert summary["stop_reason"] == "no_new_masks"
    assert [row["iteration"] for row in summary["iterations"]] == [0, 1]  # type: ignore[attr-defined]
    assert not (loop.directory / "results/iter_2").exists()


def test_a_run_ends_where_masks_cost_more_than_they_are_worth(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(
        tmp_path / "run",
        prices={"cpu_hour": 1000.0},
        loop={"iterations": 2, "control": False, "upper_bound": False, "stop": ["cost"], "value_per_mask": 1e-6},
    )
    loop.remove("results/iter_2", "results/control", "results/upper_bound", "results/summary.json")
    loop.run()
    assert _summary(loop)["stop_reason"] == "cost"
    assert not (loop.directory / "results/iter_2").exists()
    ledger = read_json(loop.directory / "results/ledger.json")
    assert [one["iteration"] for one in ledger["iterations"]] == [0, 1]
    machine = ledger["iterations"][1]["machine"]
    steps = {"predict_shard", "link_partitions", "annotate_oracle", "collect_masks", "train_detector"}
    assert all(machine["steps"][step]["cpu_hours"] > 0 for step in steps)
    assert machine["dollars"] == pytest.approx(1000 * machine["cpu_hours"])
    assert ledger["total"]["per_accepted_mask"]["total_dollars"] > 1e-6


def test_people_answer_by_files_and_the_replay_reaches_the_same_verdicts(undisturbed: Loop, tmp_path: Path) -> None:
    """The oracle's answers, written as people's would be, give the same masks; without them the run waits."""
    from segloop.annotation.answers import read_answers

    loop = undisturbed.copy(
        tmp_path / "run",
        annotation={"annotator": "people"},
        loop={"iterations": 1, "control": False, "upper_bound": False},
    )
    loop.remove("results/iter_2", "results/control", "results/upper_bound", "results/summary.json")
    table = read_answers(loop.directory / "results/iter_1/answers.parquet")
    loop.remove("results/iter_1/answers.parquet", "results/iter_1/verdicts.parquet", "results/iter_1/collected.json")
    output = loop.run()
    folder = loop.directory / "data/answers/iter_1"
    assert f"{folder}/complete.json" in output
    assert not (loop.directory / "results/iter_1/verdicts.parquet").exists()
    folder.mkdir(parents=True)
    with (folder / "answers.jsonl").open("w") as file:
        for record in table.to_pylist():
            record["mask_key"] = record["mask_key"].hex()
            file.write(json.dumps(record) + "\n")
    (folder / "complete.json").write_text("{}\n")
    loop.run("results/iter_1/collected.json")
    assert _accepted(loop) == _accepted(undisturbed) != []
    loop.remove("results", "resources")
    assert (folder / "answers.jsonl").exists()


def _accepted(loop: Loop) -> list[str]:
    return [
        one["provenance"]["mask_key"]
        for one in read_json(loop.directory / "results/iter_1/collected.json")["annotations"]
    ]


def test_the_written_configuration_repeats_the_run(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(tmp_path / "run")
    written = yaml.safe_load((loop.directory / "results/config.yaml").read_text())
    loop.configfile.write_text(yaml.safe_dump(written))
    assert "Nothing to be done" in loop.run()
    assert same_results(undisturbed, loop) == []
