"""One job by submitit: submit it or find it again, follow its log, and tell how it ended."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths, environment_variables, pickle_load

from segloop import slurm
from segloop.config import TrainingClusterConfig
from segloop.errors import SegloopError

logger = logging.getLogger("segloop.detection")

_LOOK_S = 10.0
"""Seconds between two looks at the queue."""
_PATIENCE_S = 20.0
"""A job that has ended is given so long for its result to become visible on a shared file system."""
_LEAVE_S = 120.0
"""A local job that has its result, or was told to end, is given so long to do so."""


@dataclass(frozen=True)
class Submission:
    """What job to submit.

    Attributes
    ----------
    name, request
        Which work it is, and with what settings: by both, a job that an earlier call submitted is found again.
    folder
        For its files and logs.
    cluster, threads, device
        Where it runs, threads of each process, and `device` of the configuration.
    """

    name: str
    request: str
    folder: Path
    cluster: TrainingClusterConfig
    threads: int
    device: str

    @property
    def comment(self) -> str:
        """By which SLURM shows that the job belongs to the workflow."""
        return f"{slurm.TRAINING}{self.name} {self.request}"


class _Handle(Protocol):
    """A submitted job."""

    @property
    def id(self) -> str:
        """Its number."""

    def ended(self) -> str | None:
        """Return the state in which it ended, or None while it waits, runs, or nobody knows."""

    def cancel(self) -> None:
        """End it."""

    def leave(self) -> None:
        """Let go of it when its work is done."""


def run(function: Callable[[], Any], submission: Submission) -> None:
    """Run a function in every process of a job, and return when the job has done it.

    Raises
    ------
    SegloopError
        If the job cannot be submitted, can never start, or does not succeed; what its function says passes on.
    """
    with _importable():
        if submission.cluster.kind == "debug":
            _run_here(function, submission.folder)
            return
        handle = _find(submission) or _submit(function, submission)
    paths = [JobPaths(submission.folder / "%j", handle.id, task) for task in range(submission.cluster.tasks)]
    try:
        _follow(handle, paths)
    except BaseException:
        # Also on Ctrl-C. A caller that is killed cannot do this; then the next one finds the job and follows it.
        handle.cancel()
        raise
    handle.leave()


def _run_here(function: Callable[[], Any], folder: Path) -> None:
    job = submitit.DebugExecutor(folder).submit(function)
    with environment_variables(SUBMITIT_DEBUG_JOB_ID="debug", SUBMITIT_FOLDER=str(folder.absolute())):
        error = job.exception()
    if error is not None:
        raise error


def _submit(function: Callable[[], Any], submission: Submission) -> _Handle:
    cluster = submission.cluster
    try:
        with slurm.outside_of_jobs():
            executor = submitit.AutoExecutor(
                submission.folder / "%j",
                cluster=cluster.kind,
                slurm_max_num_timeout=cluster.requeues,
                local_max_num_timeout=cluster.requeues,
            )
            executor.update_parameters(**parameters(submission))
            job = executor.submit(function)
    except (FailedJobError, FailedSubmissionError) as error:
        raise SegloopError(_refused(slurm.in_one_line(str(error)))) from None
    except RuntimeError:
        raise SegloopError(
            "there is no SLURM on this machine (srun is not in PATH). Run this on a login node of the cluster, or set "
            "training.cluster.kind: local or training.launcher: inline."
        ) from None
    logger.info("submitted %s as job %s; its files are in %s", submission.name, job.job_id, job.paths.folder)
    return _LocalHandle(job) if isinstance(job, submitit.LocalJob) else _SlurmHandle(job.job_id)


def parameters(submission: Submission) -> dict[str, Any]:
    """Return the job's parameters, as submitit takes them."""
    cluster = submission.cluster
    return {
        "name": submission.name,
        "nodes": cluster.nodes,
        "tasks_per_node": cluster.tasks_per_node,
        "gpus_per_node": _gpus_per_node(cluster, submission.device) or None,
        "cpus_per_task": submission.threads,
        "timeout_min": cluster.timeout_minutes,
        # One log a process: what it prints, its errors, and what SLURM says.
        "stderr_to_stdout": True,
        "slurm_mem": f"{cluster.memory_mb}M",
        "slurm_signal_delay_s": cluster.signal_delay,
        "slurm_partition": cluster.partition,
        "slurm_account": cluster.account,
        "slurm_qos": cluster.qos,
        "slurm_comment": submission.comment,
        "slurm_setup": cluster.setup or None,
        # srun does not inherit the CPUs of a process (since SLURM 22.05), and waits for others when one has failed.
        "slurm_srun_args": [f"--cpus-per-task={submission.threads}", "--kill-on-bad-exit=1"],
        "slurm_additional_parameters": {"requeue": True, **cluster.extra},
    }


def _gpus_per_node(cluster: TrainingClusterConfig, device: str) -> int:
    if cluster.gpus_per_node is not None:
        return cluster.gpus_per_node
    if device == "cpu":
        return 0
    if cluster.kind == "slurm":
        return cluster.tasks_per_node
    import torch

    return min(torch.cuda.device_count(), cluster.tasks_per_node)


def _refused(reason: str) -> str:
    """Return what to tell a person about a job that sbatch did not take."""
    words = {
        "partition": "training.cluster.partition",
        "account": "training.cluster.account",
        "qos": "training.cluster.qos",
        "time limit": "training.cluster.timeout_minutes",
        "node configuration": "training.cluster.nodes, tasks_per_node, gpus_per_node and memory_mb",
        "node count": "training.cluster.nodes",
        "memory": "training.cluster.memory_mb",
    }
    settings = [setting for word, setting in words.items() if word in reason.lower()] or ["training.cluster"]
    return f"SLURM refuses the training job: {reason}. Check {', '.join(settings)} in the configuration."


