"""The whole way from embeddings to a tree without Snakemake, by the same steps as the jobs of the workflow."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.clustering.distances import unit_rows
from segloop.clustering.embeddings import IN_MEMORY, ArraySource, Source, prepare
from segloop.clustering.joining import join, join_trees, write_joined
from segloop.clustering.linkage import link_partitions, link_slabs, partition_tree
from segloop.clustering.numerics import numerical_threads
from segloop.clustering.partition import (
    Partitioning,
    attributes,
    partition,
    partition_predictions,
    sort_predictions,
)
from segloop.clustering.planning import limits
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.files import scratch_directory
from segloop.store.index import read_index_columns
from segloop.store.partitions import PartitionTree
from segloop.store.tree import Tree


def cluster_predictions(
    *,
    index: Path,
    predictions: list[Path],
    output: Path,
    config: ClusteringConfig,
    seed: int,
    scratch: Path | None = None,
    iteration: int = 1,
) -> None:
    """Build the tree of an iteration on this machine: partition, link in `config.workers` Dask processes, join.

    Parameters
    ----------
    index
        The iteration's index.
    predictions
        All prediction shards of the iteration.
    output
        The store to write (`tree.zarr`); the same bytes as the rules of the workflow give.
    seed
        Seed of k-means and of samples.
    scratch
        Folder for `partitions.zarr` and `links/{batch}.zarr`, which stay there. If None, a temporary one is used where
        there is more than one worker or more than 65,536 embeddings; else nothing but the tree is written.
    iteration
        What `{iteration}` in `clustering.embedding_file` stands for.

    Raises
    ------
    SegloopError
        As the steps do.
    """
    if scratch is None and config.workers == 1:
        (duplicate_of,) = read_index_columns(index, "duplicate_of")
        if np.count_nonzero(duplicate_of == 0) <= IN_MEMORY:
            found = sort_predictions(index, predictions, config, seed, iteration)
            trees = link_slabs(found, np.arange(len(found.part_category)), config)
            write_joined(output, list(trees), found, config)
            return
    with scratch_directory(output) if scratch is None else nullcontext(scratch) as folder:
        partitions = folder / "partitions.zarr"
        partition_predictions(
            index=index, predictions=predictions, output=partitions, config=config, seed=seed, iteration=iteration
        )
        links = [folder / "links" / f"{batch}.zarr" for batch in range(config.batches)]
        for batch, path in enumerate(links):
            link_partitions(partitions=partitions, batch=batch, output=path, config=config)
        join_trees(partitions=partitions, links=links, output=output, config=config)


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
    with numerical_threads(config.threads):
        source, made_of = prepare(ArraySource(embeddings), {}, config, seed)
        allowed = limits(config, source.dim)
        labels = np.asarray(category, np.int32) if config.scope == "category" else np.zeros(len(category), np.int32)
        parts = partition(source, labels, allowed, seed)
        leaves, offset = parts.leaves(), parts.offsets()
        trees = list(_trees(source, parts, leaves, offset, config))
    return join(
        trees,
        part_offset=offset,
        part_category=parts.part_category,
        row_id=ids[leaves],
        null_id=ids[parts.part < 0],
        dim=source.dim,
        config=config,
        attributes=attributes(config, allowed, seed, source.dim) | {"embedding": "array", **made_of},
    )


def _trees(
    source: Source,
    parts: Partitioning,
    leaves: npt.NDArray[np.int64],
    offset: npt.NDArray[np.int64],
    config: ClusteringConfig,
) -> Iterator[PartitionTree]:
    for start, stop in zip(offset[:-1].tolist(), offset[1:].tolist(), strict=True):
        rows = leaves[start:stop]
        yield partition_tree(unit_rows(source.read(rows), parts.norm[rows]), config.linkage, config.threads)
