"""A real SLURM on this machine, brought up once a session and taken down whatever happens."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..loops import REPOSITORY, Loop

SLURMTEST = Path(__file__).with_name("slurmtest.sh")
PROFILE = Path(__file__).with_name("profile.yaml")
QUICK = Path(__file__).with_name("quick")
PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge", "sbatch": "slurm-client"}
ACCOUNTING = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}


@dataclass(frozen=True)
class Job:
    """One line of squeue."""

    id: str
    state: str
    comment: str
    directory: str


@dataclass(frozen=True)
class Cluster:
    """A running cluster: nodes n1 and n2, partitions `cpu` (default), `gpu` and `short` (five minutes)."""

    directory: Path
    env: dict[str, str] = field(repr=False)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command that finds this cluster, and return what it printed."""
        answer = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=120)
        assert not check or answer.returncode == 0, f"{command}: {answer.stdout}{answer.stderr}"
        return answer.stdout + answer.stderr

    def jobs(self, directory: Path | None = None) -> list[Job]:
        """Return the jobs that wait or run, of one working directory or all."""
        lines = self.run("squeue", "--noheader", "--format=%i|%T|%k|%Z").splitlines()
        jobs = [Job(*line.split("|", 3)) for line in lines]
        return [job for job in jobs if directory is None or job.directory == str(directory)]


def start_cluster(*options: str) -> Cluster:
    """Bring a cluster up in a folder of its own; a unix socket below it leaves no room for a long path."""
    directory = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    environment = _environment()
    answer = subprocess.run(
        ["bash", str(SLURMTEST), "up", str(directory), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    if answer.returncode:
        pytest.fail(f"the test cluster did not come up:\n{answer.stdout}{answer.stderr}")
    environment["PATH"] = f"{directory / 'bin'}:{environment['PATH']}"
    environment["SLURM_CONF"] = str(directory / "slurm.conf")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(QUICK), environment.get("PYTHONPATH")]))
    return Cluster(directory, environment)


def stop_cluster(cluster: Cluster) -> None:
    """Take a cluster down; what its jobs left running is an error."""
    answer = subprocess.run(
        ["bash", str(SLURMTEST), "down", str(cluster.directory)],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if answer.returncode:
        logs = sorted(cluster.directory.glob("log/*.log"))
        ends = "\n".join(f"--- {log}\n" + log.read_text(errors="replace")[-2000:] for log in logs)
        pytest.fail(f"something was left running:\n{answer.stdout}{answer.stderr}\n{ends}")
    shutil.rmtree(cluster.directory, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Return the environment without what a test runner or an outer job adds."""
    foreign = ("PYTEST", "SNAKEMAKE", "SLURM_", "SBATCH_", "SALLOC_")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}


def require(programs: dict[str, str]) -> None:
    """Skip the test where a program is missing, or fail where SEGLOOP_REQUIRE_ALL is set (CI)."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = sorted({package for program, package in programs.items() if shutil.which(program, path=path) is None})
    if missing and os.environ.get("SEGLOOP_REQUIRE_ALL"):
        pytest.fail(f"{' '.join(missing)} not installed, and SEGLOOP_REQUIRE_ALL asks for every test")
    if missing:
        pytest.skip(f"no SLURM to test on (Debian: apt-get install {' '.join(missing)})")


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """A cluster of two nodes with two pretended GPUs each, without accounting."""
    require(PROGRAMS)
    cluster = start_cluster()
    yield cluster
    stop_cluster(cluster)


@pytest.fixture(scope="session")
def slurm_cluster_with_accounting() -> Iterator[Cluster]:
    """The same with slurmdbd: account `test`, and sacct works."""
    require(PROGRAMS | ACCOUNTING)
    cluster = start_cluster("--acct")
    yield cluster
    stop_cluster(cluster)


@pytest.fixture(autouse=True)
def nothing_left_running(tmp_path: Path) -> Iterator[None]:
    """After a test that failed half-way, end what it started; a test that went well has left nothing."""
    yield
    for entry in Path("/proc").iterdir():
        try:
            mine = entry.name.isdigit() and os.fsencode(tmp_path) in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mine and int(entry.name) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def profile(folder: Path, **changes: Any) -> Path:
    """Write profiles/slurm with the changes of profile.yaml and of a test; mappings are merged."""
    values = yaml.safe_load((REPOSITORY / "profiles" / "slurm" / "config.yaml").read_text())
    _merge(values, yaml.safe_load(PROFILE.read_text()))
    _merge(values, {key.replace("_", "-"): value for key, value in changes.items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            _merge(values[key], change)
        else:
            values[key] = change


def on_slurm(loop: Loop, cluster: Cluster, **changes: Any) -> Loop:
    """Return the same run directory for a cluster, with changes of the profile."""
    folder = loop.directory.parent / f"{loop.directory.name}_profile"
    return replace(loop, profile=profile(folder, **changes), env=cluster.env)


def segloop(loop: Loop, *arguments: str) -> subprocess.Popen[str]:
    """Start the command `segloop` about a run directory; `run` takes the profile and the configuration of the loop."""
    command = [sys.executable, "-m", "segloop", arguments[0], "--directory", str(loop.directory)]
    if arguments[0] == "run":
        command += ["--profile", str(loop.profile), "--configfile", str(loop.configfile)]
    return subprocess.Popen(
        [*command, *arguments[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=loop.directory.parent,
        env=dict(loop.env),
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 400) -> tuple[int, str]:
    """Wait for the end of a process, and return its status and what it printed."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output
