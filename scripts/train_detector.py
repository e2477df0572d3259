"""Train the detector of one iteration."""

from pathlib import Path
from typing import Any

from segloop.config import DetectorConfig, PredictionConfig, TrainingConfig, load
from segloop.detection.launching import launch_training
from segloop.jobs import job, optional


def main(snakemake: Any) -> None:
    with job(snakemake):
        launch_training(
            # Where it runs is no parameter: another partition must not train models again.
            settings=load(snakemake.config).training,
            name="_".join([snakemake.rule, *snakemake.wildcards]),
            folder=Path(snakemake.log[0]).with_suffix(""),
            training_set=Path(snakemake.input.training_set),
            previous_model=optional(snakemake.input.previous_model),
            output=Path(snakemake.output.model),
            checkpoints=Path(snakemake.params.checkpoints),
            detector=DetectorConfig.model_validate(snakemake.params.detector),
            training=TrainingConfig.model_validate(snakemake.params.training),
            validation_set=optional(snakemake.input.validation_set),
            prediction=PredictionConfig.model_validate(snakemake.params.prediction),
            iteration=snakemake.params.iteration,
            seed=snakemake.params.seed,
            device=snakemake.params.device,
            max_skipped=snakemake.params.max_skipped,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
