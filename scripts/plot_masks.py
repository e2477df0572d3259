"""Draw the masks of an iteration: galleries, neighbours, clusters, their map, and what scores mean."""

from pathlib import Path
from typing import Any

from segloop.data.pool import shard_tables
from segloop.jobs import job, optional
from segloop.reporting.mask_figures import MaskFiles, plot_masks


def main(snakemake: Any) -> None:
    with job(snakemake):
        given = snakemake.input
        files = MaskFiles(
            predictions=[Path(path) for path in given.predictions],
            shards=shard_tables(Path(given.shards)),
            partitions=Path(given.partitions),
            reduced=Path(given.reduced),
            tree=Path(given.tree),
            index=Path(given.index),
            answers=Path(given.answers),
            verdicts=Path(given.verdicts),
            truth_match=optional(given.truth_match),
            seed_set=Path(given.seed_set),
        )
        plot_masks(
            files,
            {name: Path(path) for name, path in snakemake.output.items()},
            iteration=int(snakemake.wildcards.iteration),
            report=snakemake.params.report,
            t_iou=snakemake.params.t_iou,
            matching=snakemake.params.matching,
            seed=snakemake.params.seed,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
