"""The accepted masks of an iteration as a COCO file with provenance."""

from pathlib import Path


def collect_masks(
    *,
    index: Path,
    predictions: list[Path],
    verdicts: Path,
    answers: Path,
    shards: list[Path],
    seed_set: Path,
    output: Path,
    iteration: int,
) -> None:
    """shards: pool parquets in shard order."""
    raise NotImplementedError
