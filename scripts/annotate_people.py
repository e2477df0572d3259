"""Replay people's answers through the policy and judge every prediction."""

from pathlib import Path
from typing import Any

from segloop.annotation.driver import annotate_people
from segloop.config import AnnotationConfig
from segloop.jobs import existing, job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        annotate_people(
            tree=Path(snakemake.input.tree),
            index=Path(snakemake.input.index),
            reduced=Path(snakemake.input.reduced),
            recorded=Path(snakemake.input.recorded),
            answers=Path(snakemake.output.answers),
            verdicts=Path(snakemake.output.verdicts),
            certificates=Path(snakemake.output.certificates),
            annotators=Path(snakemake.output.annotators),
            config=AnnotationConfig.model_validate(snakemake.params.annotation),
            iteration=snakemake.params.iteration,
            seed=snakemake.params.seed,
            agreement=optional(snakemake.input.agreement),
            gold=existing(snakemake.params.get("gold")),
            earlier=[Path(path) for path in snakemake.input.earlier],
            edits=optional(snakemake.input.edits),
            edited=optional(snakemake.output.get("edited", "")),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
