"""How far a run is, told from its files alone: no database, no queue, no living process is asked."""

import csv
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segloop.config import Config, load
from segloop.errors import SegloopError
from segloop.files import read_document, read_json
from segloop.runs import START, iterations_with
from segloop.store.predictions import rows_of

GPU_JOBS: Final = ("evaluate_detector/{}", "predict_shard/{}/*", "measure_agreement/{}/*")
"""Where Snakemake writes how long the jobs took that hold a GPU, if there is one; a training counts its own hours."""


@dataclass(frozen=True)
class Step:
    """One step of an iteration: its name and what it writes; the first pattern tells its parts."""

    name: str
    writes: tuple[str, ...]
    parts: Callable[[Config], int] = lambda config: 1
    wanted: Callable[[Config], bool] = lambda config: True
    of_detectors: bool = False
    """Whether each detector has its own."""

    def patterns(self, config: Config, folder: str) -> tuple[str, ...]:
        """Return what it writes, below the run directory; `folder` is that of an iteration."""
        paths = [f"{folder}/{pattern}" for pattern in self.writes]
        return tuple(config.of_detector(path, "*") if self.of_detectors else path for path in paths)


_ASKS: Final = (
    Step("predict", ("predictions/*.zarr", "predictions/*.json"), lambda config: config.pool.shards),
    Step("index", ("index.zarr",)),
    Step("match truth", ("truth_match.parquet",), wanted=lambda config: config.pool.truth is not None),
    Step("partition", ("partitions.zarr",)),
    Step("link", ("links/*.zarr",), lambda config: config.clustering.batches),
    Step("join", ("tree.zarr",)),
    Step("reduce", ("reduced.zarr",)),
    Step(
        "measure agreement",
        ("agreement/*.npy", "agreement.npy"),
        lambda config: config.pool.shards,
        lambda config: config.annotation.policy == "distillation",
    ),
    Step(
        "annotate",
        ("verdicts.parquet", "answers.parquet", "certificates.json", "annotators.json", "edited.json"),
    ),
    Step("collect", ("collected.json",)),
)
_LEARNS: Final = (
    Step("merge", ("training_set.json",)),
    Step("train", ("model",), lambda config: len(config.each_detector), of_detectors=True),
    Step(
        "evaluate",
        ("evaluation.json", "validation_results.json"),
        lambda config: len(config.each_detector),
        of_detectors=True,
    ),
    Step("tally", ("ledger.json",)),
    Step("summarise", ("summary.json",)),
)
STEPS: Final = (*_ASKS, *_LEARNS)
_TRAIN: Final = _LEARNS[1]


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    iteration: int
    """The iteration that is worked on, or the last one."""
    iterations: int
    """The configured last iteration; a stop rule may end the run earlier."""
    step: str | None
    """The first step of that iteration that is not complete; None when the run is finished."""
    done: int
    """Complete parts (shards, batches) of that step."""
    parts: int
    """All parts of that step."""
    masks: int
    """Predictions stored in this iteration so far."""
    collected: int
    """Masks collected by all complete iterations."""
    gpu_hours: float
    """Hours that finished jobs held a GPU."""
    step_seconds: float | None
    """About how long the step still takes, at the pace of its last parts; None where nothing is known."""
    run_seconds: float | None
    """About how long the run still takes, at the pace of the last complete iteration."""
    stop_reason: str | None
    """Why the run has ended, if it has."""


