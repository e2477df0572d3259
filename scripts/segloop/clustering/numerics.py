"""Threads of numerical code, and the versions whose last bits a result carries."""

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager

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
