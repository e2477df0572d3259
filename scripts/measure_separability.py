"""Measure, before any question is asked, how far clustering can be expected to help."""

from pathlib import Path
from typing import Any

from segloop.clustering.separability import measure_separability
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        measure_separability(
            partitions=Path(snakemake.input.partitions),
            tree=Path(snakemake.input.tree),
            index=Path(snakemake.input.index),
            predictions=[Path(path) for path in snakemake.input.predictions],
            output=Path(snakemake.output.separability),
            t_iou=snakemake.params.t_iou,
            matching=snakemake.params.matching,
            duplicates_iou=snakemake.params.duplicates_iou,
            threads=snakemake.params.threads,
            seed=snakemake.params.seed,
            truth_match=optional(snakemake.input.truth_match),
            recorded_answers=optional(snakemake.input.recorded),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
