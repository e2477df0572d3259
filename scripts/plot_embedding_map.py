"""Draw a sample of masks by their embeddings, to zoom into and to look at one by one."""

from pathlib import Path
from typing import Any

from segloop.data.pool import shard_tables
from segloop.jobs import job
from segloop.reporting.embedding_map import plot_embedding_map


def main(snakemake: Any) -> None:
    with job(snakemake):
        plot_embedding_map(
            reduced=Path(snakemake.input.reduced),
            predictions=[Path(path) for path in snakemake.input.predictions],
            shards=shard_tables(Path(snakemake.input.shards)),
            verdicts=Path(snakemake.input.verdicts),
            seed_set=Path(snakemake.input.seed_set),
            html=Path(snakemake.output.html),
            table=Path(snakemake.output.csv),
            iteration=int(snakemake.wildcards.iteration),
            masks=snakemake.params.report["map"],
            seed=snakemake.params.seed,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
