import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segloop.config import AnnotationConfig, load
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.runs import RunClaim, asking, claimed, record_run, redrawing

HOLD = """
import pathlib, sys, time
from segloop.runs import RunClaim
claim = RunClaim(pathlib.Path(sys.argv[1]))
print(claim.held, flush=True)
time.sleep(60)
"""


def _holder(directory: Path) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "scripts"), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "True"
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_second_claim_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    process = _holder(tmp_path)
    try:
        claim = RunClaim(tmp_path)
        assert not claim.held
        with pytest.raises(SegloopError, match=f"another Snakemake works in .*process {process.pid} on"):
            claim.wait(seconds=0.3)
    finally:
        _end(process)
    claim.wait(seconds=5)
    assert claim.held
    claim.release()


def test_the_lock_of_a_killed_snakemake_is_cleared_and_a_living_ones_is_not(tmp_path: Path) -> None:
    process = _holder(tmp_path)
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir()
    (locks / "0.input.lock").write_text("a.json\n")
    RunClaim(tmp_path).release()
    assert (locks / "0.input.lock").exists()
    _end(process)
    RunClaim(tmp_path).release()
    assert not list(locks.iterdir())


def test_the_record_repeats_the_run(tmp_path: Path) -> None:
    config = load({"seed": 7, "training": {"scale_jitter": [0.5, 2]}})
    record_run(config=config, output=tmp_path / "run.json", configuration=tmp_path / "c.yaml", lock=tmp_path / "r.lock")
    assert load(yaml.safe_load((tmp_path / "c.yaml").read_text())) == config
    assert read_json(tmp_path / "run.json")["versions"]["torch"]
    lock = (tmp_path / "r.lock").read_text().splitlines()
    assert any(line.startswith("numpy==") for line in lock)
    assert lock == sorted(lock, key=str.lower)


def test_a_waiting_run_says_which_files_it_waits_for() -> None:
    text = asking(2, Path("/runs/a"), AnnotationConfig())
    assert "/runs/a/data/answers/iter_2/complete.json" in text


def test_without_locks_of_the_file_system_snakemakes_own_alone_guards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Lustre mounted without `flock`: nobody's lock is taken for stale."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()
    claim = RunClaim(tmp_path)
    claim.wait()
    claim.release()
    assert (locks / "0.input.lock").exists()
    assert not claimed(tmp_path)


def test_a_run_says_which_masks_wait_to_be_redrawn(tmp_path: Path) -> None:
    people = AnnotationConfig.model_validate({"annotator": "people", "audit": {"redraws": 5}})
    for iteration, redrawn in ((1, 5), (2, 3)):
        write_json(tmp_path / f"results/iter_{iteration}/quality.json", {"sample": 5, "redrawn": redrawn})
    text = redrawing(3, tmp_path, people)
    assert "3 of the 5 masks" in text and f"{tmp_path}/data/answers/iter_2/redraws.jsonl" in text
    assert f"{tmp_path}/results/iter_2/quality_sample.json" in text and "iter_1" not in text
    assert redrawing(1, tmp_path, people) == ""
    assert redrawing(3, tmp_path, AnnotationConfig()) == ""
    assert redrawing(3, tmp_path, people.model_copy(update={"annotator": "oracle"})) == ""
