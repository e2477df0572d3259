"""Draw up what the run cost."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.costs import tabulate_costs


def main(snakemake: Any) -> None:
    with job(snakemake):
        tabulate_costs(
            ledger=Path(snakemake.input.ledger),
            summary=Path(snakemake.input.summary),
            html=Path(snakemake.output.html),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
