"""Measure average precision on the validation set."""

from pathlib import Path
from typing import Any

from segloop.config import PredictionConfig
from segloop.detection.evaluation import evaluate_detector
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        evaluate_detector(
            model=Path(snakemake.input.model),
            validation_set=Path(snakemake.input.validation_set),
            output=Path(snakemake.output.evaluation),
            results=Path(snakemake.output.results),
            prediction=PredictionConfig.model_validate(snakemake.params.prediction),
            device=snakemake.params.device,
            max_skipped=snakemake.params.max_skipped,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
