"""Draw average precision over the iterations."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.curves import plot_ap


def main(snakemake: Any) -> None:
    with job(snakemake):
        plot_ap(
            summary=Path(snakemake.input.summary),
            svg=Path(snakemake.output.svg),
            png=Path(snakemake.output.png),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
