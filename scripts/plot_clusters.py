"""Draw the most and least pure clusters, the splits of one, and masks on the border by category."""

from pathlib import Path
from typing import Any

from segloop.data.pool import shard_tables
from segloop.jobs import job
from segloop.reporting.category_gallery import plot_category_gallery
from segloop.reporting.clusters import plot_clusters


def main(snakemake: Any) -> None:
    with job(snakemake):
        given, made = snakemake.input, snakemake.output
        shared: dict[str, Any] = {
            "predictions": [Path(path) for path in given.predictions],
            "shards": shard_tables(Path(given.shards)),
            "verdicts": Path(given.verdicts),
            "seed_set": Path(given.seed_set),
            "iteration": int(snakemake.wildcards.iteration),
            "seed": snakemake.params.seed,
        }
        plot_clusters(
            tree=Path(given.tree),
            answers=Path(given.answers),
            purity=Path(made.purity),
            history_svg=Path(made.history_svg),
            history_png=Path(made.history),
            clusters=snakemake.params.report["clusters"],
            **shared,
        )
        plot_category_gallery(index=Path(given.index), png=Path(made.categories), **shared)


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
