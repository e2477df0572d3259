"""Launch a training: in this process, or as a job of its own, which survives whoever launched it."""

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import pydantic
import submitit

from segloop.config import TrainingConfig
from segloop.detection.submission import Submission, run
from segloop.files import fingerprint
from segloop.jobs import end_with_snakemake
from segloop.randomness import seed_of

# Neither torch nor the training is imported here: a signal that comes before submitit is ready ends the job, and torch
# takes seconds.

logger = logging.getLogger("segloop.detection")


def launch_training(
    *, settings: TrainingConfig, name: str, folder: Path, output: Path, checkpoints: Path, **arguments: Any
) -> None:
    """Train a detector where the configuration says.

    With submitit the model is made beside the checkpoints and moved to `output` at the end. So a job that outlives the
    process that follows it, because Snakemake was killed, is not lost: the next call finds the job or the finished
    model, and never starts a second one beside the first.

    Parameters
    ----------
    settings
        Only `launcher` and `cluster` are looked at; what is learned stands in `arguments`.
    name
        Of the job, the same whenever this training is launched, such as "train_detector_2".
    folder
        For the job's files and logs, one folder a job; on a file system that all nodes share.
    output, checkpoints, arguments
        As `segloop.detection.training.train_detector` takes them; all paths are relative to the run directory, or
        absolute.

    Raises
    ------
    SegloopError
        If the job cannot be submitted, ends without a result, or the training itself finds an error.
    """
    if settings.launcher == "inline":
        from segloop.detection.training import train_detector

        train_detector(output=output, checkpoints=checkpoints, **arguments)
        return
    request = request_of(arguments)
    finished = checkpoints.with_name(f"{checkpoints.name}.{request}")
    if not finished.exists():
        job = TrainingJob(arguments | {"output": finished, "checkpoints": checkpoints})
        run(job, Submission(name, request, folder, settings.cluster, job.threads, job.device))
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    finished.rename(output)
    for left in (checkpoints, *checkpoints.parent.glob(f"{checkpoints.name}.*")):
        shutil.rmtree(left, ignore_errors=True)


def request_of(arguments: dict[str, Any]) -> str:
    """Return a short name of what is to be learned, from what: another one means another model."""
    values = {name: _plain(value) for name, value in arguments.items()}
    # A name of a model zoo is no file, and stays the same "missing".
    files = [arguments.get(name) for name in ("training_set", "previous_model", "validation_set")]
    files.append(arguments["detector"].configuration)
    values["files"] = [fingerprint(path) for path in files if path]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, TrainingConfig):
        return value.model_dump(mode="json", exclude=value.WHERE)
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class TrainingJob:
    """What submitit runs in each process of a job; the attribute holds the arguments of `train_detector`."""

    arguments: dict[str, Any]

    @property
    def threads(self) -> int:
        """Threads of each process."""
        return int(self.arguments["training"].threads)

    @property
    def device(self) -> str:
        """`auto`, `cpu` or `cuda`."""
        return str(self.arguments["device"])

    def __call__(self) -> None:
        """Train as one of the job's processes."""
        with Signals() as signals:
            from segloop.detection.distributed import Ranks, process_group
            from segloop.detection.segmenter import choose_gpu
            from segloop.detection.training import train_detector

            here = submitit.JobEnvironment()
            if here.cluster != "debug":
                end_with_snakemake()
                _log_to_stdout()
            # An error of this process before the job was requeued is none any more.
            here.paths.result_pickle.unlink(missing_ok=True)
            ranks = Ranks(here.global_rank, here.num_tasks)
            gpus = choose_gpu(self.device, here.local_rank)
            with process_group(ranks, _address(here), _port(here), gpus=gpus):
                train_detector(**self.arguments, ranks=ranks, interruption=signals)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return what a requeued job does: the same, from the last checkpoint."""
        return submitit.helpers.DelayedSubmission(self)


@dataclass
class Signals:
    """Puts off what submitit does about signals to the end of a step; it would act in the middle of one.

    Before the time limit, and on preemption where the site sends it, SIGUSR2 asks for a checkpoint and a requeue.
    SIGTERM comes before a job is ended or preempted without that: a checkpoint is written, so that less is lost.
    """

    save: bool = False
    leave: bool = False
    _before: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        # Without submitit's own handlers, as in its debug executor, there is nothing to put off.
        if callable(signal.getsignal(signal.SIGUSR2)):
            for number in (signal.SIGUSR2, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.save = True
        self.leave = self.leave or number == signal.SIGUSR2

    def end(self) -> None:
        """Requeue the job, if this is its first process, and end this process."""
        self._before[signal.SIGUSR2](signal.SIGUSR2, None)


def _address(here: submitit.JobEnvironment) -> str:
    """Return where the first process listens: on one node, nobody outside has to reach it."""
    return os.environ.get("MASTER_ADDR") or ("127.0.0.1" if here.num_nodes == 1 else here.hostnames[0])


def _port(here: submitit.JobEnvironment) -> int:
    """Return a port that all processes of this job agree on, and other jobs on the node hardly ever take."""
    return int(os.environ.get("MASTER_PORT") or 20_000 + seed_of("port", here.job_id) % 12_000)


def _log_to_stdout() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("segloop")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
