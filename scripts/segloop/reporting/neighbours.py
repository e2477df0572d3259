"""Nearest neighbours of random queries, in the style of the thesis's Figures 3-4 and 3-5."""

from pathlib import Path


def plot_neighbours(
    *,
    partitions: Path,
    predictions: list[Path],
    shards: list[Path],
    seed_set: Path,
    png: Path,
    ids: Path,
    iteration: int,
    queries: int,
    neighbours: int,
    seed: int,
) -> None:
    """Draw rows of nearest neighbours (`partitions.zarr`, prediction stores and pool shards in shard order)."""
    raise NotImplementedError
