"""Around Snakemake: what `segloop run` and `segloop cancel` do before it starts, while it works and when it stops."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from segloop.config import load_file
from segloop.errors import SegloopError
from segloop.files import read_document
from segloop.preflight import describe, refuse_left_over
from segloop.progress import RunFiles, line_of
from segloop.reporting.terminal import text_table
from segloop.runs import CLAIM, REPOSITORY, START, claimed
from segloop.slurm import cancel, left_over

LeftOver = Literal["wait", "cancel", "refuse"]
_DRY: Final = frozenset({"--dry-run", "--dryrun"})
_SHORT_DRY: Final = re.compile("-[a-zA-Z]*n[a-zA-Z]*")
_LOOKS: Final = frozenset(
    {"--unlock", "--summary", "--detailed-summary", "--dag", "--rulegraph", "--filegraph", "--list"}
)
"""Arguments by which Snakemake starts no job."""
_CANCEL_SECONDS: Final = 150.0
"""SLURM gives a cancelled job KillWait (30 s by default) to end."""


def run_workflow(
    *,
    profile: str,
    configfile: Path,
    directory: Path,
    arguments: Sequence[str] = (),
    report: bool = False,
    left_over_jobs: LeftOver = "wait",
    every: float = 60.0,
) -> int:
    """Check the configuration, run Snakemake on it, and print the table of the run.

    Parameters
    ----------
    profile, configfile, directory
        As Snakemake takes them; the directory is made when it is missing. A profile is also found by its name below
        the repository and its `profiles`, so that the command works from anywhere.
    arguments
        Further arguments for Snakemake, such as a target or `-n`.
    report
        Build `report.html` in the run directory when the run ended well.
    left_over_jobs
        What to do about SLURM jobs of an earlier Snakemake that was killed: `wait` for their end and use what they
        made, `cancel` them, or `refuse` to start.
    every
        Seconds between two lines of progress; 0: none.

    Returns
    -------
    Snakemake's exit status.

    Raises
    ------
    SegloopError
        If the configuration is not valid, or jobs are left over that shall not be.
    """
    load_file(configfile)
    directory.mkdir(parents=True, exist_ok=True)
    command = _snakemake(profile, configfile, directory)
    dry = any(word in _DRY or _SHORT_DRY.fullmatch(word) for word in arguments)
    if not dry and not _LOOKS & set(arguments):
        settle(directory, left_over_jobs)
    with _progress(directory, 0 if dry else every):
        status = _call([*command, *arguments], directory)
    summary = directory / "results" / "summary.json"
    if status or not summary.exists() or dry:
        return status
    page = directory / "report.html"
    if report and (not page.exists() or page.stat().st_mtime < _newest(directory)):
        status = _call([*command, "--report", str(page.absolute())], directory)
    print("\n" + text_table(read_document(summary)))
    print(f"results: {summary}" + (f"\nreport:  {page}" if page.exists() else ""))
    return status


def _newest(directory: Path) -> float:
    """Return when the newest of what a report shows was written."""
    shown = [directory / "results" / "summary.json", *(directory / "results").rglob("figures/*")]
    return max(path.stat().st_mtime for path in shown)


def build_report(*, profile: str, configfile: Path, directory: Path, output: Path) -> int:
    """Build the report of a run from the iterations that are done, whether it has ended or not.

    Figures that are missing are drawn; nothing is trained, predicted or asked.

    Parameters
    ----------
    output
        The page to write.

    Returns
    -------
    Snakemake's exit status.

    Raises
    ------
    SegloopError
        If not even the seed model is done, or another Snakemake works in the directory.
    """
    planned = load_file(configfile).loop.iterations
    last = _last_done(directory, planned)
    if claimed(directory):
        raise SegloopError(f"a Snakemake works in {directory}. Build the report when it has stopped.")
    command = [*_snakemake(profile, configfile, directory), "--rerun-triggers", "mtime"]
    if last < planned and not _stopped(directory):
        print(f"{last} of {planned} iterations are done: the report is of these", flush=True)
        command += ["--config", f"loop={{until: {last}}}"]
    return _call(command, directory) or _call([*command, "--report", str(output.absolute())], directory)


def _last_done(directory: Path, planned: int) -> int:
    """Return the last of the iterations that are done with all before them."""
    done = [(directory / f"results/iter_{iteration}/summary.json").exists() for iteration in range(planned + 1)]
    if not done[0]:
        raise SegloopError(f"{directory} holds no iteration that is done, so that there is nothing to report.")
    return [*done, False].index(False) - 1


def _stopped(directory: Path) -> bool:
    """Tell whether a rule ended the run before all its iterations."""
    summary = directory / "results" / "summary.json"
    # "iterations" may be of an earlier configuration, with fewer of them.
    return summary.exists() and read_document(summary).get("stop_reason") not in (None, "iterations")


def _snakemake(profile: str, configfile: Path, directory: Path) -> list[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    return [
        *command,
        "--profile",
        find_profile(profile),
        "--configfile",
        str(configfile),
        "--directory",
        str(directory),
    ]


def find_profile(name: str) -> str:
    """Return the path of a profile that is given by path or name; what is not found is left to Snakemake."""
    candidates = (Path(name), REPOSITORY / name, REPOSITORY / "profiles" / name)
    return str(next((path for path in candidates if path.is_dir()), name))


def settle(directory: Path, mode: LeftOver) -> None:
    """Deal with SLURM jobs that a killed Snakemake left in a run directory, before another one starts there.

    Raises
    ------
    SegloopError
        If there are some and the mode is `refuse`, they do not end when cancelled, or SLURM does not answer.
    """
    # A living Snakemake has jobs, too; the one that is about to start will refuse to work beside it.
    if not used_slurm(directory) or claimed(directory):
        return
    if mode == "cancel":
        end_jobs(directory)
    jobs = [job for job in left_over(directory) if not job.goes_on]
    if mode == "refuse":
        refuse_left_over(directory, jobs)
    if not jobs:
        return
    print(f"{describe(jobs)} of a Snakemake that was killed still work in {directory}", flush=True)
    print("waiting for their end (`segloop cancel` ends them); what they make is not made again", flush=True)
    while any(not job.goes_on for job in left_over(directory)):
        time.sleep(5)


def used_slurm(directory: Path) -> bool:
    """Tell whether the last run in a directory sent jobs to SLURM."""
    return (directory / START).exists() and bool(read_document(directory / START).get("slurm"))


def end_jobs(directory: Path) -> int:
    """Cancel the SLURM jobs of a run directory, wait for their end, and return how many there were.

    Raises
    ------
    SegloopError
        If some do not end.
    """
    jobs = left_over(directory)
    if not jobs:
        return 0
    print(f"cancelling {describe(jobs)}", flush=True)
    cancel([job.id for job in jobs])
    end = time.monotonic() + _CANCEL_SECONDS
    while left := left_over(directory):
        if time.monotonic() > end:
            raise SegloopError(f"{describe(left)} did not end. Look at them with `squeue --me`.")
        time.sleep(0.5)
    return len(jobs)


def cancel_run(directory: Path) -> int:
    """End the SLURM jobs that a killed Snakemake left in a run directory, and return how many there were.

    Raises
    ------
    SegloopError
        If a Snakemake still works there: it would start them again.
    """
    if claimed(directory):
        holder = (directory / CLAIM).read_text(encoding="utf-8").strip()
        raise SegloopError(
            f"a Snakemake works in {directory} (process {holder}) and would start its jobs again. Stop it with Ctrl-C "
            f"or `kill -INT {holder.partition(' ')[0]}`; it ends its jobs itself."
        )
    return end_jobs(directory)


def _call(command: Sequence[str], directory: Path) -> int:
    # Snakemake waits for its jobs on SIGTERM but stops them on SIGINT: an orderly stop is what a terminating
    # shell or batch system means.
    stopped = False
    with subprocess.Popen(command) as process:

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True
            process.send_signal(signal.SIGINT)

        previous = signal.signal(signal.SIGTERM, stop)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            stopped = True
            status = process.wait()
        finally:
            signal.signal(signal.SIGTERM, previous)
    if stopped and used_slurm(directory):
        # Snakemake forgets those whose state it asked for in that moment.
        end_jobs(directory)
    return status


@contextlib.contextmanager
def _progress(directory: Path, every: float) -> Iterator[None]:
    """Print where the run stands from time to time, whenever it has changed."""
    done = threading.Event()
    begin = time.time()

    def watch() -> None:
        run, shown = None, ""
        while not done.wait(every):
            # Files come and go while the run works: what cannot be read now can be read a minute later.
            with contextlib.suppress(OSError, ValueError, KeyError, SegloopError):
                if run is None and (directory / START).stat().st_mtime >= begin:
                    run = RunFiles(directory)
                line = line_of(run.progress()) if run else shown
                if line != shown:
                    print(f"segloop: {line}", flush=True)
                    shown = line

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    if every > 0:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()
