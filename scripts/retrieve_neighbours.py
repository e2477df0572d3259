"""Retrieve the predictions of the pool that look like well-predicted objects of another labelled set."""

from pathlib import Path
from typing import Any

from segloop.collection.transfer import retrieve_neighbours
from segloop.config import TransferConfig
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        retrieve_neighbours(
            index=Path(snakemake.input.index),
            predictions=[Path(path) for path in snakemake.input.predictions],
            truth_match=Path(snakemake.input.truth_match),
            pool_index=Path(snakemake.input.pool_index),
            partitions=Path(snakemake.input.partitions),
            retrieved=Path(snakemake.output.retrieved),
            accepted=Path(snakemake.output.accepted),
            answers=Path(snakemake.output.answers),
            embedding=snakemake.wildcards.embedding,
            transfer=TransferConfig.model_validate(snakemake.params.transfer),
            seed=snakemake.params.seed,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
