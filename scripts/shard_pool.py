"""Cut the pool, or a sample of it, into shards."""

from pathlib import Path
from typing import Any

from segloop.config import PoolConfig
from segloop.data.pool import shard_pool
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        shard_pool(
            config=PoolConfig.model_validate(snakemake.params.pool),
            data_root=Path(snakemake.params.data_root),
            seed=snakemake.params.seed,
            output=Path(snakemake.output.shards),
            manifest=Path(snakemake.output.manifest),
            skipped=Path(snakemake.output.skipped),
            max_skipped=snakemake.params.max_skipped,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
