"""Count what was collected against what the pool holds, and draw bias and coverage."""

from pathlib import Path
from typing import Any

from segloop.collection.census import take_census
from segloop.data.pool import shard_tables
from segloop.jobs import job, optional
from segloop.reporting.bias import plot_bias, plot_coverage


def main(snakemake: Any) -> None:
    with job(snakemake):
        made, census = snakemake.output, Path(snakemake.output.census)
        take_census(
            indexes=[Path(path) for path in snakemake.input.indexes],
            collected=[Path(path) for path in snakemake.input.collected],
            shards=shard_tables(Path(snakemake.input.shards)),
            seed_set=Path(snakemake.input.seed_set),
            truth=optional(snakemake.input.truth),
            output=census,
        )
        plot_bias(census=census, svg=Path(made.bias), png=Path(made.bias_png), table=Path(made.bias_csv))
        plot_coverage(
            census=census, svg=Path(made.coverage), png=Path(made.coverage_png), table=Path(made.coverage_csv)
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
