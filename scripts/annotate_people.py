"""Replay people's answers through the policy and judge every prediction."""

from pathlib import Path
from typing import Any

from segloop.annotation.driver import annotate_people
from segloop.config import AnnotationConfig
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        annotate_people(
            tree=Path(snakemake.input.tree),
            index=Path(snakemake.input.index),
            recorded=Path(snakemake.input.recorded),
            answers=Path(snakemake.output.answers),
            verdicts=Path(snakemake.output.verdicts),
            config=AnnotationConfig.model_validate(snakemake.params.annotation),
            iteration=snakemake.params.iteration,
            seed=snakemake.params.seed,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
