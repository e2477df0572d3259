"""Worker processes by Dask for work that falls into independent pieces; one worker means no process at all."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedMap(Protocol):
    """What `worker_map` yields: like the built-in `map`, but finished when it returns."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> list[Result]:
        """Return function(item) for every item, in the order of the items."""


@contextmanager
def worker_map(workers: int, threads: int = 1) -> Iterator[OrderedMap]:
    """Yield a map over worker processes on this machine; they are gone when the block ends, however it ends.

    Results come in the order of the items, so that they don't depend on the number of workers.

    Parameters
    ----------
    workers
        Number of processes; 1 computes in this process.
    threads
        Threads of numerical code in each worker process.

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
    from distributed import Client, LocalCluster

    with (
        tempfile.TemporaryDirectory(prefix="segloop-dask-") as scratch,
        dask.config.set(_SETTINGS),
        _environment(threads),
        _hidden_main_module(),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):

        def spread(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
            # Impure: equal items are computed as often as they are given, and none has to be hashed.
            futures = client.map(function, list(items), pure=False)
            return list(client.gather(futures))

        yield spread


def _here(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    return [function(item) for item in items]


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
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
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
