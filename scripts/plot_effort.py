"""Draw average precision by collected masks and by category, and what each iteration brought and cost."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.effort import plot_ap_by_masks, plot_effort


def main(snakemake: Any) -> None:
    with job(snakemake):
        summary, made = Path(snakemake.input.summary), snakemake.output
        plot_ap_by_masks(summary=summary, svg=Path(made.ap), png=Path(made.ap_png), table=Path(made.ap_csv))
        plot_effort(summary=summary, svg=Path(made.effort), png=Path(made.effort_png), table=Path(made.effort_csv))


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
