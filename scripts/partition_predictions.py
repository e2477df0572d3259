"""Sort the embeddings by partition."""

from pathlib import Path
from typing import Any

from segloop.clustering.partition import partition_predictions
from segloop.config import ClusteringConfig
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        partition_predictions(
            index=Path(snakemake.input.index),
            predictions=[Path(path) for path in snakemake.input.predictions],
            output=Path(snakemake.output.partitions),
            config=ClusteringConfig.model_validate(snakemake.params.clustering),
            seed=snakemake.params.seed,
            iteration=int(snakemake.wildcards.iteration),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
