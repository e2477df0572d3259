"""Replay policies on a finished iteration and draw what each would have cost."""

from pathlib import Path
from typing import Any

from segloop.config import AnnotationConfig
from segloop.jobs import job, optional
from segloop.simulation.command import simulate_iteration


def main(snakemake: Any) -> None:
    with job(snakemake):
        simulate_iteration(
            index=Path(snakemake.input.index),
            tree=Path(snakemake.input.tree),
            reduced=Path(snakemake.input.reduced),
            truth_match=Path(snakemake.input.truth_match),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
            table=Path(snakemake.output.table),
            runs=Path(snakemake.output.runs),
            annotation=AnnotationConfig.model_validate(snakemake.params.annotation),
            policies=snakemake.params.policies,
            seeds=snakemake.params.seeds,
            iteration=snakemake.params.iteration,
            agreement=optional(snakemake.input.agreement),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
