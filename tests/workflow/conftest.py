"""One undisturbed run of the tiny loop, made once, and how to run more of them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")


@dataclass(frozen=True)
class Loop:
    """A run directory of the tiny loop and its configuration file."""

    directory: Path
    configfile: Path

    def command(self, *arguments: str, cores: int = 2) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")),
            *("--profile", str(REPOSITORY / "profiles" / "local"), "--configfile", str(self.configfile)),
            *("--directory", str(self.directory), "--cores", str(cores), *arguments),
        ]

    def start(self, *arguments: str, cores: int = 2) -> subprocess.Popen[str]:
        """Start Snakemake in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments, cores=cores),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory.parent,
            env=environment(),
            start_new_session=True,
        )

    def run(self, *arguments: str, cores: int = 2, status: int = 0) -> str:
        """Run Snakemake to its end and return what it printed."""
        with self.start(*arguments, cores=cores) as process:
            output, _ = process.communicate(timeout=900)
        assert process.returncode == status, f"status {process.returncode}\n{output[-6000:]}"
        return output

    def copy(self, directory: Path, **changes: object) -> "Loop":
        """Copy the run with its times, and change sections of its configuration."""
        subprocess.run(["cp", "-a", str(self.directory), str(directory)], check=True)
        return Loop(directory, configuration(directory.parent / f"{directory.name}.yaml", **changes))

    def remove(self, *paths: str) -> None:
        for pattern in paths:
            found = list(self.directory.glob(pattern))
            assert found, f"nothing matches {pattern}"
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def environment() -> dict[str, str]:
    """Return the environment without what a test runner adds."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "SNAKEMAKE"))}


def configuration(path: Path, **changes: object) -> Path:
    """Write the tiny configuration with changed sections; a mapping is merged, another value replaces."""
    values = yaml.safe_load(TINY.read_text())
    for key, change in changes.items():
        values[key] = values.get(key, {}) | change if isinstance(change, dict) else change
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    folder = tmp_path_factory.mktemp("undisturbed")
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


def same_results(a: Loop, b: Loop, ignore: Sequence[str] = ()) -> list[str]:
    """Return the differences between two runs but for paths that begin with one of `ignore`."""
    from segloop.compare import differences

    return [line for line in differences(a.directory, b.directory) if not line.startswith(tuple(ignore) or ("\0",))]
