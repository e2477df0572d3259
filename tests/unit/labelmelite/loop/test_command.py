"""`segloop label --run` and `segloop bundle` as people type them."""

import json
import time
from functools import partial
from pathlib import Path

import pytest

from labelmelite import command
from labelmelite.clock import Clock
from labelmelite.crowd.answered import Answered, answered_bundle, written
from labelmelite.store import Store
from segloop.cli import main

from ..test_server import Server
from .conftest import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    make_run(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_served_and_its_answers_lie_beside_those_of_the_loop(run: Path) -> None:
    server = Server("--run", str(run), "--iteration", "1")
    try:
        session = server.call("/api/session", {"token": server.token})
        server.headers |= {"Authorization": f"Bearer {session['session']}", "X-Labelmelite": session["csrf"]}
        assert session["loop"] == {"run": "run", "iteration": 1}
        assert session["question"]["t_iou"] == 0.8
        assert [one["kind"] for one in server.call("/api/datasets")] == ["loop"]
        task = server.call("/api/tasks", {"kind": "questions"})["task"]
        assert task["items"]
        assert "stopped" in server.end()
        assert server.process.returncode == 0
    finally:
        server.process.kill()
    assert (run / "data" / "answers" / "labelmelite" / "labelmelite.sqlite").exists()


def test_bundles_go_out_and_come_back(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--run", str(run), "--iteration", "1"]
    assert main(["bundle", "out", *arguments, "--name", "Ada", "--output", str(tmp_path / "out")]) == 0
    (bundle,) = (tmp_path / "out").iterdir()
    assert f"segloop label --bundle {bundle / 'bundle.json'}" in capsys.readouterr().out
    value = json.loads((bundle / "bundle.json").read_text())
    answers = {one["id"]: Answered({"reply": "no", "reason": None}, 3.0) for one in value["annotations"]}
    path = written(
        tmp_path, answered_bundle(value, answers, value["bundle_info"]["bundle_id"], "x", "2026-01-01T10:00:00Z")
    )
    # Nobody answers in the second that has passed: the bundle comes back an hour later.
    monkeypatch.setattr(command, "Store", partial(Store, clock=Clock(wall=lambda: time.time() + 3600)))
    assert main(["bundle", "in", *arguments, str(path)]) == 0
    assert f"{len(answers)} answers taken" in capsys.readouterr().out
    recorded = (run / "data" / "answers" / "iter_1" / "answers.jsonl").read_text().splitlines()
    assert len(recorded) == len(answers)


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "--run", str(tmp_path)]) == 1
    assert "holds no run of segloop" in capsys.readouterr().err
