"""Join the seed set, everything collected so far, and the regions to ignore."""

from pathlib import Path
from typing import Any

from segloop.collection.merge import merge_training_set
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        merge_training_set(
            seed_set=Path(snakemake.input.seed_set),
            collected=[Path(path) for path in snakemake.input.collected],
            predictions=[Path(path) for path in snakemake.input.predictions],
            verdicts=optional(snakemake.input.verdicts),
            answers=optional(snakemake.input.answers),
            output=Path(snakemake.output.training_set),
            ignore_unaccepted=snakemake.params.ignore_unaccepted,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
