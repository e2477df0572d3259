"""What a run does when something is missing, empty or bad."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from segloop.files import read_json
from segloop.store.index import read_index

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


def test_masks_that_are_found_again_in_copies_are_accepted_unasked(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(
        tmp_path / "run",
        annotation={"policy": "distillation", "threshold": 0.05, "distillation": {"flip": True, "scales": [0.75]}},
        loop={"iterations": 1, "control": False, "upper_bound": False},
    )
    target = "results/iter_1/collected.json"
    plan = loop.run(target, "-n", "-q", "rules")
    assert re.search(r"^measure_agreement +2$", plan, re.MULTILINE), plan
    assert re.search(r"^join_agreement +1$", plan, re.MULTILINE), plan
    loop.run(target)
    index = read_index(loop.directory / "results/iter_1/index.zarr")
    agreement = np.load(loop.directory / "results/iter_1/agreement.npy")
    assert len(agreement) == len(index) and ((agreement > 0) & (agreement < 1)).any()
    wanted = index.prediction[(agreement >= np.float32(0.05)) & (index.duplicate_of == 0)]
    collected = read_json(loop.directory / target)["annotations"]
    assert {int(one["provenance"]["prediction"]) for one in collected} == set(wanted.tolist()) != set()
    # A wish for other copies makes the numbers again, and no wish for them plans none.
    again = loop.run(target, "-n", "-q", "rules", "--config", "annotation={distillation: {scales: [1.5]}}")
    assert "measure_agreement" in again
    assert "measure_agreement" not in undisturbed.run("-n", "-q", "rules")


def test_people_redraw_a_sample_of_what_was_accepted(undisturbed: Loop, tmp_path: Path) -> None:
    """The run does not wait for redraws; their figures come with the next run once they are there."""
    from segloop.annotation.answers import read_answers

    truth_drew = undisturbed.copy(tmp_path / "truth", annotation={"audit": {"redraws": 4}})
    output = truth_drew.run()
    assert "annotate_oracle" not in output.rpartition("Job stats:")[2], "redraws change no verdict"
    row = _summary(truth_drew)["iterations"][1]  # type: ignore[index]
    assert row["quality"]["redrawn"] == row["quality"]["sample"] == min(4, row["collected"]) > 0
    assert row["quality"]["interval"][0] <= row["quality"]["mean_iou"] <= row["quality"]["interval"][1]
    ledger = read_json(truth_drew.directory / "results/iter_1/ledger.json")
    assert ledger["people"]["by_purpose"]["redraw"]["seconds"] == pytest.approx(79.2 * row["quality"]["sample"])
    assert "mean IoU" in (truth_drew.directory / "results/figures/table31.html").read_text()

    loop = truth_drew.copy(
        tmp_path / "run",
        annotation={"annotator": "people", "audit": {"redraws": 4}},
        loop={"iterations": 1, "control": False, "upper_bound": False},
    )
    folder = loop.directory / "data/answers/iter_1"
    folder.mkdir(parents=True)
    table = read_answers(loop.directory / "results/iter_1/answers.parquet")
    records = [record | {"mask_key": record["mask_key"].hex()} for record in table.to_pylist()]
    (folder / "answers.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "complete.json").write_text("{}\n")
    output = loop.run("results/iter_1/summary.json")
    sample = read_json(loop.directory / "results/iter_1/quality_sample.json")["masks"]
    assert f"0 of the {len(sample)} masks" in output and f"{folder}/redraws.jsonl" in output
    assert sample == read_json(truth_drew.directory / "results/iter_1/quality_sample.json")["masks"]
    with (folder / "redraws.jsonl").open("w") as file:
        for number, one in enumerate(sample):
            drawn = {name: one[name] for name in ("prediction", "mask_key")}
            more = {"redraw_id": str(number), "annotator": "p", "segmentation": None, "seconds": 60.0}
            file.write(json.dumps(drawn | more) + "\n")
    assert "redraws.jsonl" not in loop.run("results/iter_1/summary.json")[-500:]
    summary = read_json(loop.directory / "results/iter_1/summary.json")
    assert (summary["quality"]["mean_iou"], summary["quality"]["matched"]) == (0.0, 0)
    assert len((folder / "redraws.jsonl").read_text().splitlines()) == len(sample)
