"""Build the trees of one batch of partitions."""

from pathlib import Path
from typing import Any

from segloop.clustering.linkage import link_partitions
from segloop.config import ClusteringConfig
from segloop.jobs import job
from segloop.workers import workplace


def main(snakemake: Any) -> None:
    with job(snakemake):
        link_partitions(
            partitions=Path(snakemake.input.partitions),
            batch=int(snakemake.wildcards.batch),
            output=Path(snakemake.output.links),
            config=ClusteringConfig.model_validate(snakemake.params.clustering),
            where=workplace(snakemake),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
