"""Contact sheets of accepted, rejected and undecided masks of an iteration."""

from pathlib import Path


def plot_galleries(
    *,
    predictions: list[Path],
    verdicts: Path,
    shards: list[Path],
    seed_set: Path,
    truth_match: Path | None,
    accepted: Path,
    rejected: Path,
    undecided: Path,
    iteration: int,
    masks: int,
    seed: int,
) -> None:
    """Draw one PNG a verdict, `masks` random masks each (stores and pool parquets in shard order)."""
    raise NotImplementedError
