"""Worker processes by Dask for work that falls into independent pieces; one worker means no process at all."""

import contextlib
import json
import logging
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from segloop import slurm
from segloop.config import DaskConfig, load
from segloop.errors import SegloopError

logger = logging.getLogger("segloop")

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_S = 0.2
"""Seconds between two looks at results."""
_LOOK_S = 5.0
"""Seconds between two looks at workers that are SLURM jobs."""
_LEAVE_S = 60
"""So long before its time limit a worker hands its results over and ends."""


class OrderedMap(Protocol):
    """What `worker_map` yields: like the built-in `map`, but finished when it returns."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> list[Result]:
        """Return function(item) for every item, in the order of the items."""


@dataclass(frozen=True)
class Workplace:
    """Where worker processes run.

    Attributes
    ----------
    config
        The section `dask` of the configuration.
    name
        What the workers are for: the names of their SLURM jobs.
    folder
        For their scratch, and the logs of SLURM jobs, which all nodes must see; None: a temporary folder.
    """

    config: DaskConfig = field(default_factory=DaskConfig)
    name: str = "segloop"
    folder: Path | None = None

    @property
    def worker_bytes(self) -> int:
        """Memory of a worker that is a SLURM job."""
        return self.config.memory_mb * 1_000_000


HERE: Final = Workplace()
"""On this machine."""


def workplace(snakemake: Any) -> Workplace:
    """Return where the workers of a rule run: as configured, with their files beside the rule's log."""
    name = "_".join([snakemake.rule, *snakemake.wildcards])
    return Workplace(load(snakemake.config).dask, name, Path(snakemake.log[0]).with_suffix("").absolute())


