"""Join the trees of all partitions below a top tree."""

from pathlib import Path
from typing import Any

from segloop.clustering.joining import join_trees
from segloop.config import ClusteringConfig
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        join_trees(
            partitions=Path(snakemake.input.partitions),
            links=[Path(path) for path in snakemake.input.links],
            output=Path(snakemake.output.tree),
            config=ClusteringConfig.model_validate(snakemake.params.clustering),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
