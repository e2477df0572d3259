"""Measure how well predictions on transformed copies agree with those of one shard."""

from pathlib import Path
from typing import Any

from segloop.config import DistillationConfig, PredictionConfig
from segloop.detection.agreement import measure_agreement
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        measure_agreement(
            models=dict(zip(snakemake.params.detectors, map(Path, snakemake.input.models), strict=True)),
            images=Path(snakemake.input.shards) / f"{snakemake.wildcards.shard}.parquet",
            index=Path(snakemake.input.index),
            predictions=Path(snakemake.input.predictions),
            output=Path(snakemake.output.agreement),
            prediction=PredictionConfig.model_validate(snakemake.params.prediction),
            distillation=DistillationConfig.model_validate(snakemake.params.distillation),
            device=snakemake.params.device,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
