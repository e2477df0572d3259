"""What SLURM knows about this user's jobs. Only squeue, scancel and sbatch are needed, no accounting."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segloop.errors import SegloopError

ENDED: Final = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)
"""States from which a job does not come back by itself (SLURM's job state codes; a requeued job is pending again)."""

TRAINING: Final = "training_"
"""How the comment of a training begins that submitit launched: the next run finds it and goes on with it."""

_NEVER_STARTS: Final = {
    "PartitionTimeLimit": ("time limit",),
    "QOSMaxWallDurationPerJobLimit": ("time limit",),
    "AssocMaxWallDurationPerJobLimit": ("time limit",),
    "PartitionNodeLimit": ("nodes",),
    "PartitionConfig": ("time limit", "nodes", "partition"),
    "BadConstraints": ("extra",),
    "InvalidAccount": ("account",),
    "InvalidQOS": ("qos",),
    "launch failed requeued held": ("setup",),
    "JobHoldMaxRequeue": ("setup",),
}
_BUSY: Final = ("not available now", "down, drained", "busy", "Unable to contact", "Socket timed out")
"""Words by which SLURM refuses a job only for the moment."""

_FORMAT = "%i|%T|%r|%Z|%k"
_TIMEOUT_S = 60


class Unreachable(SegloopError):
    """SLURM does not answer, which says nothing about the jobs."""


@dataclass(frozen=True)
class QueuedJob:
    """One job as squeue shows it.

    Attributes
    ----------
    id, state
        Such as "1234" and "RUNNING".
    reason
        Why it waits or how it ended, such as "Resources"; "None" while it runs.
    directory
        Where it was submitted.
    comment
        As given to sbatch. Jobs of the workflow have one that begins with `rule_`, `group_` or `training_`.
    """

    id: str
    state: str
    reason: str
    directory: Path
    comment: str

    @property
    def ended(self) -> bool:
        """Whether it will do nothing any more."""
        return self.state in ENDED

    @property
    def waits(self) -> bool:
        """Whether it has not started, or waits to start again."""
        return self.state == "PENDING"

    @property
    def goes_on(self) -> bool:
        """Whether the next run goes on with it instead of starting it again."""
        return self.comment.startswith(TRAINING)


def queue(ids: Sequence[str] = ()) -> list[QueuedJob]:
    """Return this user's jobs: those that wait or run, and for some minutes those that ended.

    Parameters
    ----------
    ids
        Only these jobs; all when empty. Jobs that SLURM no longer knows are left out.

    Raises
    ------
    Unreachable
        If the SLURM controller does not answer.
    SegloopError
        If there is no SLURM on this machine.
    """
    command = ["squeue", "--noheader", "--me", "--states=all", f"--format={_FORMAT}"]
    answer = ask(*command, *([f"--jobs={','.join(ids)}"] if ids else []))
    if answer.returncode and "Invalid job id" in answer.stderr:
        return []
    if answer.returncode:
        raise unreachable("squeue", answer.stderr)
    fields = [line.split("|", 4) for line in answer.stdout.splitlines() if line]
    return [QueuedJob(number, state, reason, Path(where), comment) for number, state, reason, where, comment in fields]


def left_over(directory: Path) -> list[QueuedJob]:
    """Return the workflow's jobs of one run directory that wait or run, of whichever Snakemake.

    Raises
    ------
    SegloopError
        As `queue`.
    """
    here = directory.resolve()
    jobs = (job for job in queue() if job.comment.startswith(("rule_", "group_", TRAINING)) and not job.ended)
    return [job for job in jobs if job.directory.resolve() == here]


def refusal(script: str) -> str | None:
    """Return why sbatch would not take a job script, or None if it would, perhaps later.

    Raises
    ------
    SegloopError
        If there is no SLURM on this machine.
    """
    answer = ask("sbatch", "--test-only", given=script)
    if not answer.returncode or any(words in answer.stderr for words in _BUSY):
        return None
    return in_one_line(answer.stderr)


def in_one_line(said: str) -> str:
    """Return what sbatch says about a refusal without its prefixes."""
    prefixes = ("sbatch: error: ", "allocation failure: ", "Batch job submission failed: ")
    lines = said.strip().splitlines()
    for prefix in prefixes:
        lines = [line.removeprefix(prefix) for line in lines]
    return ": ".join(lines)


def never_starts(reason: str) -> tuple[str, ...]:
    """Return what keeps a job waiting for ever; nothing if it may start one day.

    Parameters
    ----------
    reason
        As `QueuedJob.reason` (SLURM's job reason codes).

    Returns
    -------
    Such as "time limit", "nodes", "partition".
    """
    return _NEVER_STARTS.get(reason, ())


def what_was_short(state: str, log: str) -> str | None:
    """Return "time" or "memory" if SLURM ended a job for want of it, else None.

    Parameters
    ----------
    state
        The job's state; without control groups, a job that took too much memory is only FAILED.
    log
        What the job and SLURM wrote.
    """
    if state == "TIMEOUT" or "DUE TO TIME LIMIT" in log:
        return "time"
    words = ("exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory")
    return "memory" if state == "OUT_OF_MEMORY" or any(word in log for word in words) else None


def wait_for_end(ids: Sequence[str], seconds: float = 120.0) -> None:
    """Return when none of these jobs waits or runs any more.

    Raises
    ------
    SegloopError
        If one still does after `seconds`, or SLURM does not answer.
    """
    end = time.monotonic() + seconds
    while living := [job.id for job in queue(ids) if not job.ended]:
        if time.monotonic() > end:
            raise SegloopError(f"SLURM has not ended job {', '.join(living)} within {seconds:.0f} s. Try again later.")
        time.sleep(1.0)


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended already are no error.

    Raises
    ------
    SegloopError
        If there is no SLURM on this machine.
    """
    if ids:
        ask("scancel", *ids)


def ask(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM and return how it ended and what it said.

    Raises
    ------
    Unreachable
        If it takes too long.
    SegloopError
        If there is no such command on this machine.
    """
    try:
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except FileNotFoundError:
        raise SegloopError(_no_slurm(f"{command[0]} is not in PATH")) from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]} did not answer within {_TIMEOUT_S} s") from None


def unreachable(command: str, said: str) -> Unreachable:
    """Return the error that a command of SLURM found no controller, from what it said."""
    cause = (said.strip().splitlines() or ["it said nothing"])[-1].removeprefix(f"{command}: ")
    if "establish a configuration source" in cause:
        # The programs are there, but no cluster; or its controller, which tells them the configuration, is away.
        return Unreachable(_no_slurm(f"{command} finds no configuration: no slurm.conf and no controller"))
    return Unreachable(f"SLURM does not answer ({command}: {cause}). Is its controller up (`scontrol ping`)?")


def _no_slurm(why: str) -> str:
    return (
        f"there is no SLURM on this machine ({why}). Run this on a login node of the cluster, or choose what runs "
        "here: --profile profiles/local, training.cluster.kind: local, dask.cluster: local."
    )


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Submit from this block as if not from within a job: what an outer job was told must not reach an inner one.

    `SLURM_CONF` stays, by which the commands of some clusters find their configuration.
    """
    foreign = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
    torch = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    names = [name for name in os.environ if name.startswith(foreign) or name in torch]
    hidden = {name: os.environ.pop(name) for name in names if name != "SLURM_CONF"}
    try:
        yield
    finally:
        os.environ.update(hidden)
