"""What a run took of machines: space by step, hours by step, and the slowest jobs."""

import csv
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from segloop.errors import SegloopError
from segloop.files import atomic_file, read_document
from segloop.progress import STEPS, RunFiles, duration, size_of
from segloop.reporting.table_page import table_page

SLOWEST: Final = 15

_NOTES: Final = (
    "Space: bytes in the run directory when this page was made; – where there is nothing (any more).",
    "Time: how long jobs ran, from the files that Snakemake writes to benchmarks/; waiting in a queue is not counted.",
)


@dataclass(frozen=True)
class Job:
    """One finished job: what it was, how long it ran, and the most memory it held, in MB."""

    name: str
    seconds: float
    memory: float | None


def tabulate_resources(*, directory: Path, ledger: Path, html: Path) -> None:
    """Write space, hours and the slowest jobs as a self-contained HTML page.

    Parameters
    ----------
    directory
        The run directory.
    ledger
        `results/ledger.json`.

    Raises
    ------
    SegloopError
        If no run was started there, or the ledger is damaged.
    """
    run = RunFiles(directory)
    costs = read_document(ledger)["iterations"]
    head = "".join(
        f'<th scope="col">{title}</th>' for title in ("iteration", "GPU hours", "CPU hours", "space", "largest step")
    )
    lines = [_line(int(row["iteration"]), row["machine"], run) for row in costs]
    jobs = jobs_of(directory)
    lines += [
        '<tr><th scope="colgroup" colspan="5">The slowest jobs (most memory held)</th></tr>',
        *(_job_line(one) for one in jobs[:SLOWEST]),
    ]
    total = sum(one.seconds for one in jobs)
    notes = (*_NOTES, f"All {len(jobs):,} jobs together ran {duration(total)}.")
    with atomic_file(html) as temporary:
        temporary.write_text(
            table_page("Machines", "Space, hours, slowest jobs", f"<tr>{head}</tr>", lines, notes), encoding="utf-8"
        )


def jobs_of(directory: Path) -> list[Job]:
    """Return the finished jobs of a run, the slowest first."""
    found = []
    for path in sorted((directory / "benchmarks").rglob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        name = path.relative_to(directory / "benchmarks").with_suffix("").as_posix()
        for row in rows:
            seconds = _number(row.get("s"))
            if seconds is None:
                raise SegloopError(f"{path} is no benchmark of Snakemake: it has no seconds. Delete it.")
            found.append(Job(name, seconds, _number(row.get("max_rss"))))
    return sorted(found, key=lambda one: -one.seconds)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        # Snakemake writes NA for a job that ended before it was looked at.
        return None


def _line(iteration: int, machine: dict[str, float | None], run: RunFiles) -> str:
    sizes = {step.name: run.bytes_of(step, iteration) for step in STEPS if step.wanted(run.config)}
    largest = max(sizes, key=lambda name: sizes[name])
    hours = ["–" if machine[name] is None else f"{machine[name]:,.2f}" for name in ("gpu_hours", "cpu_hours")]
    space = (
        [size_of(sum(sizes.values())), f"{largest}, {size_of(sizes[largest])}"] if any(sizes.values()) else ["–"] * 2
    )
    return f'<tr><th scope="row">{iteration}</th>' + "".join(f"<td>{cell}</td>" for cell in (*hours, *space)) + "</tr>"


def _job_line(one: Job) -> str:
    memory = "–" if one.memory is None else f"{one.memory:,.0f} MB"
    name = f'<th scope="row" colspan="3" class="name">{escape(one.name)}</th>'
    return f"<tr>{name}<td>{duration(one.seconds)}</td><td>{memory}</td></tr>"
