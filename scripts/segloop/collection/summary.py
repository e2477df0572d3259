"""What an iteration and a run came to."""

from pathlib import Path
from typing import Any

from segloop.config import AnnotationConfig, LoopConfig


def summarise_iteration(
    *,
    iteration: int,
    evaluation: Path,
    model: Path,
    output: Path,
    index: Path | None = None,
    answers: Path | None = None,
    verdicts: Path | None = None,
    truth_match: Path | None = None,
    collected: list[Path],
    truth: Path | None = None,
    control_evaluation: Path | None = None,
    gpu_benchmarks: list[Path],
    annotation: AnnotationConfig,
) -> None:
    """model: the model folder of this iteration; collected: those of 1..i; gpu_benchmarks: Snakemake's TSV files of
    this iteration's GPU jobs (train, predict, evaluate), may be missing on disk. index..truth are None in iteration 0;
    truth_match and truth are None without truth."""
    raise NotImplementedError


def stop_reason(summaries: list[dict[str, Any]], loop: LoopConfig) -> str | None:
    """Return "no_new_masks", "no_better_ap", "iterations" or None (go on), from the summaries of iterations 0..i."""
    raise NotImplementedError


def summarise_run(
    *,
    summaries: list[Path],
    control_evaluations: list[Path],
    upper_bound_evaluation: Path | None,
    loop: LoopConfig,
    output: Path,
) -> None:
    """summaries: iterations 0..last; control_evaluations: iterations 1..last or empty. Writes {"schema_version",
    "iterations": [summary...], "stop_reason", "control": {"iterations": [{"iteration", "ap", "ap50"}...]}|null,
    "upper_bound": {"ap", "ap50"}|null, "versions": {...}}."""
    raise NotImplementedError
