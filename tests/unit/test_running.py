"""What `segloop run` does before Snakemake starts, as far as that needs no SLURM; the rest is in tests/slurm."""

from pathlib import Path

import pytest

from segloop import running
from segloop.config import load
from segloop.errors import SegloopError
from segloop.running import end_jobs, find_profile, run_workflow, settle, used_slurm
from segloop.runs import RunClaim, record_start


@pytest.mark.parametrize("name", ["slurm", "profiles/slurm", "local", "profiles/local"])
def test_a_profile_is_found_from_anywhere(
    name: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Path(find_profile(name))
    assert found.resolve() == repository / "profiles" / name.rpartition("/")[2]


def test_a_profile_of_ones_own_is_taken_as_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm").mkdir()
    assert find_profile("slurm") == "slurm"
    assert find_profile("elsewhere") == "elsewhere"


def test_slurm_is_asked_only_where_it_was_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settle(tmp_path, "refuse")
    (tmp_path / ".snakemake").mkdir()
    record_start(tmp_path, load({}), slurm=False)
    assert not used_slurm(tmp_path)
    settle(tmp_path, "wait")
    record_start(tmp_path, load({}), slurm=True)
    for call in (lambda: settle(tmp_path, "wait"), lambda: end_jobs(tmp_path)):
        with pytest.raises(SegloopError, match="no SLURM on this machine"):
            call()


def test_jobs_of_a_living_snakemake_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    claim = RunClaim(tmp_path)
    record_start(tmp_path, load({}), slurm=True)
    try:
        settle(tmp_path, "cancel")
    finally:
        claim.release()


@pytest.mark.parametrize(
    ("words", "settled"),
    [(["-n"], 0), (["-np"], 0), (["-q", "-nr"], 0), (["--dry-run"], 0), (["--unlock"], 0), (["-p"], 1), ([], 1)],
)
def test_what_starts_no_job_ends_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], settled: int
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(running, "settle", lambda directory, left_over: asked.append(left_over))
    monkeypatch.setattr(running, "_call", lambda command, directory: 1)
    config = tmp_path / "config.yaml"
    config.write_text("seed: 1\n")
    run_workflow(
        profile="local", configfile=config, directory=tmp_path, arguments=words, report=False,
        left_over_jobs="cancel", every=0,
    )  # fmt: skip
    assert asked == ["cancel"] * settled
