"""What all tests share: when a missing program skips a test or fails it, and one undisturbed run of the tiny loop."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .loops import Loop, configuration

REPOSITORY = Path(__file__).resolve().parents[1]


FIRST = ("slurm", "faults", "workflow")
"""Folders whose files take minutes each."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process of `make test` is left with it while the other has ended."""

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        return FIRST.index(folder) if folder in FIRST else len(FIRST)

    items.sort(key=place)


def require_program(name: str) -> str:
    """Return the path of a program; without it skip the test, or fail where SEGLOOP_REQUIRE_ALL is set (CI)."""
    path = shutil.which(name)
    if path is None and os.environ.get("SEGLOOP_REQUIRE_ALL"):
        pytest.fail(f"{name} is not installed, and SEGLOOP_REQUIRE_ALL asks for every test")
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {name})")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    return require_program("chromium")


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the type checker and of axe, installed by npm as package-lock.json says."""
    npm = require_program("npm")
    folder = REPOSITORY / "tests" / "javascript"
    installed = folder / "node_modules"
    with (folder / ".npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (installed / ".package-lock.json").exists():
            return installed
        command = [npm, "ci", "--no-audit", "--no-fund", "--cache", str(tmp_path_factory.mktemp("npm"))]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return installed
        shutil.rmtree(installed, ignore_errors=True)
    reason = f"npm ci failed: {done.stderr[-500:]}"
    if os.environ.get("SEGLOOP_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Loop:
    """Return the run, made once; each further process of pytest has a copy, as Snakemake works in one at a time."""
    folder = tmp_path_factory.mktemp("undisturbed")
    if worker_id == "master":
        return made(folder)
    shared = tmp_path_factory.getbasetemp().parent / "undisturbed"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = Loop(shared / "run", shared / "tiny.yaml")
        if not shared.exists():
            # Renamed when it is whole: a run that failed is no run for the others.
            unfinished = shared.with_name("unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            made(unfinished)
            unfinished.rename(shared)
        return first.copy(folder / "run")


def made(folder: Path) -> Loop:
    """Run the tiny loop in a new folder."""
    loop = Loop(folder / "run", configuration(folder / "tiny.yaml"))
    loop.directory.mkdir()
    loop.run()
    return loop


@pytest.fixture
def new_loop(tmp_path: Path) -> Callable[..., Loop]:
    """Return a function that makes an empty run directory with a changed configuration."""

    def make(name: str = "run", **changes: object) -> Loop:
        (tmp_path / name).mkdir()
        return Loop(tmp_path / name, configuration(tmp_path / f"{name}.yaml", **changes))

    return make
