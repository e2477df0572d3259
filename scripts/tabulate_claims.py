"""Draw up what audits showed, and what the run took of machines."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.claims import tabulate_certificates
from segloop.reporting.resources import tabulate_resources


def main(snakemake: Any) -> None:
    with job(snakemake):
        tabulate_certificates(
            summary=Path(snakemake.input.summary),
            certificates=[Path(path) for path in snakemake.input.certificates],
            html=Path(snakemake.output.claims),
        )
        tabulate_resources(
            directory=Path.cwd(), ledger=Path(snakemake.input.ledger), html=Path(snakemake.output.machines)
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
