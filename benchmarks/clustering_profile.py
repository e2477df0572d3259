"""Where the time of clustering goes: timers around functions of the package, and the floor below it.

The package has no timers of its own; here its functions are replaced for the length of a run. Each function is charged
with the time that it does not spend in another one of the list.
"""

import functools
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from clustering_data import Dataset

_CLUSTERING, _STORE = "segloop.clustering", "segloop.store"

STAGES: dict[str, list[str]] = {
    "reading the prediction shards": [f"{_CLUSTERING}.embeddings:ShardSource.read"],
    "lengths of the rows": [f"{_CLUSTERING}.distances:norms"],
    "k-means: learning": [f"{_CLUSTERING}.partition:_train"],
    "k-means: assigning": [f"{_CLUSTERING}.partition:_assign"],
    "writing the sorted embeddings": [f"{_STORE}.partitions:write_partitions"],
    "partitioning, the rest": [f"{_CLUSTERING}.partition:partition_predictions"],
    "reading the partitions": [f"{_STORE}.partitions:Partitions.embeddings", f"{_STORE}.partitions:Partitions.lengths"],
    "unit rows": [f"{_CLUSTERING}.distances:unit_rows"],
    "distances: products and filling": [f"{_CLUSTERING}.distances:condensed"],
    "linkage core": [f"{_CLUSTERING}.linkage:link"],
    "ranges of the nodes": [f"{_CLUSTERING}.linkage:partition_tree"],
    "linking, the rest": [f"{_CLUSTERING}.linkage:link_partitions"],
    "joining": [f"{_CLUSTERING}.joining:join"],
    "checking the tree": [f"{_STORE}.tree:validate"],
    "writing the tree": [f"{_STORE}.tree:write_tree"],
    "joining, the rest": [f"{_CLUSTERING}.joining:join_trees"],
    "everything else": [f"{_CLUSTERING}.building:cluster_predictions"],
}
"""Stage: functions or methods, as module:name."""

PRODUCTS = "distances: products and filling"
READING = "reading the prediction shards"
_BLOCK = 512


@contextmanager
def timers() -> Iterator[dict[str, float]]:
    """Charge stages with their seconds inside the block; the mapping is filled while it runs.

    Raises
    ------
    LookupError
        If the package no longer has a function of `STAGES`.
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    clock = _Clock(seconds)
    undo: list[Callable[[], None]] = []
    try:
        for stage, names in STAGES.items():
            for name in names:
                undo += _replace(name, functools.partial(clock.timed, stage))
        yield seconds
    finally:
        for restore in reversed(undo):
            restore()


class _Clock:
    """Charges the stage on top of a stack."""

    def __init__(self, seconds: dict[str, float]):
        self._seconds = seconds
        self._stack: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self._seconds[self._stack[-1]] += now - self._since
        self._since = now

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            self._switch()
            self._stack.append(stage)
            try:
                return function(*arguments, **keywords)
            finally:
                self._switch()
                self._stack.pop()

        return wrapper


def _replace(name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[Callable[[], None]]:
    """Replace a function wherever the package refers to it; return what takes that back."""
    module_name, _, path = name.partition(":")
    owner: Any = importlib.import_module(module_name)
    *classes, last = path.split(".")
    for part in classes:
        owner = getattr(owner, part, None)
    function = getattr(owner, last, None)
    if function is None:
        raise LookupError(f"{name} does not exist: bring STAGES of {__name__} up to date")
    wrapped = wrap(function)
    if classes:
        holders = [(owner, last)]
    else:
        modules = [module for key, module in list(sys.modules.items()) if key.startswith("segloop.")]
        holders = [
            (module, key) for module in modules for key, value in list(vars(module).items()) if value is function
        ]
    for holder, key in holders:
        setattr(holder, key, wrapped)
    return [functools.partial(setattr, holder, key, function) for holder, key in holders]


def floor(data: Dataset, sizes: list[int], dim: int) -> dict[str, Any]:
    """Measure what no implementation by matrix products can avoid.

    Parameters
    ----------
    sizes
        Rows of each partition.
    dim
        Width of the embeddings.

    Returns
    -------
    product_seconds: the upper triangle of each partition's products, in blocks, into one buffer; read_seconds: every
    byte of the shards once; bytes.
    """
    rows = np.random.default_rng(0).standard_normal((max(sizes), dim), dtype=np.float32)
    buffer = np.zeros(_BLOCK * max(sizes), np.float32)
    begin = time.perf_counter()
    for size in sizes:
        for start in range(0, size, _BLOCK):
            block = rows[start : min(start + _BLOCK, size)]
            out = buffer[: len(block) * (size - start)].reshape(len(block), size - start)
            np.matmul(block, rows[start:size].T, out=out)
    products = time.perf_counter() - begin
    begin = time.perf_counter()
    total = data.read_bytes()
    return {"product_seconds": products, "read_seconds": time.perf_counter() - begin, "bytes": total}
