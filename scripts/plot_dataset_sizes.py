"""Draw how many images and masks the run has collected, beside other data sets."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.dataset_sizes import of_run, plot_dataset_sizes


def main(snakemake: Any) -> None:
    with job(snakemake):
        plot_dataset_sizes(
            of_run([Path(path) for path in snakemake.input.collected]),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
            table=Path(snakemake.output.csv),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
