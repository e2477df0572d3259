"""The run directory: who works in it, how a run is started, and what is recorded beside its results."""

import fcntl
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from segloop import __version__
from segloop.config import AnnotationConfig, Config, load_file
from segloop.errors import SegloopError
from segloop.files import atomic_file, read_json, write_json
from segloop.reporting.terminal import text_table

logger = logging.getLogger("segloop")


class RunClaim:
    """One process's claim on a run directory, by which a killed Snakemake's lock is told from a living one's.

    Snakemake's own lock is a file that survives `kill -9`, after which every rerun would end in a LockException.
    The claim is a lock of the operating system, which ends with its process however that ends: whoever holds it
    knows that no other Snakemake of this workflow works in the directory, so that a lock found there is stale.

    Parameters
    ----------
    directory
        The run directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        folder = directory / ".snakemake"
        folder.mkdir(exist_ok=True)
        self._file = (folder / "segloop.claim").open("a+", encoding="utf-8")
        self.held = self._try()
        if self.held:
            _clear_stale_locks(folder / "locks")

    def wait(self, seconds: float = 30.0) -> None:
        """Hold the claim before work begins; a dry run holds it for some seconds only.

        Raises
        ------
        SegloopError
            If another process still holds it after `seconds`.
        """
        end = time.monotonic() + seconds
        while not self.held:
            self.held = self._try()
            if not self.held and time.monotonic() > end:
                self._file.seek(0)
                holder = self._file.read().strip() or "unknown"
                raise SegloopError(
                    f"another Snakemake works in {self.directory} (process {holder}). "
                    "Wait for it, stop it with Ctrl-C, or choose another --directory."
                )
            time.sleep(0 if self.held else 0.2)

    def release(self) -> None:
        """Give the claim up; the end of the process does the same."""
        self._file.close()
        self.held = False

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} on {os.uname().nodename}\n")
        self._file.flush()
        return True


def _clear_stale_locks(locks: Path) -> None:
    stale = sorted(locks.glob("*.lock"))
    for lock in stale:
        lock.unlink(missing_ok=True)
    if stale:
        logger.warning("removed the lock of a Snakemake that was killed")


def asking(iteration: int, directory: Path, annotation: AnnotationConfig) -> str:
    """Return what to tell a person when a run waits for people's answers about an iteration."""
    folder = directory / annotation.answers_root / f"iter_{iteration}"
    return (
        f"\nThe questions of iteration {iteration} wait for people's answers. The same command goes on once\n"
        f"  {folder / 'answers.jsonl'} and\n  {folder / 'complete.json'} exist.\n"
    )


def redrawing(last: int, directory: Path, annotation: AnnotationConfig) -> str:
    """Return what to tell a person of iterations up to `last` whose sample of masks is not all redrawn yet."""
    lines = []
    for iteration in range(1, last + 1) if annotation.audit.redraws and annotation.annotator == "people" else ():
        folder = directory / "results" / f"iter_{iteration}"
        quality = read_json(folder / "quality.json") if (folder / "quality.json").exists() else None
        if quality is not None and quality["redrawn"] < quality["sample"]:
            target = directory / annotation.answers_root / f"iter_{iteration}" / "redraws.jsonl"
            lines.append(
                f"\n{quality['redrawn']} of the {quality['sample']} masks in\n  {folder / 'quality_sample.json'}\n"
                f"are redrawn in\n  {target}\n"
            )
    return "".join(lines)


def run_workflow(*, profile: str, configfile: Path, directory: Path, arguments: Sequence[str], report: bool) -> int:
    """Check the configuration, run Snakemake on it, and print the table of the run.

    Parameters
    ----------
    profile, configfile, directory
        As Snakemake takes them; the directory is made when it is missing.
    arguments
        Further arguments for Snakemake, such as a target or `-n`.
    report
        Build `report.html` in the run directory when the run ended well.

    Returns
    -------
    Snakemake's exit status.

    Raises
    ------
    SegloopError
        If the configuration is not valid.
    """
    load_file(configfile)
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(_repository() / "Snakefile")]
    command += ["--profile", profile, "--configfile", str(configfile), "--directory", str(directory)]
    status = _call([*command, *arguments])
    summary = directory / "results" / "summary.json"
    if status or not summary.exists() or {"-n", "--dry-run", "--dryrun"} & set(arguments):
        return status
    page = directory / "report.html"
    if report and (not page.exists() or page.stat().st_mtime < summary.stat().st_mtime):
        status = _call([*command, "--report", str(page.absolute())])
    print("\n" + text_table(read_json(summary)))
    print(f"results: {summary}" + (f"\nreport:  {page}" if page.exists() else ""))
    return status


def _repository() -> Path:
    return Path(__file__).resolve().parents[2]


def _call(command: Sequence[str]) -> int:
    # Snakemake waits for its jobs on SIGTERM but stops them on SIGINT: an orderly stop is what a terminating
    # shell or batch system means.
    with subprocess.Popen(command) as process:
        previous = signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
        try:
            return process.wait()
        except KeyboardInterrupt:
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, previous)


def record_run(*, config: Config, output: Path, configuration: Path, lock: Path) -> None:
    """Write what made the results: merged configuration, installed distributions, revision and versions.

    Parameters
    ----------
    config
        The validated configuration, defaults included.
    output
        `run.json`: git revision (null outside a checkout), whether files differed from it, versions.
    configuration
        `config.yaml`, which repeats the run when given to `--configfile`.
    lock
        `requirements.lock`: every installed distribution with its version, as pip reads it.
    """
    with atomic_file(configuration) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    installed = {f"{d.name}=={d.version}" for d in metadata.distributions()}
    with atomic_file(lock) as temporary:
        temporary.write_text("\n".join(sorted(installed, key=str.lower)) + "\n", encoding="utf-8")
    write_json(output, {"schema_version": 1, "git": _git_revision(), "versions": versions()})


def versions() -> dict[str, str]:
    """Return the versions of Python, of segloop and of the libraries that results depend on."""
    names = ["torch", "torchvision", "numpy", "scipy", "zarr", "fastcluster", "faiss-cpu", "pycocotools", "snakemake"]
    found: dict[str, str] = {"segloop": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git_revision() -> dict[str, Any] | None:
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> str | None:
        answer = subprocess.run([git, "-C", str(_repository()), *words], capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None

    revision = ask("rev-parse", "HEAD")
    return None if revision is None else {"revision": revision, "modified": bool(ask("status", "--porcelain"))}
