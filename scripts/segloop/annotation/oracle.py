"""Answers from the truth, in simulations."""

from pathlib import Path

import numpy as np
import numpy.typing as npt


def match_truth(
    *, index: Path, predictions: list[Path], truth: Path, output: Path, t_iou: float, workers: int
) -> None:
    """Write truth_match.parquet: prediction u64, iou f32, truth_id i64, matched_iou f32, matched_id i64."""
    raise NotImplementedError