@contextmanager
def _importable() -> Iterator[None]:
    """Let the processes of a job import this package, whether it is installed or not."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    with environment_variables(PYTHONPATH=path):
        yield


# --- jobs and what is known about them --------------------------------------------------------------------------------


_KEYS: Final = {"time limit": "timeout_minutes"}
"""Keys of `training.cluster` that are named otherwise than what SLURM objects to."""


@dataclass
class _SlurmHandle:
    id: str
    _seen: str = ""

    def ended(self) -> str | None:
        try:
            found = slurm.queue([self.id])
        except slurm.Unreachable as error:
            self._say(f"nothing is known about job {self.id}: {error}")
            return None
        if not found:
            return "unknown to SLURM"
        self._say(f"job {self.id}: {found[0].state}" + (f" ({found[0].reason})" if found[0].waits else ""))
        if found[0].waits and (causes := slurm.never_starts(found[0].reason)):
            names = [f"training.cluster.{_KEYS.get(cause, cause)}" for cause in causes]
            raise SegloopError(
                f"the training job {self.id} can never start ({found[0].reason}). Check {', '.join(names)}."
            )
        return found[0].state if found[0].ended else None

    def cancel(self) -> None:
        slurm.cancel([self.id])

    def leave(self) -> None:
        pass

    def _say(self, text: str) -> None:
        if text != self._seen:
            logger.info(text)
        self._seen = text


@dataclass
class _LocalHandle:
    job: submitit.LocalJob[Any]

    @property
    def id(self) -> str:
        return self.job.job_id

    def ended(self) -> str | None:
        return self.job.state if self.job.done() else None

    def cancel(self) -> None:
        self.job.cancel()
        self.leave()

    def leave(self) -> None:
        # Its result is there, or it was told to end: it does, however busy this machine is.
        end = time.monotonic() + _LEAVE_S
        while not self.job.done() and time.monotonic() < end:
            time.sleep(0.1)


def _find(submission: Submission) -> _Handle | None:
    """Return the job that an earlier call submitted for the same work, if it is still there.

    One for the same output with other settings is cancelled first: both would write the same checkpoints.
    """
    if submission.cluster.kind != "slurm":
        return None
    here, first = Path.cwd(), submission.comment.split()[0]
    jobs = [job for job in slurm.queue() if not job.ended and job.directory == here]
    same = [job for job in jobs if job.comment == submission.comment]
    other = [job for job in jobs if job.comment.split()[:1] == [first] and job not in same[:1]]
    if other:
        ids = [job.id for job in other]
        logger.warning("job %s was submitted for the same output with other settings; it is cancelled", ", ".join(ids))
        slurm.cancel(ids)
        slurm.wait_for_end(ids)
    if not same:
        return None
    logger.info("job %s, which an earlier run submitted, does this already; it is followed", same[0].id)
    return _SlurmHandle(same[0].id)


# --- following --------------------------------------------------------------------------------------------------------


@dataclass
class _Tail:
    """Passes on what is written to a log."""

    path: Path
    _read: int = 0
    _rest: bytes = field(default=b"")

    def relay(self) -> None:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
            self._read += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            for line in lines:
                logger.info("| %s", line.decode("utf-8", "replace"))


def _follow(handle: _Handle, paths: list[JobPaths]) -> None:
    """Return when the first process has its result; raise when the job has ended without a good one."""
    log = _Tail(paths[0].stdout)
    looked = lost = 0.0
    ended: str | None = None
    while not (lost and time.monotonic() - lost > _PATIENCE_S):
        outcome, _ = _result(paths[0])
        log.relay()
        if outcome == "success":
            return
        # After an error, too: the job may have been put back into the queue, and will do its work again.
        if time.monotonic() - looked > (_LOOK_S if outcome is None else 1.0):
            ended, looked = handle.ended(), time.monotonic()
            lost = (lost or looked) if ended else 0.0
        if ended and outcome == "error":
            break
        time.sleep(0.5)
    raise SegloopError(_explain(handle.id, ended or "", paths))


def _result(paths: JobPaths) -> tuple[str | None, Any]:
    """Return what a process left: ("success", value), ("error", traceback) or (None, None)."""
    with contextlib.suppress(OSError):
        # Makes NFS look again.
        paths.folder.chmod(paths.folder.stat().st_mode)
    try:
        outcome, value = pickle_load(paths.result_pickle)
    except (FileNotFoundError, EOFError):
        return None, None
    return outcome, value


def _explain(job: str, ended: str, paths: list[JobPaths]) -> str:
    """Return what a person can do about a job that failed."""
    traces = [str(trace).strip() for outcome, trace in map(_result, paths) if outcome == "error"]
    told = [trace.partition("SegloopError: ")[2] for trace in traces if "SegloopError: " in trace]
    if told:
        # One process found it, the others only that it is gone.
        return told[0]
    again = "The same command goes on from the last checkpoint."
    log = paths[0].stdout
    if traces:
        return f"the training job {job} failed: {traces[0].splitlines()[-1]}. See {log}. {again}"
    if not log.exists():
        return (
            f"the training job {job} ended without a result or a log ({ended}). Does {log.parent} lie on a file system "
            f"that all nodes share? If so, perhaps it was cancelled before it started. {again}"
        )
    text = log.read_text(errors="replace")
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")
    remedy = {
        "memory": " It took more memory than it was given: raise training.cluster.memory_mb.",
        "time": " Its time ended before it could be put back: raise training.cluster.timeout_minutes or signal_delay.",
        None: f" The last line of its log is: {last}",
    }[slurm.what_was_short(ended, text)]
    return f"the training job {job} ended without a result ({ended}); its log is {log}.{remedy} {again}"
