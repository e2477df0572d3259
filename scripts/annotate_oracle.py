"""Ask the questions of the policy, answer them from the truth, judge every prediction."""

from pathlib import Path
from typing import Any

from segloop.annotation.driver import annotate_oracle
from segloop.config import AnnotationConfig
from segloop.jobs import job, optional
from segloop.workers import workplace


def main(snakemake: Any) -> None:
    with job(snakemake):
        annotate_oracle(
            tree=Path(snakemake.input.tree),
            index=Path(snakemake.input.index),
            reduced=Path(snakemake.input.reduced),
            truth_match=Path(snakemake.input.truth_match),
            answers=Path(snakemake.output.answers),
            verdicts=Path(snakemake.output.verdicts),
            certificates=Path(snakemake.output.certificates),
            annotators=Path(snakemake.output.annotators),
            config=AnnotationConfig.model_validate(snakemake.params.annotation),
            iteration=snakemake.params.iteration,
            seed=snakemake.params.seed,
            agreement=optional(snakemake.input.agreement),
            where=workplace(snakemake),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
