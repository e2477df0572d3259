"""Draw random accepted, rejected and undecided masks."""

from pathlib import Path
from typing import Any

from segloop.data.pool import shard_tables
from segloop.jobs import job, optional
from segloop.reporting.gallery import plot_galleries


def main(snakemake: Any) -> None:
    with job(snakemake):
        plot_galleries(
            predictions=[Path(path) for path in snakemake.input.predictions],
            verdicts=Path(snakemake.input.verdicts),
            shards=shard_tables(Path(snakemake.input.shards)),
            seed_set=Path(snakemake.input.seed_set),
            truth_match=optional(snakemake.input.truth_match),
            accepted=Path(snakemake.output.accepted),
            rejected=Path(snakemake.output.rejected),
            undecided=Path(snakemake.output.undecided),
            iteration=int(snakemake.wildcards.iteration),
            masks=snakemake.params.report["gallery"],
            seed=snakemake.params.seed,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
