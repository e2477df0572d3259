"""Join the seed set and the whole truth of the pool."""

from pathlib import Path
from typing import Any

from segloop.collection.merge import upper_bound_set
from segloop.data.pool import shard_tables
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        upper_bound_set(
            seed_set=Path(snakemake.input.seed_set),
            truth=Path(snakemake.input.truth),
            shards=shard_tables(Path(snakemake.input.shards)),
            output=Path(snakemake.output.training_set),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
