"""Write the ledger of one iteration."""

from pathlib import Path
from typing import Any

from segloop.collection.ledger import tally_iteration
from segloop.config import LoopConfig, PricesConfig
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        tally_iteration(
            iteration=int(snakemake.wildcards.iteration),
            evaluation=Path(snakemake.input.evaluation),
            models=[Path(path) for path in snakemake.input.models],
            index=optional(snakemake.input.index),
            answers=optional(snakemake.input.answers),
            collected=optional(snakemake.input.collected),
            quality=optional(snakemake.input.quality),
            edited=optional(snakemake.input.edited),
            benchmarks={step: [Path(path) for path in paths] for step, paths in snakemake.params.benchmarks.items()},
            prices=PricesConfig.model_validate(snakemake.params.prices),
            loop=LoopConfig.model_validate(snakemake.params.loop),
            output=Path(snakemake.output.ledger),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
