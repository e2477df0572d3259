"""This run in the shape of the thesis's Table 3.1, the thesis's numbers beside it."""

from pathlib import Path


def table_31(*, summary: Path, csv: Path, html: Path) -> None:
    """Write the table of a run as CSV and as a self-contained HTML page (`results/summary.json` in)."""
    raise NotImplementedError
