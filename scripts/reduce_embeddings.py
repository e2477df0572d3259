"""Project the embeddings of an iteration on their leading principal axes."""

from pathlib import Path
from typing import Any

from segloop.clustering.reduction import reduce_embeddings
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        reduce_embeddings(
            partitions=Path(snakemake.input.partitions),
            output=Path(snakemake.output.reduced),
            components=snakemake.params.components,
            seed=snakemake.params.seed,
            threads=snakemake.params.numerical_threads,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
