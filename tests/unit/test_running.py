"""What `segloop run` does before Snakemake starts, as far as that needs no SLURM; the rest is in tests/slurm."""

from pathlib import Path

import pytest

from segloop.config import load
from segloop.errors import SegloopError
from segloop.running import end_jobs, find_profile, settle, used_slurm
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
