"""Before the first job: what SLURM would refuse, or leave in the queue for ever, is said at once and by its setting."""

import getpass
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segloop import slurm
from segloop.errors import SegloopError
from segloop.slurm import QueuedJob

logger = logging.getLogger("segloop")

PROFILE: Final = "profiles/slurm/config.yaml"
LEAST_FREE_BYTES: Final = 500_000_000
"""A run is not started on a file system with less room: its first stores would not fit."""


@dataclass(frozen=True)
class Request:
    """What the jobs of a rule ask of SLURM."""

    rule: str
    partition: str | None
    account: str | None
    gpus: int
    cpus: int
    mem_mb: int
    minutes: int
    qos: str | None = None

    @classmethod
    def of(cls, rule: str, resources: Mapping[str, Any], threads: int) -> "Request":
        """Return the request that snakemake-executor-plugin-slurm makes of a job's resources."""

        def number(name: str) -> int:
            # What depends on a file that does not exist yet is no number.
            return value if isinstance(value := resources.get(name), int) else 0

        def text(name: str) -> str | None:
            return str(resources[name]) if resources.get(name) else None

        return cls(
            rule,
            text("slurm_partition"),
            text("slurm_account"),
            number("gpu"),
            number("cpus_per_task") or threads,
            number("mem_mb"),
            number("runtime"),
            text("qos"),
        )

    def options(self) -> list[str]:
        """Return the request as options of sbatch."""
        named = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "gpus": self.gpus,
            "cpus-per-task": self.cpus,
            "mem": self.mem_mb,
            "time": self.minutes,
        }
        return [f"--{name}={value}" for name, value in named.items() if value]


@dataclass(frozen=True)
class Node:
    """What the nodes of one kind in a partition offer."""

    cpus: int
    mem_mb: int
    gpus: int


@dataclass(frozen=True)
class Partition:
    """A partition: its longest time limit in minutes (infinite: none) and its kinds of nodes."""

    minutes: float
    nodes: tuple[Node, ...]


def check(directory: Path, requests: Iterable[Request], status_command: str, seconds_before_check: int) -> None:
    """Refuse to start what cannot work on this SLURM.

    Parameters
    ----------
    directory
        The run directory.
    requests
        What the planned jobs ask for, each kind once.
    status_command, seconds_before_check
        The profile's `slurm-status-command` and `slurm-init-seconds-before-status-checks`.

    Raises
    ------
    SegloopError
        If there is no SLURM, jobs of a killed run still work in the directory, its file system is full, or SLURM
        cannot run a request; each problem is one line that names the setting to change.
    """
    wanted = sorted(set(requests), key=lambda request: request.rule)
    offered = partitions()
    refuse_left_over(directory, slurm.left_over(directory))
    refuse_full_disk(directory)
    _warn_of_private_folder(directory)
    found = misfits(wanted, offered) + _watching(status_command, seconds_before_check) + _accounts(wanted)
    found = found or [line for request in wanted for line in _refused(request)]
    if found:
        raise SegloopError("this cluster cannot run the workflow as it is configured:\n  " + "\n  ".join(found))


def refuse_left_over(directory: Path, jobs: list[QueuedJob]) -> None:
    """Raise a SegloopError if jobs of a killed run still work in the run directory and would be started again."""
    jobs = [job for job in jobs if not job.goes_on]
    if jobs:
        raise SegloopError(
            f"{describe(jobs)} of a Snakemake that was killed still work in {directory}; the same jobs beside them "
            "would write the same files. Wait until they have ended (`segloop run` does), or end them with "
            f"`segloop cancel --directory {directory}`."
        )


def describe(jobs: list[QueuedJob], most: int = 5) -> str:
    """Return jobs in words: how many, and the ids and rules of the first."""
    named = [f"{job.id} {job.comment.removeprefix('rule_').replace('_wildcards_', ' ')}" for job in jobs[:most]]
    more = ", ..." if len(jobs) > most else ""
    return f"{len(jobs)} job{'s' if len(jobs) != 1 else ''} ({', '.join(named)}{more})"


