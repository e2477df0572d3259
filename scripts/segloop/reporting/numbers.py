"""The numbers of a figure, beside it as CSV."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from segloop.files import atomic_file


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write the numbers of a figure, whole or not at all; None becomes an empty cell."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(["" if value is None else value for value in row] for row in rows)