class RunFiles:
    """The files of one run directory; what cannot change any more is read once.

    Parameters
    ----------
    directory
        The run directory.
    config
        What the run was started with; read from the directory when None.

    Raises
    ------
    SegloopError
        If no run was started there.
    """

    def __init__(self, directory: Path, config: Config | None = None) -> None:
        self.directory = directory
        self.config = config or _started_with(directory)
        self._rows: dict[Path, int] = {}
        self._seconds: dict[Path, float] = {}

    def complete(self, step: Step, iteration: int) -> list[Path]:
        """Return the complete parts of a step; what is still written has a name that begins with a dot."""
        pattern = step.patterns(self.config, f"results/iter_{iteration}")[0]
        return [path for path in self.directory.glob(pattern) if not path.name.startswith(".")]

    def steps(self, iteration: int) -> tuple[Step, ...]:
        """Return the steps of an iteration in their order; iteration 0 asks nothing."""
        steps = STEPS if iteration else _LEARNS
        return tuple(step for step in steps if step.wanted(self.config))

    def progress(self, now: float | None = None) -> Progress:
        """Return where the run stands; `now` in seconds since 1970, the present if None."""
        now = time.time() if now is None else now
        summary = self.directory / "results" / "summary.json"
        stop_reason = self._stop_reason(read_document(summary)) if summary.exists() else None
        iteration, step = self._current(stop_reason is not None)
        done = self.complete(step, iteration) if step else []
        parts = step.parts(self.config) if step else 0
        return Progress(
            iteration,
            self.config.loop.iterations,
            step.name if step else None,
            len(done),
            parts,
            self._masks(iteration),
            self._collected(iteration),
            self._gpu_hours(iteration),
            seconds_left([path.stat().st_mtime for path in done], parts) if step else 0.0,
            self._run_seconds(iteration, now) if step else 0.0,
            stop_reason,
        )

    def bytes_of(self, step: Step, iteration: int) -> int:
        """Return the bytes that a step has written so far, checkpoints and unfinished files included."""
        patterns = step.patterns(self.config, f"results/iter_{iteration}")
        found = [path for pattern in patterns for path in self.directory.glob(pattern)]
        if step.name == "train":
            found += self.directory.glob(self.config.of_detector(f"checkpoints/iter_{iteration}", "*"))
        return sum(_bytes(path) for path in found)

    def _stop_reason(self, summary: dict[str, Any]) -> str | None:
        """Return why the run ended; a summary of fewer iterations, or from before an extension, says nothing of it."""
        reason: str | None = summary["stop_reason"]
        rows = summary.get("iterations")
        if not rows:
            return reason
        last = max(row["iteration"] for row in rows)
        older = self._begun(last + 1) or (reason == "iterations" and last < self.config.loop.iterations)
        return None if older else reason

    def _begun(self, iteration: int) -> bool:
        return any(self.complete(step, iteration) for step in self.steps(iteration))

    def _current(self, finished: bool) -> tuple[int, Step | None]:
        numbers = range(self.config.loop.iterations + 1)
        # What a target did not need may be missing in earlier iterations, so the newest one comes first.
        newest = next((each for each in reversed(numbers) if self._begun(each)), 0)
        for iteration in (*numbers[newest:], *numbers[:newest]):
            for step in self.steps(iteration):
                if len(self.complete(step, iteration)) < step.parts(self.config):
                    # A stop rule ends a run after any iteration.
                    return (iteration - 1, None) if finished else (iteration, step)
        return self.config.loop.iterations, None

    def _masks(self, iteration: int) -> int:
        return sum(self._rows_of(path) for path in self.complete(_ASKS[0], iteration))

    def _rows_of(self, store: Path) -> int:
        if store not in self._rows:
            self._rows[store] = rows_of(store)
        return self._rows[store]

    def _collected(self, iteration: int) -> int:
        for number in range(iteration, 0, -1):
            path = self.directory / "results" / f"iter_{number}" / "summary.json"
            if path.exists():
                return int(read_document(path)["collected_total"])
        return 0

    def _gpu_hours(self, last: int) -> float:
        hours, on_gpu = 0.0, False
        for iteration in range(last + 1):
            # The model that predicts is the one before; all are trained on one kind of device.
            for folder in self.complete(_TRAIN, iteration):
                model = read_json(folder / "model.json")
                on_gpu = str(model.get("device")).startswith("cuda")
                hours += model.get("gpu_hours", 0.0)
            if on_gpu:
                jobs = (f"benchmarks/{job.format(iteration)}.tsv" for job in GPU_JOBS)
                jobs = (self.config.of_detector(job, "*") if "evaluate_detector" in job else job for job in jobs)
                found = (self.directory.glob(job) for job in jobs)
                hours += sum(self._seconds_of(path) for paths in found for path in paths) / 3600
        return hours

    def _seconds_of(self, benchmark: Path) -> float:
        if benchmark not in self._seconds:
            with benchmark.open(encoding="utf-8", newline="") as file:
                self._seconds[benchmark] = sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
        return self._seconds[benchmark]

    def _run_seconds(self, iteration: int, now: float) -> float | None:
        times = []
        for number in (iteration - 2, iteration - 1):
            path = self.directory / "results" / f"iter_{number}" / "summary.json"
            if number < 0 or not path.exists():
                return None
            times.append(path.stat().st_mtime)
        pace = times[1] - times[0]
        whole = (self.config.loop.iterations - iteration + 1) * pace
        return max(whole - (now - times[1]), 0.0)


