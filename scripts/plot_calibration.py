"""Draw what scores and predicted IoUs mean: the share of good masks among those that have them."""

from pathlib import Path
from typing import Any

from segloop.jobs import job, optional
from segloop.reporting.calibration import plot_calibration


def main(snakemake: Any) -> None:
    with job(snakemake):
        plot_calibration(
            index=Path(snakemake.input.index),
            answers=Path(snakemake.input.answers),
            truth_match=optional(snakemake.input.truth_match),
            t_iou=snakemake.params.t_iou,
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
            table=Path(snakemake.output.csv),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
