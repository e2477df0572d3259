"""Join the rows of all iterations, the control and the upper bound."""

from pathlib import Path
from typing import Any

from segloop.collection.summary import summarise_run
from segloop.config import LoopConfig
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        summarise_run(
            summaries=[Path(path) for path in snakemake.input.summaries],
            control_evaluations=[Path(path) for path in snakemake.input.control],
            upper_bound_evaluation=optional(snakemake.input.upper_bound),
            loop=LoopConfig.model_validate(snakemake.params.loop),
            output=Path(snakemake.output.summary),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
