"""Questions, answers and verdicts of an iteration, answered by the oracle."""

from pathlib import Path

from segloop.config import AnnotationConfig


def annotate_oracle(
    *,
    tree: Path,
    index: Path,
    truth_match: Path,
    answers: Path,
    verdicts: Path,
    config: AnnotationConfig,
    iteration: int,
    seed: int,
) -> None:
    """Ask the oracle until the policy is done; the same bytes for any `config.workers`."""
    raise NotImplementedError
