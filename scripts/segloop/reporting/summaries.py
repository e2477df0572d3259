"""What figures and tables need of `results/summary.json`, in one place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segloop.errors import SegloopError
from segloop.files import read_document


@dataclass(frozen=True)
class RunSummary:
    """A run's summary; every number may be None where the run does not know it.

    Attributes
    ----------
    iterations
        The summaries of the iterations in order, as `summarise_iteration` wrote them.
    control
        Per iteration AP and AP50 of the control model: the same further steps on the seed set alone.
    upper_bound
        AP and AP50 of the model trained on the seed set and all truth of the pool.
    stop_reason
        Why the run ended; None: it has not.
    planned
        Iterations that the configuration asks for, if it is known.
    """

    iterations: list[dict[str, Any]]
    control: dict[int, dict[str, Any]]
    upper_bound: dict[str, Any] | None
    stop_reason: str | None
    planned: int | None = None


def read_run(path: Path) -> RunSummary:
    """Read `results/summary.json`.

    Raises
    ------
    SegloopError
        If the file is missing, is not JSON or has no list of iterations.
    """
    content = read_document(path)
    iterations = content.get("iterations") if isinstance(content, dict) else None
    if not isinstance(iterations, list) or not all(isinstance(row, dict) and "iteration" in row for row in iterations):
        raise SegloopError(f"{path} has no list of iterations. Run `snakemake {path}` again.")
    return RunSummary(
        iterations=sorted(iterations, key=lambda row: int(row["iteration"])),
        control=_control(content.get("control"), iterations),
        upper_bound=content.get("upper_bound") or None,
        stop_reason=content.get("stop_reason"),
        planned=content.get("planned_iterations"),
    )


def _control(control: Any, iterations: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    # Iterations carry the control's AP; the run's own entry, where there is one, knows AP50 as well.
    found = {
        int(row["iteration"]): {"ap": row["control_ap"]} for row in iterations if row.get("control_ap") is not None
    }
    for key, evaluation in (control or {}).items():
        if key.isdigit() and isinstance(evaluation, dict):
            found[int(key)] = evaluation
    return found


def percent(value: float | None) -> float | None:
    """Return a share as a percentage, None as None."""
    # Rounded far below what anyone reads, so that 0.58 does not become 57.99999999999999.
    return None if value is None else round(100.0 * value, 9)


def total(rows: list[dict[str, Any]], key: str) -> float | None:
    """Return the sum of a column over the rows that know it; None if none does."""
    known = [row[key] for row in rows if row.get(key) is not None]
    return sum(known) if known else None