def refuse_full_disk(directory: Path) -> None:
    """Raise a SegloopError if the run directory's file system has next to no room."""
    free = shutil.disk_usage(directory).free
    if free < LEAST_FREE_BYTES:
        raise SegloopError(
            f"only {free / 1e6:.0f} MB are free on the file system of {directory}. Free some, choose another "
            "--directory, or let older iterations keep less (retention.embeddings, retention.low_scores)."
        )


def _warn_of_private_folder(directory: Path) -> None:
    private = ("/tmp", "/var/tmp", "/dev/shm", os.environ.get("TMPDIR", "/tmp"))
    if any(directory.resolve().is_relative_to(folder) for folder in private):
        logger.warning("%s is usually not shared with the nodes: if jobs leave no log, choose another", directory)


# --- what the cluster offers ------------------------------------------------------------------------------------------


def partitions() -> dict[str, Partition]:
    """Return the partitions of this cluster by name.

    Raises
    ------
    SegloopError
        If there is no SLURM here, or its controller does not answer.
    """
    answer = slurm.ask("sinfo", "--noheader", "--exact", "--all", "--format=%R|%l|%c|%m|%G")
    if answer.returncode:
        raise slurm.unreachable("sinfo", answer.stderr)
    return parse_partitions(answer.stdout)


