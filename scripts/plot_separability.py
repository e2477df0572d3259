"""Draw how far good and bad masks lie apart, and the shape of the tree."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.separability import plot_separability


def main(snakemake: Any) -> None:
    with job(snakemake):
        plot_separability(
            separability=Path(snakemake.input.separability),
            seed_set=Path(snakemake.input.seed_set),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
            table=Path(snakemake.output.csv),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
