"""Draw what the detector gained, iteration by iteration, and what that took."""

from pathlib import Path
from typing import Any

from segloop.jobs import job
from segloop.reporting.curves import plot_ap, plot_questions
from segloop.reporting.effort import plot_ap_by_masks, plot_effort

FIGURES = {"ap": plot_ap, "questions": plot_questions, "ap_by_masks": plot_ap_by_masks, "effort": plot_effort}


def main(snakemake: Any) -> None:
    with job(snakemake):
        made = {name: Path(path) for name, path in snakemake.output.items()}
        for name, plot in FIGURES.items():
            summary = Path(snakemake.input.summary)
            plot(summary=summary, svg=made[name], png=made[f"{name}_png"], table=made[f"{name}_csv"])


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
