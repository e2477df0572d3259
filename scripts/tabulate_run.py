"""Draw up this run in the shape of the thesis's Table 3.1."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.table31 import table_31


def main(snakemake: Any) -> None:
    with job(snakemake):
        table_31(
            summary=Path(snakemake.input.summary),
            csv=Path(snakemake.output.csv),
            html=Path(snakemake.output.html),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
