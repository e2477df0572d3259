"""Draw the nearest neighbours of random queries."""

from pathlib import Path
from typing import Any

from segloop.data.pool import shard_tables
from segloop.jobs import job
from segloop.reporting.neighbours import plot_neighbours


def main(snakemake: Any) -> None:
    with job(snakemake):
        plot_neighbours(
            partitions=Path(snakemake.input.partitions),
            predictions=[Path(path) for path in snakemake.input.predictions],
            shards=shard_tables(Path(snakemake.input.shards)),
            seed_set=Path(snakemake.input.seed_set),
            png=Path(snakemake.output.png),
            ids=Path(snakemake.output.ids),
            iteration=int(snakemake.wildcards.iteration),
            queries=snakemake.params.report["neighbour_queries"],
            neighbours=snakemake.params.report["neighbours"],
            seed=snakemake.params.seed,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
