"""Dask workers as jobs of their own, on a real SLURM: they come, don't come, are lost and are gone in the end."""

import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from segloop import workers
from segloop.config import DaskConfig
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.workers import Workplace, worker_map

from ..loops import Loop, wait_for
from .conftest import Cluster, on_slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]

# All nodes are this machine, and their names are known to SLURM only.
SITE = {"cluster": "slurm", "memory_mb": 1000, "walltime_minutes": 10, "timeout_seconds": 90, "interface": "lo"}
JOB_OF_THIS_WORKER = "__import__('os').environ['SLURM_JOB_ID']"


@pytest.fixture
def cluster(slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm_cluster.env[name])
    monkeypatch.chdir(tmp_path)
    return slurm_cluster


def at(folder: Path, **site: Any) -> Workplace:
    return Workplace(DaskConfig(**SITE | site), "test", folder)


def slow(value: object, seconds: float = 2.0) -> str:
    """Return an expression that takes a while; workers can evaluate it without importing this file."""
    return f"(__import__('time').sleep({seconds}), {value})[1]"


def nothing_is_left(cluster: Cluster, directory: Path, seconds: float = 30) -> None:
    wait_for(lambda: not cluster.jobs(directory), seconds)


def test_workers_are_jobs_and_gone_after_the_block(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    with worker_map(2, 3, at(folder)) as run:
        assert run(math.sqrt, (x for x in range(50))) == [math.sqrt(x) for x in range(50)]
        assert run(math.sqrt, []) == []
        assert run(os.getenv, ["OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK", "SLURM_JOB_NAME"]) == ["3", "3", "dask-test"]
        wait_for(lambda: len(set(run(eval, [JOB_OF_THIS_WORKER] * 20))) == 2)
        jobs = cluster.jobs(tmp_path)
        # By this, `segloop cancel` knows whose they are.
        assert {job.comment for job in jobs} == {"rule_test_worker"}
        assert set(run(eval, [JOB_OF_THIS_WORKER] * 20)) == {job.id for job in jobs}
        with pytest.raises(SegloopError, match=r"missing\.json does not exist"):
            run(read_json, [tmp_path / "missing.json"])
    nothing_is_left(cluster, tmp_path)
    assert all(path.suffix in {".out", ".err"} for path in folder.iterdir())


def test_no_worker_outlives_an_error(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), worker_map(2, 1, at(tmp_path / "logs")):
        raise RuntimeError("stop")
    nothing_is_left(cluster, tmp_path)


def test_workers_end_with_a_killed_program(cluster: Cluster, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from segloop.config import DaskConfig
from segloop.workers import Workplace, worker_map
with worker_map(2, 1, Workplace(DaskConfig(**{SITE!r}), "test", Path("logs").absolute())) as run:
    run(abs, [1])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    package = str(Path(workers.__file__).parents[1])
    done = subprocess.run([sys.executable, "-"], input=program, text=True, env=os.environ | {"PYTHONPATH": package})
    assert done.returncode == -signal.SIGKILL
    # A worker that starts only now looks for the program for a minute.
    nothing_is_left(cluster, tmp_path, 120)


def test_no_worker_comes(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run("scontrol", "update", "PartitionName=short", "State=DOWN")
    try:
        began = time.monotonic()
        with (
            pytest.raises(SegloopError, match=r"none of 2 Dask workers has come within 5.* s; .*PENDING.*timeout"),
            worker_map(2, 1, at(tmp_path / "logs", partition="short", walltime_minutes=5, timeout_seconds=5)),
        ):
            pytest.fail("no worker can have come")
        assert time.monotonic() - began < 30
    finally:
        cluster.run("scontrol", "update", "PartitionName=short", "State=UP")
    nothing_is_left(cluster, tmp_path)


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"partition": "none"}, r"refuses.*partition.*dask\.partition"),
        ({"memory_mb": 10**9}, r"refuses.*dask\.memory_mb"),
        ({"partition": "short", "walltime_minutes": 60}, r"(refuses|can never start).*dask\.walltime_minutes"),
        ({"extra": {"constraint": "none"}}, r"refuses.*dask\.extra"),
        ({"interface": "none0"}, r"cannot start.*none0.*dask\.interface"),
        ({"setup": ["exit 3"]}, r"none of 2 Dask workers has come.*FAILED.*logs"),
    ],
)
def test_what_cannot_be_is_named_by_its_setting(
    cluster: Cluster, tmp_path: Path, site: dict[str, Any], words: str
) -> None:
    with pytest.raises(SegloopError, match=words), worker_map(2, 1, at(tmp_path / "logs", **site)):
        pytest.fail("no worker can have come")
    nothing_is_left(cluster, tmp_path)