@contextmanager
def worker_map(workers: int, threads: int = 1, where: Workplace = HERE) -> Iterator[OrderedMap]:
    """Yield a map over worker processes; they are gone when the block ends, however it ends.

    Results come in the order of the items, so that they don't depend on the number of workers.

    Parameters
    ----------
    workers
        Number of processes; 1 computes in this process. Of SLURM jobs, work begins when the first has started.
    threads
        Threads of numerical code in each worker process.
    where
        On this machine, or as SLURM jobs.

    Raises
    ------
    SegloopError
        If SLURM refuses the workers, none has started in `dask.timeout_seconds`, all are lost for so long, work takes
        longer than a worker may live, or it ends the process of several workers.

    Notes
    -----
    Functions must be importable from a module (not from a script), items and results must pickle; an exception of a
    function passes on to the caller.
    """
    if workers <= 1:
        yield _here
        return
    # Imported when needed: most jobs save the half second that it takes.
    import dask
    from distributed import Client, KilledWorker

    with (
        _scratch(where.folder) as scratch,
        dask.config.set(_SETTINGS),
        _environment(threads),
        _hidden_main_module(),
        _cluster(workers, threads, where, scratch) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        crew = _Crew(client, cluster, workers, where) if where.config.cluster == "slurm" else None
        if crew:
            crew.wait_for_first()

        def spread(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
            # Impure: equal items are computed as often as they are given, and none has to be hashed.
            futures = client.map(function, list(items), pure=False)
            try:
                return crew.results_of(futures) if crew else list(client.gather(futures))
            except KilledWorker:
                raise SegloopError(_killed(where)) from None

        yield spread


def _here(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    return [function(item) for item in items]


def _killed(where: Workplace) -> str:
    """Return what to do when the same work has ended one worker after the other."""
    if where.config.cluster == "slurm":
        return (
            "a piece of work ended several Dask workers, perhaps for want of memory: raise dask.memory_mb. Their logs "
            f"are in {where.folder}."
        )
    return (
        "a piece of work ended several worker processes, perhaps for want of memory: lower clustering.workers or "
        "annotation.workers, or give the job more memory (mem_mb)."
    )


@contextmanager
def _scratch(folder: Path | None) -> Iterator[str]:
    """Yield a new folder for files of the workers; it is gone after the block."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="segloop-dask-", dir=folder) as scratch:
            yield scratch
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):  # logs stay
                folder.rmdir()


def _cluster(workers: int, threads: int, where: Workplace, scratch: str) -> Any:
    """Return the workers as a context."""
    if where.config.cluster == "slurm":
        return _slurm_cluster(workers, threads, where, scratch)
    from distributed import LocalCluster

    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        local_directory=scratch,
        silence_logs=logging.CRITICAL,
    )


_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SETTINGS = {
    # Memory is what the job was given: never paused, spilled or killed by a guess of the machine's share.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Nobody looks at the dashboard of so short a cluster; what is left of it listens on any free loopback port.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Set the number of threads for processes that start inside the block; numerical libraries read it once."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _hidden_main_module() -> Iterator[None]:
    """Keep new processes from importing the script that started them: all their code lies in the package.

    A script that Snakemake runs is a temporary file with a preamble, and a session on standard input has no file.
    """
    main: dict[str, Any] = sys.modules["__main__"].__dict__
    hidden: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


# --- workers that are SLURM jobs --------------------------------------------------------------------------------------


@contextmanager
def _slurm_cluster(workers: int, threads: int, where: Workplace, scratch: str) -> Iterator[Any]:
    """Yield workers that are SLURM jobs; they are cancelled after the block."""
    from dask_jobqueue.slurm import SLURMCluster

    with slurm.outside_of_jobs():
        try:
            cluster: Any = SLURMCluster(**_parameters(threads, where, scratch))
        except RuntimeError as error:
            raise SegloopError(f"Dask cannot start on this machine: {error}. Check dask.interface.") from None
        with cluster:
            if reason := slurm.refusal(cluster.job_script()):
                raise SegloopError(f"SLURM refuses the Dask workers: {reason}. Check {_keys(reason.lower())}.")
            cluster.scale(workers)
            yield cluster


def _parameters(threads: int, where: Workplace, scratch: str) -> dict[str, Any]:
    """Return the parameters of the workers' jobs, as dask-jobqueue takes them."""
    config = where.config
    return {
        # One task of Dask at a time; the cores are for the numerical code in it.
        "cores": 1,
        "processes": 1,
        "job_cpu": threads,
        "memory": f"{config.memory_mb}MiB",
        "job_mem": f"{config.memory_mb}M",
        "walltime": f"{config.walltime_minutes // 60:02}:{config.walltime_minutes % 60:02}:00",
        "queue": config.partition,
        "account": config.account,
        "interface": config.interface,
        "job_name": f"dask-{where.name}",
        "job_extra_directives": [f"--comment=rule_{where.name}_worker", *_directives(config.extra)],
        "job_script_prologue": [*config.setup, *(f"export {line}" for line in _exports(threads))],
        # Instead of the job's shell, whose end would hide a worker that does not end from SLURM.
        "python": f"exec {shlex.quote(sys.executable)}",
        "worker_extra_args": ["--no-dashboard", "--lifetime", f"{_lifetime(config)}s"],
        "nanny": False,
        "local_directory": shlex.quote(scratch),
        "log_directory": str(where.folder or scratch),
        "scheduler_options": {"dashboard_address": ":0"},
        "silence_logs": logging.CRITICAL,
    }


def _lifetime(config: DaskConfig) -> int:
    """Return the seconds after which a worker that is a SLURM job ends by itself."""
    return config.walltime_minutes * 60 - _LEAVE_S


def _directives(extra: dict[str, str | int | bool]) -> list[str]:
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in extra.items()]


def _exports(threads: int) -> list[str]:
    """Return the variables that a worker's process needs, as a shell takes them; it may inherit none from here."""
    settings = {f"DASK_{name.upper().replace('.', '__')}": value for name, value in _SETTINGS.items()}
    variables = {
        "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"),
        **{name: str(threads) for name in _THREAD_VARIABLES},
        **{name: json.dumps(value) for name, value in settings.items()},
    }
    return [f"{name}={shlex.quote(value)}" for name, value in variables.items()]


_KEYS: Final = {
    "partition": "partition",
    "account": "account",
    "qos": "extra",
    "nodes": "extra",
    "feature": "extra",
    "time limit": "walltime_minutes",
    "node configuration": "memory_mb",
}
"""What SLURM objects to, and the key of `dask` to change."""


def _keys(causes: str | Sequence[str]) -> str:
    found = [f"dask.{key}" for cause, key in _KEYS.items() if cause in causes]
    return ", ".join(found) or "the section dask of the configuration"


@dataclass
class _Crew:
    """Workers that are SLURM jobs, and come and go as SLURM likes."""

    client: Any
    cluster: Any
    workers: int
    where: Workplace
    _watched: float = 0.0
    _alone: float = 0.0
    _in_vain: float = 0.0

    def wait_for_first(self) -> None:
        """Return when a worker has started."""
        end = time.monotonic() + self.where.config.timeout_seconds
        while not self._there():
            jobs = self._jobs()
            for job in jobs:
                if job.waits and (causes := slurm.never_starts(job.reason)):
                    raise SegloopError(f"the Dask workers can never start ({job.reason}). Check {_keys(causes)}.")
            if (jobs and all(job.ended for job in jobs)) or time.monotonic() > end:
                raise SegloopError(self._why(f"none of {self.workers} Dask workers has come", jobs))
            time.sleep(1.0)
        logger.info("the first of %d Dask workers has started", self.workers)

    def results_of(self, futures: Sequence[Any]) -> list[Any]:
        """Return all results in their order, or raise the first error; workers whose time is over are replaced."""
        waiting = dict(enumerate(futures))
        results: dict[int, Any] = {}
        self._watched, self._alone, self._in_vain = time.monotonic(), 0.0, 0.0
        while waiting:
            # Future.done() is false as long as nobody waits for it.
            done = {place: future for place, future in waiting.items() if future.status not in ("pending", "lost")}
            if done:
                # At once: what a worker still holds when it ends would have to be done again.
                values = self.client.gather([waiting.pop(place) for place in done])
                for future in done.values():
                    future.release()
                results.update(zip(done, values, strict=True))
                self._in_vain = 0.0
            else:
                time.sleep(_POLL_S)
            if time.monotonic() - self._watched > _LOOK_S:
                self._watch()
        return [results[place] for place in range(len(results))]

    def _watch(self) -> None:
        """Raise if there have been no workers for too long, or they achieved nothing; replace those that have ended."""
        config, now, there = self.where.config, time.monotonic(), self._there()
        passed, self._watched = now - self._watched, now
        self._alone = 0.0 if there else self._alone + passed
        self._in_vain += passed if there else 0.0
        if self._alone > config.timeout_seconds:
            raise SegloopError(self._why("all Dask workers are gone, and no other has come", self._jobs()))
        # Twice, because the first life of a worker may have begun with other work.
        if self._in_vain > 2 * _lifetime(config):
            raise SegloopError(
                f"no piece of work ended within two lives of a Dask worker ({_lifetime(config)} s each). Raise "
                "dask.walltime_minutes."
            )
        self.cluster.scale(self.workers)

    def _there(self) -> int:
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def _jobs(self) -> list[slurm.QueuedJob]:
        ids = [job.job_id for job in self.cluster.workers.values() if job.job_id]
        try:
            return slurm.queue(ids) if ids else []
        except slurm.Unreachable:
            return []

    def _why(self, what: str, jobs: Sequence[slurm.QueuedJob]) -> str:
        states = ", ".join(sorted({f"{job.state} ({job.reason})" for job in jobs})) or "unknown to SLURM"
        return (
            f"{what} within {self.where.config.timeout_seconds} s; their jobs are {states}, their logs in "
            f"{self.where.folder}. Raise dask.timeout_seconds, check dask.partition, memory_mb and interface, or set "
            "dask.cluster: local."
        )
