import errno
import json
import shlex
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
from segloop.config import load
from segloop.data.doctor.findings import Status
from segloop.data.doctor.run_folders import examine_run
from segloop.detection.model_files import weights_sha256
from segloop.errors import SegloopError
from segloop.files import sha256_file, write_json
from segloop.runs import record_start
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
    ("name", "made", "status"),
    [
        ("results/iter_1/tree.zarr/score/c/0", "results/iter_1/tree.zarr", 3),
        ("results/iter_1/tree.zarr/score/zarr.json", "results/iter_1/tree.zarr", 3),
        ("results/iter_1/summary.json", "results/iter_1/summary.json", 3),
        ("results/iter_1/answers.parquet", "results/iter_1/answers.parquet", 3),
        ("results/iter_1/model/weights.pt", "results/iter_1/model", 3),
        ("results/iter_1/model/model.json", "results/iter_1/model", 3),
        ("data/answers/iter_1/answers.jsonl", "", 4),
        (f"data/answers/labelmelite/{FILE}", "", 4),
    ],
)
def test_each_kind_of_damage_is_named_with_what_to_do(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, made: str, status: int
) -> None:
    flip(run / name, 0 if name.endswith(("jsonl", FILE)) else -3)
    assert main(["doctor", "--deep", "--run", str(run)]) == status
    output = capsys.readouterr().out
    assert (f"rm -r {run}/{made}, then run with `-- {made}`" if made else "restore it from a copy") in output
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


def test_what_is_to_be_typed_may_be_pasted(run: Path) -> None:
    folder = run.rename(run.with_name("my run"))
    flip(folder / "results/iter_1/summary.json")
    (found,) = examine_run(folder, deep=True).damaged
    assert shlex.split(found.repair)[:3] == ["rm", "-r", f"{folder}/results/iter_1/summary.json,"]


def test_answers_outside_of_the_run_come_from_a_copy(run: Path, tmp_path: Path) -> None:
    (run / "data/answers").rename(tmp_path / "answers")
    config = {"annotation": {"answers_root": str(tmp_path / "answers")}}
    (run / "results/config.yaml").write_text(json.dumps(config))
    flip(tmp_path / "answers/iter_1/answers.jsonl", 0)
    found = examine_run(run, deep=True)
    assert [one.file for one in found.damaged] == [str(tmp_path / "answers/iter_1/answers.jsonl")]
    assert found.status == Status.UNUSABLE


def test_a_file_that_the_disk_cannot_read_is_one_finding(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(integrity, "check", broken)
    found = examine_run(run, deep=True)
    # Three documents and the weights.
    assert len(found.damaged) == 4 and "cannot be read ([Errno 5] Input/output error)" in found.damaged[0].reason


def test_what_was_deleted_of_a_complete_iteration_is_missing(run: Path) -> None:
    record_start(run, load({"pool": {"shards": 2, "truth": {}}}), slurm=False)
    found = examine_run(run, deep=False)
    assert "results/iter_1/predictions/*.zarr: 0 of 2 parts of the step predict are there" in found.missing
    assert "missing: results/iter_1/index.zarr" in found.text(None)
    assert not any("tree.zarr" in one for one in found.missing)