def test_what_a_lost_worker_did_is_done_again(cluster: Cluster, tmp_path: Path) -> None:
    with worker_map(2, 1, at(tmp_path / "logs")) as run, ThreadPoolExecutor(1) as pool:
        wait_for(lambda: len(set(run(eval, [JOB_OF_THIS_WORKER] * 20))) == 2)
        first = {job.id for job in cluster.jobs(tmp_path)}
        mapped = pool.submit(run, eval, [slow(f"({value}, {JOB_OF_THIS_WORKER})") for value in range(30)])
        time.sleep(1)
        cluster.run("scancel", min(first))
        found = mapped.result(timeout=300)
    assert [value for value, _ in found] == list(range(30))
    # Another one has come in its place.
    assert {job for _, job in found} - first
    nothing_is_left(cluster, tmp_path)


def test_workers_whose_time_is_over_are_replaced(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LEAVE_S", 10 * 60 - 20)
    with worker_map(2, 1, at(tmp_path / "logs")) as run:
        found = run(eval, [slow(f"({value}, {JOB_OF_THIS_WORKER})") for value in range(30)])
    assert [value for value, _ in found] == list(range(30))
    assert len({job for _, job in found}) > 2
    nothing_is_left(cluster, tmp_path)


def test_work_that_outlives_workers_is_named(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_LEAVE_S", 10 * 60 - 6)
    monkeypatch.setattr(workers, "_LOOK_S", 1.0)
    with (
        pytest.raises(SegloopError, match=r"no piece of work ended within two lives.*dask\.walltime_minutes"),
        worker_map(2, 1, at(tmp_path / "logs")) as run,
    ):
        run(eval, [slow(1, 100)])
    nothing_is_left(cluster, tmp_path)


def test_work_that_ends_workers_is_named(cluster: Cluster, tmp_path: Path) -> None:
    with (
        pytest.raises(SegloopError, match=r"ended several Dask workers.*dask\.memory_mb"),
        worker_map(2, 1, at(tmp_path / "logs", memory_mb=500)) as run,
    ):
        # SLURM ends a job that takes more memory than it was given.
        run(eval, ["(__import__('time').sleep(10), b'x' * (1 << 30), __import__('time').sleep(20))"][:1])
    nothing_is_left(cluster, tmp_path)


def test_a_rule_gives_the_same_with_workers_that_are_jobs(
    slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path
) -> None:
    """Linking and matching inside jobs of the workflow; nested jobs, as on a real cluster."""
    two = {"clustering": {"workers": 2, "memory_mb": 400}, "annotation": {"workers": 2}}
    loop = undisturbed.copy(tmp_path / "run", **two, dask=SITE)
    loop.remove("results/iter_1/links/*.zarr", "results/iter_1/truth_match.parquet")
    loop = on_slurm(loop, slurm_cluster)
    loop.run("results/iter_1/links/0.zarr", "results/iter_1/links/1.zarr", "results/iter_1/truth_match.parquet")
    assert list((loop.directory / "logs/link_partitions/1/0").glob("dask-*.err"))
    wait_for(lambda: not slurm_cluster.jobs(loop.directory), 30)
    for path in ("links/0.zarr", "links/1.zarr"):
        files = [file for file in (loop.directory / "results/iter_1" / path).rglob("*") if file.is_file()]
        assert files
        for file in files:
            same = undisturbed.directory / file.relative_to(loop.directory)
            assert file.read_bytes() == same.read_bytes()
