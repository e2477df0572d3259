"""Threads of numerical code, and the versions whose last bits a result carries."""

import importlib.metadata
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import threadpoolctl  # type: ignore[import-untyped]


@contextmanager
def numerical_threads(threads: int) -> Iterator[None]:
    """Let matrix products and faiss use this many threads inside the block.

    The number belongs to the configuration, not to the machine: another one may change the last bits of a sum.
    """
    with threadpoolctl.threadpool_limits(limits=threads):
        yield


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the numbers of a tree depend on."""
    names = ("numpy", "fastcluster", "faiss-cpu")
    return {name: importlib.metadata.version(name) for name in names}


def memory_limit(cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return how many bytes of memory this process may use at most, or None where nothing limits it.

    The least of `ulimit -v` and of the limits of the control groups (version 2) that a batch system put it into.
    """
    found = [limit for limit in (resource.getrlimit(resource.RLIMIT_AS)[0],) if limit != resource.RLIM_INFINITY]
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()[-1].rpartition(":")[2].strip("/")
    except (OSError, IndexError):
        own = ""
    folder = cgroups / own
    for place in (folder, *folder.parents):
        limit = place / "memory.max"
        if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
            found.append(int(text))
    return min(found, default=None)
