"""Match each indexed prediction with the hidden truth of its image."""

from pathlib import Path
from typing import Any

from segloop.annotation.oracle import match_truth
from segloop.jobs import job
from segloop.workers import workplace


def main(snakemake: Any) -> None:
    with job(snakemake):
        match_truth(
            index=Path(snakemake.input.index),
            predictions=[Path(path) for path in snakemake.input.predictions],
            truth=Path(snakemake.input.truth),
            output=Path(snakemake.output.truth_match),
            t_iou=snakemake.params.t_iou,
            workers=snakemake.params.workers,
            where=workplace(snakemake),
            any_category=snakemake.params.get("any_category", False),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
