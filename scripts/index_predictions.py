"""List the predictions above the index score and mark duplicates."""

from pathlib import Path
from typing import Any

from segloop.collection.index import index_predictions
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        shards = [Path(path) for path in snakemake.input.predictions]
        earlier = [Path(path) for path in snakemake.input.earlier_predictions]
        index_predictions(
            predictions=shards,
            earlier=[earlier[start : start + len(shards)] for start in range(0, len(earlier), len(shards))],
            earlier_verdicts=[Path(path) for path in snakemake.input.earlier_verdicts],
            output=Path(snakemake.output.index),
            score=snakemake.params.index["score"],
            duplicates_iou=snakemake.params.duplicates["iou"],
            iteration=int(snakemake.wildcards.iteration),
            earlier_edited=[Path(path) for path in snakemake.input.earlier_edited] or None,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