def parse_partitions(text: str) -> dict[str, Partition]:
    """Parse lines `partition|time limit|CPUs|MB|GRES` of sinfo, one a kind of nodes."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, limit, cpus, mem_mb, gres = line.split("|", 4)
        node = Node(int(cpus.rstrip("+")), int(mem_mb.rstrip("+")), _gpus(gres))
        before = found[name].nodes if name in found else ()
        found[name] = Partition(_minutes(limit), (*before, node))
    return found


def _gpus(gres: str) -> int:
    # Such as "gpu:a100:4(S:0-1),shard:8", "gpu:2", "(null)".
    return sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", gres))


def _minutes(limit: str) -> float:
    # "infinite", "5:00", "12:00:00", "7-00:00:00"
    if not limit[:1].isdigit():
        return float("inf")
    days, _, clock = limit.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return int(days or 0) * 24 * 60 + seconds / 60


# --- what does not fit ------------------------------------------------------------------------------------------------


def misfits(requests: Iterable[Request], offered: Mapping[str, Partition]) -> list[str]:
    """Return one line for each request that no node of its partition can ever meet."""
    return [line for request in requests for line in _misfit(request, offered)]


def _misfit(request: Request, offered: Mapping[str, Partition]) -> list[str]:
    if request.partition is None:
        return []
    partition = offered.get(request.partition)
    if partition is None:
        return [
            f"{request.rule}: there is no partition {request.partition} (there are: {', '.join(sorted(offered))}). "
            f"Change slurm_partition in {PROFILE}."
        ]
    lines = []
    if request.minutes > partition.minutes:
        lines.append(
            f"{request.rule}: it asks for {request.minutes} minutes, partition {request.partition} allows "
            f"{partition.minutes:.0f}. {_remedy(request, 'runtime')}"
        )
    for name, value, unit, setting in (
        ("gpus", request.gpus, "GPUs", "gpu"),
        ("mem_mb", request.mem_mb, "MB of memory", "mem_mb"),
        ("cpus", request.cpus, "cores", "threads (the configuration's `threads` and `workers`)"),
    ):
        most = max((getattr(node, name) for node in partition.nodes), default=0)
        if value > most:
            lines.append(
                f"{request.rule}: it asks for {value} {unit}, no node of partition {request.partition} has more than "
                f"{most}. {_remedy(request, setting)}"
            )
    return lines


def _remedy(request: Request, setting: str) -> str:
    return f"Change {setting} or slurm_partition of {request.rule} under set-resources in {PROFILE}."


def _watching(status_command: str, seconds: int) -> list[str]:
    """Return what would keep Snakemake from ever noticing that a job has ended."""
    no_accounting = _complaint("sacct", "--allocations", "--noheader")
    if status_command == "sacct" and no_accounting:
        return [f"sacct does not work here ({no_accounting}). Set slurm-status-command: squeue in {PROFILE}."]
    age = re.search(r"MinJobAge\s*=\s*(\d+)", slurm.ask("scontrol", "show", "config").stdout)
    # With accounting, what the queue forgot is asked of sacct.
    if age and int(age[1]) < 3 * seconds and no_accounting:
        return [
            f"this SLURM forgets jobs {age[1]} s after their end, sooner than Snakemake looks. Set "
            f"slurm-init-seconds-before-status-checks to at most {int(age[1]) // 3} in {PROFILE}."
        ]
    return []


def _complaint(*command: str) -> str:
    """Return why a command of SLURM does not work here; nothing if it does."""
    try:
        answer = slurm.ask(*command)
    except SegloopError as error:
        return str(error)
    return (answer.stderr or answer.stdout).strip() if answer.returncode else ""


def _accounts(requests: Iterable[Request]) -> list[str]:
    wanted = {account for request in requests if request.account for account in re.split(r"[,\s]+", request.account)}
    if not wanted:
        return []
    command = ("sacctmgr", "-n", "-s", "list", "user", getpass.getuser(), "format=account%256")
    if _complaint(*command):
        return [f"slurm_account is set, but this SLURM keeps no accounts. Remove slurm_account from {PROFILE}."]
    known = {name.strip().lower() for name in slurm.ask(*command).stdout.splitlines() if name.strip()}
    listed = ", ".join(sorted(known))
    return [
        f"{account} is not an account of yours (yours: {listed}). Change slurm_account in {PROFILE}."
        for account in sorted(wanted)
        if known and account.lower() not in known
    ]


def _refused(request: Request) -> list[str]:
    """Return what SLURM itself has against a request, but for what may pass."""
    asked = request.options()
    said = slurm.refusal("\n".join(["#!/bin/sh", *(f"#SBATCH {option}" for option in asked), "true\n"]))
    if said is None:
        return []
    return [f"{request.rule}: SLURM refuses {' '.join(asked)}: {said}. Change the site values in {PROFILE}."]


# --- after a failure --------------------------------------------------------------------------------------------------


def explain_failures(log: Path) -> list[str]:
    """Return one line for each kind of failure in Snakemake's log that the batch system caused, with its setting.

    Parameters
    ----------
    log
        Snakemake's log of a run on SLURM. Failures of the scripts themselves are not explained: they say what to do.
    """
    text = log.read_text(encoding="utf-8", errors="replace")
    logs = dict(re.findall(r"has been submitted with SLURM jobid (\d+) \(log: (.+)\)\.", text))
    failed = re.findall(r"Error in rule (\w+):\s+message: SLURM-job '(\d+)' failed, SLURM status is: '(\w+)'", text)
    lines = {_explanation(rule, state, Path(logs[job])): None for rule, job, state in failed if job in logs}
    return [line for line in lines if line]


def _explanation(rule: str, state: str, log: Path) -> str:
    said = log.read_text(encoding="utf-8", errors="replace")[-20_000:] if log.exists() else None
    if said is None:
        return (
            f"{rule}: the job left no log in {log.parent}. Do the nodes see this folder? Choose a --directory on a "
            "file system that all nodes share."
        )
    short = slurm.what_was_short(state, said)
    if short is None:
        return ""
    setting = {"time": "runtime (minutes)", "memory": "mem_mb"}[short]
    return f"{rule}: its {short} was too little. Raise its {setting} under set-resources in {PROFILE}."