def seconds_left(times: list[float], parts: int, window: int = 20) -> float | None:
    """Return how long the remaining parts take at the pace of the last ones.

    Parameters
    ----------
    times
        When the complete parts were completed, in seconds, in any order.
    parts
        How many there are in all.
    window
        At most so many of the last ones give the pace.

    Returns
    -------
    Seconds; None if fewer than two parts are complete.
    """
    last = sorted(times)[-window:]
    if len(last) < 2:
        return None
    return (parts - len(times)) * (last[-1] - last[0]) / (len(last) - 1)


def _started_with(directory: Path) -> Config:
    if not (directory / START).exists():
        raise SegloopError(f"no run was started in {directory}. Give the --directory of a run.")
    return load(read_document(directory / START)["config"])


def _bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            inner = entry.is_dir(follow_symlinks=False)
            total += _bytes(Path(entry.path)) if inner else entry.stat(follow_symlinks=False).st_size
    return total


# --- in words ---------------------------------------------------------------------------------------------------------


def line_of(progress: Progress) -> str:
    """Return the progress of a run as one line."""
    if progress.step is None:
        return f"finished after iteration {progress.iteration} ({progress.stop_reason or 'the last one'})"
    words = [f"iteration {progress.iteration} of {progress.iterations}: {progress.step}"]
    if progress.parts > 1:
        words[0] += f" {progress.done:,} of {progress.parts:,}"
    if progress.masks:
        words.append(f"{progress.masks:,} masks predicted")
    if progress.collected:
        words.append(f"{progress.collected:,} collected")
    if progress.gpu_hours:
        words.append(f"{progress.gpu_hours:.1f} GPU hours")
    if progress.step_seconds is not None:
        words.append(f"this step about {duration(progress.step_seconds)} more")
    if progress.run_seconds is not None:
        words.append(f"the run about {duration(progress.run_seconds)} more")
    return ", ".join(words)


def spent_line(directory: Path) -> str:
    """Return what the complete iterations of a run cost, and what is claimed of their masks, as one line."""
    rows = [read_document(path) for path in iterations_with(directory, "summary.json").values()]
    asked = [row for row in rows if row.get("questions") is not None]
    if not asked:
        return "nothing has been asked yet"
    words = [f"{sum(row['questions'] for row in asked):,} questions"]
    seconds = sum(row.get("seconds") or 0.0 for row in asked)
    if seconds:
        words.append(f"{duration(seconds)} of people")
    dollars = sum((row.get("dollars") or 0.0) + (row.get("machine_dollars") or 0.0) for row in rows)
    if dollars:
        words.append(f"${dollars:,.2f} in all")
    last = asked[-1]
    claimed = last.get("certified")
    claim = "nothing is claimed of" if claimed is None else f"at least {100 * claimed:.1f} % are good (claimed) of"
    return f"{', '.join(words)}; {claim} the {last['collected']:,} masks of iteration {last['iteration']}"


def duration(seconds: float) -> str:
    """Return a duration in the two units that matter: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def table_of(run: RunFiles) -> str:
    """Return the bytes that each step has written, one column an iteration; running steps say how far they are."""
    last = run.progress().iteration
    rows = [["step", *(f"iter {number}" for number in range(last + 1)), "all"]]
    for step in STEPS:
        if not step.wanted(run.config):
            continue
        sizes = [run.bytes_of(step, number) for number in range(last + 1)]
        cells = [_cell(run, step, number, size) for number, size in enumerate(sizes)]
        rows.append([step.name, *cells, size_of(sum(sizes))])
    total = sum(_bytes(run.directory / folder) for folder in ("results", "resources", "checkpoints", "logs"))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines) + f"\nall files of the run: {size_of(total)}\n"


def _cell(run: RunFiles, step: Step, iteration: int, size: int) -> str:
    done, parts = len(run.complete(step, iteration)), step.parts(run.config)
    if not size and not done:
        return "-"
    return size_of(size) if done >= parts else f"{size_of(size)} ({done}/{parts})"


def size_of(count: int) -> str:
    """Return a number of bytes with three digits: 870 B, 1.23 MB, 94.2 GB."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


def worker_of(claim: Path) -> str:
    """Return who works in a run directory, by the claim that Snakemake keeps there (`segloop.runs.RunClaim`)."""
    words = claim.read_text(encoding="utf-8").split() if claim.exists() else []
    if len(words) != 3 or not words[0].isdigit():
        return "nobody works in this directory"
    process, host = words[0], words[2]
    if host != os.uname().nodename:
        return f"process {process} on {host} worked here last; whether it still does, only {host} knows"
    try:
        works = b"snakemake" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        works = False
    return f"process {process} works here" if works else "nobody works in this directory"
