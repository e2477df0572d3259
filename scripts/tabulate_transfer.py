"""Draw up what was collected unasked beside the asked iterations."""

from pathlib import Path
from typing import Any

from segloop.collection.transfer import Transferred
from segloop.config import AnnotationConfig
from segloop.jobs import job, optional
from segloop.reporting.transfer import tabulate_transfer

PARTS = ("retrieved", "collected", "verdicts", "certificates", "evaluation")


def main(snakemake: Any) -> None:
    with job(snakemake):
        files = zip(*([Path(path) for path in getattr(snakemake.input, part)] for part in PARTS), strict=True)
        tabulate_transfer(
            transferred=[Transferred(*paths) for paths in files],
            summary=Path(snakemake.input.summary),
            truth_match=optional(snakemake.input.truth_match),
            annotation=AnnotationConfig.model_validate(snakemake.params.annotation),
            table=Path(snakemake.output.table),
            html=Path(snakemake.output.html),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
