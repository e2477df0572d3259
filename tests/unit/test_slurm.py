"""Words that SLURM says, and what is done about them; tests/slurm asks a real one."""

import os
from pathlib import Path

import pytest

from segloop import slurm
from segloop.errors import SegloopError
from segloop.slurm import QueuedJob, in_one_line, never_starts, outside_of_jobs, queue, what_was_short


def job(state: str = "RUNNING", comment: str = "rule_predict_shard_wildcards_1_0") -> QueuedJob:
    return QueuedJob("7", state, "None", Path("/runs/a"), comment)


def test_states() -> None:
    assert [job(state).ended for state in ("RUNNING", "PENDING", "TIMEOUT", "NODE_FAIL")] == [False, False, True, True]
    assert job("PENDING").waits
    assert job(comment="training_x").goes_on
    assert not job().goes_on


@pytest.mark.parametrize(
    ("state", "log", "short"),
    [
        ("TIMEOUT", "", "time"),
        ("FAILED", "*** JOB 5 ON n1 CANCELLED AT ... DUE TO TIME LIMIT ***", "time"),
        ("OUT_OF_MEMORY", "", "memory"),
        ("FAILED", "slurmstepd: error: Step 5.0 exceeded memory limit (400 > 300), being killed", "memory"),
        ("FAILED", "error: the training set is empty", None),
    ],
)
def test_what_was_short(state: str, log: str, short: str | None) -> None:
    assert what_was_short(state, log) == short


def test_a_refusal_is_one_line() -> None:
    said = "sbatch: error: Invalid qos\nallocation failure: Batch job submission failed: Invalid qos specification\n"
    assert in_one_line(said) == "Invalid qos: Invalid qos specification"
    assert never_starts("PartitionTimeLimit") == ("time limit",)
    assert never_starts("Priority") == ()


def test_without_slurm_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SegloopError, match=r"no SLURM on this machine \(squeue is not in PATH\).*profiles/local"):
        queue()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "squeue: error: fetch_config: lookup failed\nsqueue: fatal: Could not establish a configuration source",
            r"no SLURM on this machine \(squeue finds no configuration.*profiles/local",
        ),
        (
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
            r"SLURM does not answer \(squeue: .*connect failure\)\)\. Is its controller up",
        ),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, words: str
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(slurm.Unreachable, match=words) as caught:
        queue()
    assert "\n" not in str(caught.value)


def test_a_silent_controller_says_nothing_about_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even within the time that it is given."""
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nexec sleep 60\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_TIMEOUT_S", 0.2)
    with pytest.raises(slurm.Unreachable, match="did not answer"):
        queue()


def test_an_inner_job_does_not_see_the_outer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    with outside_of_jobs():
        assert not {"SLURM_JOB_ID", "SBATCH_PARTITION", "MASTER_PORT"} & set(os.environ)
        assert os.environ["SLURM_CONF"] == "/etc/slurm.conf"
    assert os.environ["SLURM_JOB_ID"] == "1"
