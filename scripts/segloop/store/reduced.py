"""Leading principal components of the clustered embeddings: what policies learn from, small enough for memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.store.arrays import Layout, Store, StoreWriter, public

KIND = "reduced"

_COMPONENTS = Layout(chunk_rows=16_384, shard_rows=1 << 20, compressed=False)


@dataclass(frozen=True)
class Reduced:
    """Components of N clustered predictions, in the order of the leaves of the tree."""

    row_id: npt.NDArray[np.uint64]
    """Prediction ids, [N]."""
    components: npt.NDArray[np.float16]
    """Coordinates along the principal axes, not scaled to equal variance, [N, d]."""
    attributes: dict[str, Any]
    """How they were made."""


def write_reduced(path: str | Path, reduced: Reduced) -> None:
    """Write components whole or not at all."""
    with StoreWriter(path, KIND, reduced.attributes) as store:
        store.write("row_id", reduced.row_id.astype(np.uint64, copy=False))
        store.write("components", reduced.components.astype(np.float16, copy=False), _COMPONENTS)


def read_reduced(path: str | Path) -> Reduced:
    """Read components.

    Raises
    ------
    SegloopError
        If the store is missing, truncated or of another schema version.
    """
    store = Store(path, KIND)
    return Reduced(store.read("row_id"), store.read("components"), public(store.attributes))


def count_reduced(path: str | Path) -> int:
    """Return how many predictions have components."""
    return Store(path, KIND).shape("row_id")[0]


def read_reduced_rows(path: str | Path, rows: npt.NDArray[np.integer]) -> Reduced:
    """Read the components of some rows, in the given order; chunks that hold none of them are not read.

    Raises
    ------
    SegloopError
        If the store is missing, truncated or of another schema version.
    """
    store = Store(path, KIND)
    return Reduced(store.read_rows("row_id", rows), store.read_rows("components", rows), public(store.attributes))
