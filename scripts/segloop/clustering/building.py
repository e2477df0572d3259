"""The whole way from embeddings to a tree in memory, by the same steps as the jobs of the workflow."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.clustering.distances import unit_rows
from segloop.clustering.joining import join
from segloop.clustering.linkage import partition_tree
from segloop.clustering.numerics import numerical_threads
from segloop.clustering.partition import ArraySource, Partitioning, attributes, partition
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.partitions import PartitionTree
from segloop.store.tree import Tree


def build_tree(
    embeddings: npt.NDArray[np.floating[Any]],
    category: npt.NDArray[np.integer],
    row_id: npt.NDArray[np.uint64] | None,
    config: ClusteringConfig,
    seed: int,
) -> Tree:
    """Return the tree of embeddings that lie in memory.

    Parameters
    ----------
    embeddings
        float16 or float32 [N, D]; rows that are zero or not finite end in `null_id`.
    category
        Predicted category of each, [N].
    row_id
        Prediction ids, ascending, [N]; 1..N if None.
    config
        Linkage, scope and limits.
    seed
        Seed of k-means, which only categories beyond `n_exact` need.

    Raises
    ------
    SegloopError
        If the arrays do not fit each other.
    """
    if embeddings.ndim != 2 or len(category) != len(embeddings):
        raise SegloopError(
            f"Embeddings of shape {embeddings.shape} do not fit {len(category)} categories. Give one row a prediction."
        )
    ids = np.arange(1, len(embeddings) + 1, dtype=np.uint64) if row_id is None else np.asarray(row_id, np.uint64)
    source = ArraySource(embeddings)
    with numerical_threads(config.threads):
        parts = partition(source, np.asarray(category, np.int32), config, seed)
        leaves, offset = parts.leaves(), parts.offsets()
        trees = list(_trees(source, parts, leaves, offset, config.linkage))
    return join(
        trees,
        part_offset=offset,
        part_category=parts.part_category,
        row_id=ids[leaves],
        null_id=ids[parts.part < 0],
        dim=source.dim,
        config=config,
        attributes=attributes(config, seed, source.dim),
    )


def _trees(
    source: ArraySource,
    parts: Partitioning,
    leaves: npt.NDArray[np.int64],
    offset: npt.NDArray[np.int64],
    linkage: str,
) -> Iterator[PartitionTree]:
    for start, stop in zip(offset[:-1].tolist(), offset[1:].tolist(), strict=True):
        rows = leaves[start:stop]
        yield partition_tree(unit_rows(source.read(rows), parts.norm[rows]), linkage)
