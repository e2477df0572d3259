import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from segloop.files import read_json, write_json

Modules = Callable[[str], ModuleType]


@pytest.fixture
def questions(benchmark_module: Modules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs the benchmark into a temporary folder and returns its record."""
    module = benchmark_module("questions")

    def run(*words: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["questions.py", *words, "--output", str(tmp_path)])
        module.main()
        return read_json(tmp_path / "questions.json")

    return run


SMALL = ["--sizes", "600", "--levels", "E", "--policies", "per_mask", "thesis", "--only", "simulated"]


def test_runs_are_measured_once(
    questions: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = questions(*SMALL, "--seeds", "1")
    assert {run["policy"] for run in first["runs"]} == {"per_mask", "thesis"} and len(first["runs"]) == 6
    assert {
        "world",
        "n",
        "seed",
        "policy",
        "questions",
        "masks_per_question",
        "precision",
        "recall",
        "certified",
    } <= set(first["runs"][0])
    assert (tmp_path / "questions.png").stat().st_size > 10_000
    text = (tmp_path / "questions.md").read_text()
    assert "### E, 600 masks" in text and "thesis, n 8, t_agr 1.0" in text
    capsys.readouterr()
    second = questions(*SMALL, "--seeds", "2")
    assert "6 runs are there, 6 to do" in capsys.readouterr().out
    assert second["runs"][:6] == first["runs"] and len(second["runs"]) == 12
    assert len({run["key"] for run in second["runs"]}) == 12


def test_runs_of_other_code_are_dropped_unless_wanted(
    questions: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = questions(*SMALL, "--seeds", "1")
    for run in record["runs"][:2]:
        run["code"] = "older"
    record["repeated"] = {"runs": 0, "same": 0}
    write_json(tmp_path / "questions.json", record)
    capsys.readouterr()
    questions("--only", "--keep-older")
    assert "6 runs are there, 0 to do" in capsys.readouterr().out
    assert "2 of 6 runs were measured with an earlier state" in (tmp_path / "questions.md").read_text()
    record = questions(*SMALL, "--seeds", "1", "--keep-older", "--policies", "thesis")
    assert "6 runs are there, 0 to do" in capsys.readouterr().out
    (tmp_path / "kept.json").write_bytes((tmp_path / "questions.json").read_bytes())
    record = questions(*SMALL, "--seeds", "1", "--keep-older")
    assert "6 runs are there, 2 to do" in capsys.readouterr().out
    assert len(record["runs"]) == 6 and "earlier state" not in (tmp_path / "questions.md").read_text()
    assert record["repeated"] == {"runs": 2, "same": 2}
    (tmp_path / "kept.json").replace(tmp_path / "questions.json")
    questions(*SMALL, "--seeds", "1")
    assert "4 runs are there, 2 to do" in capsys.readouterr().out


def test_processes_measure_the_same(questions: Callable[..., Any], tmp_path: Path) -> None:
    small = [*SMALL, "--seeds", "2"]
    alone = questions(*small)["runs"]
    (tmp_path / "questions.json").unlink()
    shared = questions(*small, "--processes", "2")["runs"]

    def comparable(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(({**run, "slowest": 0} for run in runs), key=lambda run: str(run["key"]))

    assert comparable(alone) == comparable(shared)


def test_a_policy_that_cannot_run_is_noted(questions: Callable[..., Any], tmp_path: Path) -> None:
    words = ["--sizes", "600", "--levels", "E", "--policies", "iou_threshold", "--only", "simulated", "--seeds", "1"]
    (run,) = questions(*words)["runs"]
    assert "predicts the IoU" in run["left_out"]
    assert "## Left out" in (tmp_path / "questions.md").read_text()


def test_real_predictions_and_claims(questions: Callable[..., Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    iou = random.random(300).astype(np.float32)
    np.savez(
        tmp_path / "n.npz",
        embedding=random.standard_normal((300, 8)).astype(np.float32),
        category=np.ones(300, np.int64),
        score=random.random(300).astype(np.float32),
        iou=iou,
    )
    words = ["--only", "nuclei", "claims", "--policies", "thesis", "per_mask", "--nuclei", str(tmp_path / "n.npz")]
    record = questions(*words, "--nuclei-seeds", "1", "--claims", "2")
    worlds = {run["world"] for run in record["runs"] if run["part"] == "nuclei"}
    assert worlds == {"nuclei, IoU > 0.8", "nuclei, IoU > 0.7"}
    good = {run["world"]: run["good"] for run in record["runs"] if run["part"] == "nuclei"}
    assert good["nuclei, IoU > 0.7"] == (iou > 0.7).sum() > good["nuclei, IoU > 0.8"]
    text = (tmp_path / "questions.md").read_text()
    assert "| thesis | 2 | 2 |" in text and "### nuclei, IoU > 0.8" in text


def test_a_record_becomes_the_result_again(benchmark_module: Modules) -> None:
    runs = benchmark_module("questions_runs")
    place = runs.Place("simulated", "E", 500, 0)
    task = runs.Task(place, "thesis", '{"n": 4}', 3)
    record = runs.measure(task, runs.build(place))
    result = runs.from_record(record)
    assert result.record() == {key: record[key] for key in result.record()}
    assert result.settings == {"n": 4} and result.curve.questions[-1] == result.questions
    assert result.curve.correct[-1] == result.correct


def test_goals_count_seeds_without_a_certificate(benchmark_module: Modules) -> None:
    runs, page = benchmark_module("questions_runs"), benchmark_module("questions_page")
    place = runs.Place("simulated", "E", 500, 0)
    record = runs.measure(runs.Task(place, "thesis", "{}", 0), runs.build(place))
    made = record | {
        "policy": "certified",
        "n": 82_306,
        "questions": 100,
        "correct": 1200,
        "confirmed": 50,
        "good": 2000,
    }
    sure, failed = made | {"certified": 0.91}, made | {"certified": None, "seed": 1}
    row = page.WANTED[0]
    found = page.gain([runs.from_record(sure), runs.from_record(failed)], "certified", row)
    assert (found.masks_per_question, found.recall) == pytest.approx(((12 + 0.5) / 2, (0.6 + 0.025) / 2))
    assert (found.seeds, found.certified) == (2, 1) and not page.met(row, found)
    alone = page.gain([runs.from_record(sure)], "certified", row)
    assert page.met(row, alone) and page.beats(row, alone, found) and not page.beats(row, found, alone)
    assert page.gain([runs.from_record(sure)], "score_audit", row) is None
    text = "\n".join(page.page({"code": record["code"], "runs": [sure, failed], "pilot": None}))
    assert "| E, 82,306 masks; certified 0.9 | 10 at 0.5 | 6.25 at 0.312 (1 of 2) | **no** |" in text


def test_a_false_claim_is_counted(benchmark_module: Modules) -> None:
    page = benchmark_module("questions_page")
    runs = [{"policy": "certified", "certified": 0.9, "precision": 0.95, "seed": seed} for seed in range(100)]
    runs[98] |= {"precision": 0.89}
    runs[99] |= {"certified": None, "precision": None}
    assert page._claims(runs)[-2].startswith("| certified | 100 | 100 | 99 | 1 | 0.0100 | 0.0")
    both = [*runs, *({**run, "policy": "thesis"} for run in runs)]
    assert page._claims(both)[-2].startswith("| all | 100 | 200 | 198 | 2 | 0.0100 | 0.0")


def test_the_pilot_is_held_against_what_came(questions: Callable[..., Any], benchmark_module: Modules) -> None:
    page = benchmark_module("questions_page")
    row = {
        "seed": 0,
        "forecast": {"masks": [100, 80, 120], "questions": [50, 40, 60], "precision": None},
        "realised": {"masks": 110, "questions": 70, "precision": 0.9},
    }
    place = {"world": "nuclei", "t_iou": 0.8}
    text = "\n".join(page._pilot({"answers": 200, "worlds": 20, "place": place, "rows": [row]}))
    assert "masks: 1 of 1, questions: 0 of 1, precision: 0 of 1" in text
    assert "| 0 | 100 (80 to 120) | 110 | 50 (40 to 60) | 70 | - | 0.900 |" in text


def test_only_code_that_a_policy_reaches_makes_its_runs_older(
    benchmark_module: Modules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reached = benchmark_module("reached_code")
    package = tmp_path / "reached_example"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("WIDTH = 3\n\ndef unused():\n    return WIDTH\n")

    def code(body: str) -> str:
        (package / "main.py").write_text(f"from reached_example.other import WIDTH\n{body}")
        reached._read.cache_clear()
        return str(reached.code_of([("reached_example.main", "run")], ["reached_example"]))

    plain = code("def run():\n    return _part() * WIDTH\n\ndef _part():\n    return 2\n")
    assert "WIDTH = 3" in plain and "unused" not in plain
    explained = code(
        'def _part():\n    """Words."""\n    return 2\n\n\ndef run():  # more\n    return _part() * WIDTH\n'
    )
    assert explained == plain
    assert code("X = 1\n\ndef run():\n    return _part() * WIDTH\n\ndef _part():\n    return 2\n") == plain
    assert code("def run():\n    return _part() * WIDTH\n\ndef _part():\n    return 3\n") != plain


def test_every_policy_has_a_code_of_its_own(benchmark_module: Modules) -> None:
    runs = benchmark_module("questions_runs")
    assert len({runs.code(policy) for policy in runs.SETTINGS}) == len(runs.SETTINGS)
    names = {
        name for _, name in benchmark_module("reached_code").reached([("questions_runs", "measure")], runs._PACKAGES)
    }
    assert {"simulate", "Annotators", "Certified", "choose_set", "design", "dense_features", "cluster_levels"} <= names
    assert not {"annotate_people", "read_records", "Redraws"} & names
