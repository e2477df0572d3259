"""Read the hidden truth of the pool."""

from pathlib import Path
from typing import Any

from segloop.config import PoolConfig
from segloop.data.pool import import_truth, shard_tables
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        import_truth(
            config=PoolConfig.model_validate(snakemake.params.pool),
            data_root=Path(snakemake.params.data_root),
            shards=shard_tables(Path(snakemake.input.shards)),
            seed_set=Path(snakemake.input.seed_set),
            output=Path(snakemake.output.truth),
            skipped=Path(snakemake.output.skipped),
            max_skipped=snakemake.params.max_skipped,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
