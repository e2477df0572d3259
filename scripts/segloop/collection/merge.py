"""The training set of an iteration: the seed set and everything collected so far."""

from pathlib import Path


def merge_training_set(
    *,
    seed_set: Path,
    collected: list[Path],
    predictions: list[Path],
    verdicts: Path | None,
    answers: Path | None,
    output: Path,
    ignore_unaccepted: bool,
) -> None:
    """Iteration 0: collected=[], predictions=[], verdicts=None, answers=None. Else collected of 1..i, the rest of i."""
    raise NotImplementedError


def upper_bound_set(*, seed_set: Path, truth: Path, shards: list[Path], output: Path) -> None:
    """Seed set plus all truth of the pool."""
    raise NotImplementedError
