"""`segloop simulate`, as a person types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segloop.cli import main
from segloop.config import AnnotationConfig
from segloop.files import read_json
from segloop.simulation.command import Wanted, configurations, simulate_iteration

MakeFile = Callable[..., Path]
Captured = pytest.CaptureFixture[str]

KEYS = {"world", "n", "seed", "policy", "questions", "masks_per_question", "precision", "recall", "certified"}


def records(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def simulate(*words: object) -> int:
    return main(["simulate", *map(str, words)])


def test_one_record_a_run(world_file: MakeFile, capsys: Captured) -> None:
    words = ["--world", world_file(), "--policy", "thesis", "--policy", "per_mask", "--questions", 50, "--json"]
    assert simulate(*words, "--seeds", 2) == 0
    found = records(capsys.readouterr().out)
    assert [set(one) for one in found] == [KEYS] * 4
    assert [(one["policy"], one["seed"]) for one in found] == [
        ("thesis", 0),
        ("thesis", 1),
        ("per_mask", 0),
        ("per_mask", 1),
    ]
    assert {one["questions"] for one in found[2:]} == {50}
    assert simulate(*words, "--seed", 1) == 0
    assert records(capsys.readouterr().out) == [found[1], found[3]]


def test_the_truth_follows_the_threshold(world_file: MakeFile, capsys: Captured) -> None:
    assert simulate("--world", world_file(), "--policy", "per_mask", "--t-iou", "0.7", "--json") == 0
    (record,) = records(capsys.readouterr().out)
    assert (record["recall"], record["masks_per_question"], record["n"]) == (1.0, 1.0, 400)


def test_tables_and_files_are_written(world_file: MakeFile, tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "out"
    words = ["--policy", "per_mask", "--policy", "thesis", "--set", "annotation.n=4", "--seeds", 2, "--output", output]
    assert simulate("--world", world_file(), *words) == 0
    text = capsys.readouterr().out
    assert text.startswith("clumps\n") and "| per_mask " in text and "certified 0.9, recall 0.5" in text
    assert "| thesis " in (output / "table.md").read_text()
    runs = read_json(output / "runs.json")
    assert len(runs) == 4 and set(runs[0]) > KEYS and runs[2]["settings"] == {"n": 4}
    assert (output / "cost_curves.svg").stat().st_size > 5000
    head, *points = (output / "cost_curves.csv").read_text(encoding="utf-8").splitlines()
    assert head == "policy,settings,seed,questions,accepted,good_accepted,good"
    assert len(points) > 10 and all(line.count(",") >= 6 for line in points)
    assert (output / "cost_curves.png").read_bytes().startswith(b"\x89PNG")


def test_all_policies_but_those_that_cannot_run(world_file: MakeFile, capsys: Captured) -> None:
    assert simulate("--world", world_file(), "--questions", 60, "--json") == 0
    captured = capsys.readouterr()
    ran = {one["policy"] for one in records(captured.out)}
    assert {"per_mask", "thesis"} <= ran
    assert not ran & {"iou_threshold", "verifier", "distillation"}
    for policy in {"iou_threshold", "verifier", "distillation"} - ran:
        assert f"{policy} is left out" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "iou_threshold"], "predicts the IoU"),
        (["--policy", "perfect"], "annotation.policy"),
        (["--set", "annotation.t_agree=1"], "did you mean annotation.t_agr?"),
        (["--set", "annotation.t_agr=7"], "annotation.t_agr"),
        (["--set", "annotation.n.x=7"], "annotation.n: input should be"),
        (["--set", "annotation.n=[1"], "not valid YAML"),
        (["--set", "loop.iterations=1"], "--set annotation.key=value"),
        (["--set", "annotation.n"], "--set annotation.key=value"),
        (["--precision", "1.5"], "annotation.audit.precision"),
        (["--delta", "0"], "annotation.audit.delta"),
        (["--set", "annotation.audit.votes=3"], "needs as many annotators"),
        (["--questions", "0"], "annotation.questions"),
        (["--configfile", "missing.yaml"], "missing.yaml does not exist"),
        (["--table"], "Give --run"),
        (["--pilot", "401"], "cannot ask 401"),
    ],
)
def test_errors_are_for_people(world_file: MakeFile, capsys: Captured, words: list[str], message: str) -> None:
    extra = [] if "--policy" in words else ["--policy", "per_mask"]
    assert simulate("--world", world_file(), *words, *extra) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "words", [[], ["--world", "a", "--run", "b"], ["--world", "a", "--seeds", "0"], ["--world", "a", "--seed", "x"]]
)
def test_wrong_usage_ends_with_two(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        simulate(*words)
    assert end.value.code == 2


def test_a_run_brings_its_own_settings(run_directory: Path, tmp_path: Path, capsys: Captured) -> None:
    recorded = {"annotation": {"policy": "thesis", "n": 3, "t_iou": 0.2, "questions": 20}}
    (run_directory / "results" / "config.yaml").write_text(yaml.safe_dump(recorded))
    assert simulate("--run", run_directory, "--policy", "per_mask", "--json") == 0
    (record,) = records(capsys.readouterr().out)
    assert (record["world"], record["questions"], record["masks_per_question"]) == ("run, iteration 1", 20, 1.0)
    (tmp_path / "other.yaml").write_text("annotation: {questions: 30}\n")
    words = ["--configfile", tmp_path / "other.yaml", "--iteration", 1]
    assert simulate("--run", run_directory, "--policy", "per_mask", "--json", *words) == 0
    (record,) = records(capsys.readouterr().out)
    assert record["questions"] == 30 and record["masks_per_question"] != 1.0


def test_every_combination_is_tried_and_single_settings_win() -> None:
    wanted = Wanted(
        world=Path("w.npz"),
        policies=("per_mask", "thesis"),
        questions=(10, 20),
        precision=(0.8, 0.9),
        delta=0.1,
        changes=("annotation.audit.delta=0.2", "annotation.order=score"),
    )
    found = configurations(wanted)
    assert [(one.policy, one.questions, one.audit.precision) for one in found[:4]] == [
        ("per_mask", 10, 0.8),
        ("per_mask", 10, 0.9),
        ("per_mask", 20, 0.8),
        ("per_mask", 20, 0.9),
    ]
    assert len(found) == 8 and {one.audit.delta for one in found} == {0.2} and found[0].order == "score"


def test_the_table_of_the_thesis_of_a_run(run_directory: Path, capsys: Captured) -> None:
    assert simulate("--run", run_directory, "--table") == 0
    text = capsys.readouterr().out
    assert "truth (%)" in text and "| upper bound" in text and "30.00" in text
    assert simulate("--run", run_directory, "--table", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["upper_bound_ap"] == 0.3 and record["truth_recall"] == 0.4


def test_the_pilot_says_what_questions_will_buy(world_file: MakeFile, capsys: Captured) -> None:
    words = ["--policy", "per_mask", "--questions", 100, "--questions", 300, "--set", "annotation.hourly_wage=20"]
    assert simulate("--world", world_file(), "--pilot", *words, "--json") == 0
    one, two = records(capsys.readouterr().out)
    assert (one["at_most"], two["at_most"], one["answers"]) == (100, 300, 200)
    assert one["questions"] == [100, 100, 100]
    hours = one["hours"]
    assert isinstance(hours, list) and hours[0] == pytest.approx(100 * 1.4 / 3600)
    assert one["dollars"] == pytest.approx([20 * value for value in hours])
    assert simulate("--world", world_file(), "--pilot", 100, *words) == 0
    text = capsys.readouterr().out
    assert "judged from 100 answers" in text and "| per_mask " in text


def test_the_rule_writes_all_its_files(run_directory: Path, tmp_path: Path) -> None:
    folder = run_directory / "results" / "iter_1"
    outputs = {name: tmp_path / f"out.{name}" for name in ("svg", "png", "table", "runs")}
    simulate_iteration(
        index=folder / "index.zarr",
        tree=folder / "tree.zarr",
        reduced=folder / "reduced.zarr",
        truth_match=folder / "truth_match.parquet",
        svg=tmp_path / "out.svg",
        png=tmp_path / "out.png",
        table=tmp_path / "out.table",
        runs=tmp_path / "out.runs",
        annotation=AnnotationConfig(n=4),
        policies=["per_mask", "thesis"],
        seeds=2,
        iteration=1,
    )
    assert all(path.stat().st_size > 100 for path in outputs.values())
    runs = read_json(outputs["runs"])
    assert [(run["policy"], run["seed"]) for run in runs] == [
        ("per_mask", 0),
        ("per_mask", 1),
        ("thesis", 0),
        ("thesis", 1),
    ]
