import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from labelmelite.events import Event, append
from labelmelite.store import FILE, Store
from segloop import integrity
from segloop.annotation.tables import write_table
from segloop.cli import main
from segloop.data.doctor.findings import Status
from segloop.data.doctor.run_folders import examine_run
from segloop.detection.model_files import weights_sha256
from segloop.errors import SegloopError
from segloop.files import sha256_file, write_json
from segloop.store.arrays import StoreWriter


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run directory with one of each kind of file."""
    folder = tmp_path / "run/results/iter_1"
    with StoreWriter(folder / "tree.zarr", "tree", {}) as store:
        store.write("score", np.linspace(0, 1, 1000, dtype=np.float32))
    write_json(folder / "summary.json", {"masks": 12})
    write_table(folder / "answers.parquet", pa.table({"a": [1, 2, 3]}))
    (folder / "model").mkdir()
    state = {"weight": torch.arange(4.0)}
    torch.save(state, folder / "model/weights.pt")
    integrity.seal(folder / "model/weights.pt")
    write_json(folder / "model/model.json", {"schema_version": 1, "weights_sha256": weights_sha256(state)})
    answers = tmp_path / "run/data/answers/iter_1/answers.jsonl"
    answers.parent.mkdir(parents=True)
    answers.write_text("\n")
    write_json(answers.with_name("complete.json"), {"answers_sha256": sha256_file(answers)}, sealed=False)
    database = Store(answers.parents[1] / "labelmelite")
    database.write_now(lambda connection: append(connection, "a", 0.0, Event("page", 1, "answer", {"reply": "yes"})))
    database.close()
    return tmp_path / "run"


def flip(path: Path, place: int = -3) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_whole_run_is_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for deep in (False, True):
        found = examine_run(run, deep=deep)
        assert (found.damaged, found.without, found.status) == ([], [], Status.USABLE)
    assert found.counts == {"files": 3, "stores": 1, "models": 1, "files of answers": 1, "databases": 1}
    assert main(["doctor", "--deep", "--run", str(run)]) == 0
    assert "0 damaged; every byte was read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "remedy", "status"),
    [
        ("results/iter_1/tree.zarr/score/c/0", "rm -r {run}/results/iter_1/tree.zarr, then run again", 3),
        ("results/iter_1/tree.zarr/score/zarr.json", "rm -r {run}/results/iter_1/tree.zarr, then run again", 3),
        ("results/iter_1/summary.json", "rm -r {run}/results/iter_1/summary.json, then run again", 3),
        ("results/iter_1/answers.parquet", "rm -r {run}/results/iter_1/answers.parquet, then run again", 3),
        ("results/iter_1/model/weights.pt", "rm -r {run}/results/iter_1/model, then run again", 3),
        ("results/iter_1/model/model.json", "rm -r {run}/results/iter_1/model, then run again", 3),
        ("data/answers/iter_1/answers.jsonl", "restore it from a copy", 4),
        (f"data/answers/labelmelite/{FILE}", "restore it from a copy", 4),
    ],
)
def test_each_kind_of_damage_is_named_with_what_to_do(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, remedy: str, status: int
) -> None:
    flip(run / name, 0 if name.endswith(("jsonl", FILE)) else -3)
    assert main(["doctor", "--deep", "--run", str(run)]) == status
    output = capsys.readouterr().out
    assert remedy.format(run=run) in output
    whole = run / name.partition(".zarr/")[0]
    assert str(whole) in output
    assert main(["doctor", "--deep", "--json", "--run", str(run)]) == status
    found = json.loads(capsys.readouterr().out)
    assert [one["file"].startswith(str(whole.parent)) for one in found["damaged"]] == [True] * len(found["damaged"])


def test_files_without_a_checksum_are_read_and_listed(run: Path) -> None:
    path = run / "results/iter_1/summary.json"
    integrity.unseal(path)
    found = examine_run(run, deep=True)
    assert found.without == [str(path)] and found.damaged == []
    assert f"every byte: {path}" in found.text(None)
    path.write_text("{")
    assert [one.file for one in examine_run(run, deep=True).damaged] == [str(path)]


@pytest.mark.parametrize("empty", [lambda path: path.mkdir(), lambda path: None])
def test_no_run_is_said(tmp_path: Path, empty: Callable[[Path], None]) -> None:
    empty(tmp_path / "nothing")
    with pytest.raises(SegloopError, match="nothing holds no run"):
        examine_run(tmp_path / "nothing", deep=True)


def test_options_that_do_not_fit(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--run", str(run), "x"], [], ["x", "--deep"], ["--run", str(run), "--repaired", "y"]):
        assert main(["doctor", *arguments]) == 1
        assert "error: " in capsys.readouterr().err
