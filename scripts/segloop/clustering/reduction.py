"""Leading principal components of the clustered embeddings, in the order of the leaves."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segloop.clustering.embeddings import Rows, Source, blocks, principal_axes, unit_or_zero
from segloop.clustering.numerics import numerical_threads
from segloop.store.partitions import Partitions
from segloop.store.reduced import Reduced, write_reduced


def reduce_embeddings(*, partitions: Path, output: Path, components: int, seed: int, threads: int) -> None:
    """Project all embeddings of an iteration on their leading principal axes.

    Parameters
    ----------
    partitions
        The store that `partition_predictions` wrote.
    output
        The store to write (`reduced.zarr`).
    components
        How many axes; fewer where the embeddings are narrower.
    seed
        Seed of the sample that the axes are learned from.

    Raises
    ------
    SegloopError
        If the store is missing or damaged.

    Notes
    -----
    Memory: 2 N components bytes, a block, and the sample's products.
    """
    source = Partitions(partitions)
    with numerical_threads(threads):
        found, share = reduced_components(_SlabSource(source), components, seed)
    write_reduced(output, Reduced(source.row_id, found, {"seed": seed, "variance": share}))


def reduced_components(source: Source, components: int, seed: int) -> tuple[npt.NDArray[np.float16], float | None]:
    """Return the coordinates of all rows along the leading axes, float16 [N, d], and their share of the variance.

    Rows are scaled to length 1 first; rows without a direction become zero.
    """
    count = min(components, source.dim)
    out = np.zeros((len(source), count), np.float16)
    if not len(source):
        return out, None
    mean, axes, share = principal_axes(source, count, False, seed)
    for block in blocks(np.arange(len(source)), "reducing embeddings"):
        unit = unit_or_zero(source.read(block))
        coordinates = (unit - mean) @ axes
        coordinates[~unit.any(axis=1)] = 0
        out[block] = coordinates
    return out, share


class _SlabSource:
    """Rows of a store of partitions, as `Source`."""

    def __init__(self, partitions: Partitions):
        self._partitions = partitions
        self.dim = partitions.dim

    def __len__(self) -> int:
        return self._partitions.rows

    def read(self, rows: Rows) -> npt.NDArray[np.float16]:
        """Return the embeddings of ascending rows, float16 [n, D]."""
        if len(rows) and int(rows[-1]) - int(rows[0]) == len(rows) - 1:
            return self._partitions.embeddings(int(rows[0]), int(rows[-1]) + 1)
        return self._partitions.picked(rows)
