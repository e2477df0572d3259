"""Write the accepted masks as a COCO file with provenance."""

from pathlib import Path
from typing import Any

from segloop.collection.collect import collect_masks
from segloop.data.pool import shard_tables
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        collect_masks(
            index=Path(snakemake.input.index),
            predictions=[Path(path) for path in snakemake.input.predictions],
            verdicts=Path(snakemake.input.verdicts),
            answers=Path(snakemake.input.answers),
            shards=shard_tables(Path(snakemake.input.shards)),
            seed_set=Path(snakemake.input.seed_set),
            output=Path(snakemake.output.collected),
            iteration=int(snakemake.wildcards.iteration),
            edited=optional(snakemake.input.edited),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
