"""Compare a sample of the accepted masks with what was redrawn of them."""

from pathlib import Path
from typing import Any

from segloop.annotation.redraws import measure_quality
from segloop.config import AnnotationConfig
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        measure_quality(
            index=Path(snakemake.input.index),
            predictions=[Path(path) for path in snakemake.input.predictions],
            verdicts=Path(snakemake.input.verdicts),
            seed_set=Path(snakemake.input.seed_set),
            output=Path(snakemake.output.quality),
            sample=Path(snakemake.output.sample),
            annotation=AnnotationConfig.model_validate(snakemake.params.annotation),
            iteration=snakemake.params.iteration,
            seed=snakemake.params.seed,
            truth_match=optional(snakemake.input.truth_match),
            recorded=optional(snakemake.input.recorded),
            edited=optional(snakemake.input.edited),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
