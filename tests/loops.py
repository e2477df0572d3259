"""Run directories of the tiny loop, and how to run Snakemake in them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = Path(__file__).with_name("tiny.yaml")
LOCAL = REPOSITORY / "profiles" / "local"


@dataclass(frozen=True)
class Loop:
    """A run directory of the tiny loop and its configuration file."""

    directory: Path
    configfile: Path
    profile: Path = LOCAL
    env: Mapping[str, str] = field(default_factory=lambda: environment(), repr=False)

    def command(self, *arguments: str, cores: int = 2) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")),
            *("--profile", str(self.profile), "--configfile", str(self.configfile)),
            *("--directory", str(self.directory)),
            *(("--cores", str(cores)) if self.profile == LOCAL else ()),
            *arguments,
        ]

    def start(self, *arguments: str, cores: int = 2) -> subprocess.Popen[str]:
        """Start Snakemake in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments, cores=cores),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory.parent,
            env=self.env,
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
        return replace(
            self, directory=directory, configfile=configuration(directory.parent / f"{directory.name}.yaml", **changes)
        )

    def remove(self, *paths: str) -> None:
        for pattern in paths:
            found = list(self.directory.glob(pattern))
            assert found, f"nothing matches {pattern}"
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def processes(directory: Path, script: str) -> list[int]:
    """Return the processes that run an entry script with this run directory as working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            here = (entry / "cwd").resolve() == directory.resolve()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if here and f"{script}.py".encode() in command:
            found.append(int(entry.name))
    return found


def wait_for(found: Callable[[], object], seconds: float = 180) -> None:
    """Wait until `found` returns something true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "the moment that the test waits for never came"
        time.sleep(0.01)


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


def same_results(a: Loop, b: Loop, ignore: Sequence[str] = ()) -> list[str]:
    """Return the differences between two runs but for paths that begin with one of `ignore`."""
    from segloop.compare import differences

    return [line for line in differences(a.directory, b.directory) if not line.startswith(tuple(ignore) or ("\0",))]
