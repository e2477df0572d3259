"""Predict masks on the images of one shard."""

from pathlib import Path
from typing import Any

from segloop.config import PredictionConfig
from segloop.detection.prediction import predict_shard
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        predict_shard(
            models=dict(zip(snakemake.params.detectors, map(Path, snakemake.input.models), strict=True)),
            images=Path(snakemake.input.shards) / f"{snakemake.wildcards.shard}.parquet",
            shard=int(snakemake.wildcards.shard),
            iteration=int(snakemake.wildcards.iteration),
            output=Path(snakemake.output.predictions),
            skipped=Path(snakemake.output.skipped),
            prediction=PredictionConfig.model_validate(snakemake.params.prediction),
            device=snakemake.params.device,
            max_skipped=snakemake.params.max_skipped,
            duplicates_iou=snakemake.params.between_detectors,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
