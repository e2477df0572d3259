"""The run directory: who works in it, and what is recorded beside its results."""

import logging
import os
import platform
import shlex
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from segloop import __version__
from segloop.config import AnnotationConfig, Config
from segloop.errors import SegloopError
from segloop.files import atomic_file, lock, read_document, write_json

logger = logging.getLogger("segloop")

REPOSITORY = Path(__file__).resolve().parents[2]
CLAIM = Path(".snakemake") / "segloop.claim"
START = Path(".snakemake") / "segloop.start.json"
"""What was started last in a run directory; `segloop status` reads it."""


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
        claim = directory / CLAIM
        claim.parent.mkdir(exist_ok=True)
        self._file = claim.open("a+", encoding="utf-8")
        self.held = self._try()
        if self.held and self._certain:
            _clear_stale_locks(claim.parent / "locks")

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
        free = lock(self._file, exclusive=True, wait=False)
        if free is False:
            return False
        self._certain = free is True
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} on {os.uname().nodename}\n")
        self._file.flush()
        return True


def claimed(directory: Path) -> bool:
    """Tell whether a Snakemake works in a run directory, on this machine or any that shares the file system's locks."""
    path = directory / CLAIM
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as file:
        return lock(file, exclusive=False, wait=False) is False


def _clear_stale_locks(locks: Path) -> None:
    stale = sorted(locks.glob("*.lock"))
    for path in stale:
        path.unlink(missing_ok=True)
    if stale:
        logger.warning("removed the lock of a Snakemake that was killed")


def asking(iteration: int, directory: Path, annotation: AnnotationConfig) -> str:
    """Return what to tell a person when a run waits for people's answers about an iteration."""
    folder = directory / annotation.answers_root / f"iter_{iteration}"
    return (
        f"\nThe questions of iteration {iteration} wait for people's answers. Ask them in the browser with\n"
        f"  segloop label --run {shlex.quote(str(directory))} --iteration {iteration}\n"
        f"or put them into\n  {folder / 'answers.jsonl'} and then write\n  {folder / 'complete.json'}\n"
        "The command that started this run goes on once both files exist.\n"
    )


def redrawing(last: int, directory: Path, annotation: AnnotationConfig) -> str:
    """Return what to tell a person of iterations up to `last` whose sample of masks is not all redrawn yet."""
    lines = []
    for iteration in range(1, last + 1) if annotation.audit.redraws and annotation.annotator == "people" else ():
        folder = directory / "results" / f"iter_{iteration}"
        quality = read_document(folder / "quality.json") if (folder / "quality.json").exists() else None
        if quality is not None and quality["redrawn"] < quality["sample"]:
            target = directory / annotation.answers_root / f"iter_{iteration}" / "redraws.jsonl"
            lines.append(
                f"\n{quality['redrawn']} of the {quality['sample']} masks in\n  {folder / 'quality_sample.json'}\n"
                f"are redrawn in\n  {target}\n"
                f"Draw them with: segloop label --run {shlex.quote(str(directory))} --iteration {iteration}\n"
            )
    return "".join(lines)


def record_start(directory: Path, config: Config, slurm: bool) -> None:
    """Write down when a run was started or gone on with, its configuration, and whether it sends jobs to SLURM."""
    record = {"schema_version": 1, "time": time.time(), "slurm": slurm, "config": config.model_dump(mode="json")}
    write_json(directory / START, record)


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
        answer = subprocess.run([git, "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None

    revision = ask("rev-parse", "HEAD")
    return None if revision is None else {"revision": revision, "modified": bool(ask("status", "--porcelain"))}


def iterations_with(run: Path, name: str) -> dict[int, Path]:
    """Return the file of this name of each iteration of a run that has it, in order; kept copies are no iterations."""
    found = {}
    for path in (run / "results").glob(f"iter_*/{name}"):
        number = path.parent.name.removeprefix("iter_")
        if number.isdecimal():
            found[int(number)] = path
    return dict(sorted(found.items()))
