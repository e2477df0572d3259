"""Write the row of one iteration."""

from pathlib import Path
from typing import Any

from segloop.collection.summary import summarise_iteration
from segloop.config import AnnotationConfig
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        summarise_iteration(
            iteration=int(snakemake.wildcards.iteration),
            evaluations=dict(zip(snakemake.params.detectors, map(Path, snakemake.input.evaluations), strict=True)),
            ledger=Path(snakemake.input.ledger),
            index=optional(snakemake.input.index),
            answers=optional(snakemake.input.answers),
            verdicts=optional(snakemake.input.verdicts),
            certificates=optional(snakemake.input.certificates),
            quality=optional(snakemake.input.quality),
            truth_match=optional(snakemake.input.truth_match),
            truth=optional(snakemake.input.truth),
            collected=[Path(path) for path in snakemake.input.collected],
            annotation=AnnotationConfig.model_validate(snakemake.params.annotation),
            output=Path(snakemake.output.summary),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
