"""The index of an iteration: every prediction that may be asked about, with its name and its earlier verdict."""

from pathlib import Path


def index_predictions(
    *,
    predictions: list[Path],
    earlier: list[list[Path]],
    earlier_verdicts: list[Path],
    output: Path,
    score: float,
    duplicates_iou: float,
    iteration: int,
) -> None:
    """predictions: one store a shard, in shard order; earlier: the same for iterations 1..i-1; earlier_verdicts: one each."""
    raise NotImplementedError
