"""Trainings as jobs of their own, on a real SLURM: they start, end, are put back, vanish and are found again."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from segloop.config import DetectorConfig, TrainingClusterConfig, TrainingConfig
from segloop.detection.launching import launch_training
from segloop.errors import SegloopError
from segloop.files import read_json, write_json

from ..loops import Loop, wait_for
from ..unit.detection.conftest import SIDE, make_dataset
from .conftest import Cluster, ended, on_slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

STEPS = 24
# The nodes' names are known to SLURM only, and all nodes are this machine.
SITE = {
    "partition": "gpu",
    "memory_mb": 6000,
    "timeout_minutes": 5,
    "signal_delay": 60,
    "setup": ["export MASTER_ADDR=127.0.0.1"],
}


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_json(tmp_path / "train.json", make_dataset(tmp_path / "images"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Let commands of this process find a cluster."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.env[name])
    return cluster


@pytest.fixture
def cluster(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return use(slurm_cluster, monkeypatch)


def launch(name: str, *, launcher: str = "submitit", seed: int = 0, rate: float = 0.002, **site: Any) -> Path:
    """Train a model in the current directory."""
    training = TrainingConfig(
        steps=STEPS,
        batch_size=4,
        optimiser="adamw",
        learning_rate=rate,
        warmup_steps=0,
        checkpoint_steps=4,
        crop=SIDE,
        threads=1,
        launcher=launcher,  # type: ignore[arg-type]
        cluster=TrainingClusterConfig(**SITE | site),
    )
    launch_training(
        settings=training,
        name=f"train_{name}",
        folder=Path("logs") / name,
        output=Path("models") / name,
        checkpoints=Path("checkpoints") / name,
        training_set=Path("train.json"),
        previous_model=None,
        detector=DetectorConfig(
            architecture="tiny", embedding_dim=64, min_size=SIDE, max_size=SIDE, detections_per_image=20
        ),
        training=training,
        iteration=0,
        seed=seed,
        device="cpu",
        max_skipped=0.0,
    )
    return Path("models") / name


def facts(model: Path) -> dict[str, Any]:
    """Return what of a model does not come from a clock."""
    description: dict[str, Any] = read_json(model / "model.json")
    del description["seconds"]
    return description | {"losses": (model / "losses.csv").read_text()}


def log_of(name: str, task: int = 0) -> str:
    return "".join(path.read_text() for path in Path("logs", name).glob(f"*/*_{task}_log.out"))


def job_at(name: str, words: str) -> str:
    """Return the job that trains a model, once these words stand in its log."""
    wait_for(lambda: words in log_of(name))
    return next(path.name for path in Path("logs", name).iterdir() if path.name.isdigit())


def send(job: str, number: int) -> None:
    """Send a signal to the training processes of a job."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            # Jobs of other clusters on this machine have the same numbers.
            mine = entry.name.isdigit() and (entry / "cwd").readlink() == Path.cwd()
            mine = mine and f"SLURM_JOB_ID={job}\0".encode() in (entry / "environ").read_bytes()
            if mine and b"submitit.core._submit" in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), number)


def interrupted(name: str, interrupt: Callable[[str], object], **site: Any) -> Path:
    """Train a model, and do something to its job when it has come to the first checkpoint."""
    with ThreadPoolExecutor(1) as pool:
        launched = pool.submit(launch, name, **site)
        job = job_at(name, f"step 4 of {STEPS}")
        # So that it is not done before the signal comes.
        send(job, signal.SIGSTOP)
        interrupt(job)
        send(job, signal.SIGCONT)
        return launched.result(timeout=200)


def test_one_process_equals_training_inline(cluster: Cluster, run_directory: Path) -> None:
    assert facts(launch("one")) == facts(launch("inline", launcher="inline"))
    assert not any((run_directory / "checkpoints").iterdir())


def test_preempted_on_one_node(cluster: Cluster, run_directory: Path) -> None:
    """1 x 2 processes with a GPU each: the signal before a time limit or a preemption."""
    site = {"tasks_per_node": 2, "gpus_per_node": 2}
    undisturbed = launch("undisturbed", **site)
    preempted = interrupted("preempted", lambda job: cluster.run("scancel", "--signal=USR2", job), **site)
    assert "Requeued job" in log_of("preempted")
    # It went on from the step at which the signal came, not from a checkpoint that was due.
    for task in (0, 1):
        assert "training goes on from step" in log_of("preempted", task)
    assert facts(preempted) == facts(undisturbed)
    assert facts(preempted)["ranks"] == 2


def test_requeued_on_two_nodes(cluster: Cluster, run_directory: Path) -> None:
    """2 x 2 processes: put back by SLURM itself, without a signal that asks for it, as when a node is lost."""
    site = {"nodes": 2, "tasks_per_node": 2}
    undisturbed = launch("undisturbed", **site)

    def requeue(job: str) -> None:
        cluster.run("scontrol", "requeue", job)
        # SLURM lets processes go on for a while before it kills them, and these would be done by then.
        send(job, signal.SIGKILL)

    requeued = interrupted("requeued", requeue, **site)
    assert "training goes on from step" in log_of("requeued", 3)
    assert facts(requeued) == facts(undisturbed)
    assert facts(requeued)["ranks"] == 4


@pytest.mark.parametrize("fixture", ["slurm_cluster", "slurm_cluster_with_accounting"])
def test_a_vanished_job_is_an_error_within_a_minute(
    fixture: str, request: pytest.FixtureRequest, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(request.getfixturevalue(fixture), monkeypatch)
    gone: list[float] = []

    def vanish(job: str) -> None:
        # Not by scancel: SLURM lets processes go on before it kills them, and this one would be done by then.
        send(job, signal.SIGKILL)
        gone.append(time.monotonic())

    with pytest.raises(SegloopError, match=r"ended without a result \((FAILED|CANCELLED)\).*last checkpoint"):
        interrupted("model", vanish)
    assert time.monotonic() - gone[0] < 60
    assert not Path("models/model").exists()
    # And the next one goes on where it was.
    launch("model")
    assert "training goes on from step" in log_of("model")


def test_cancelled_before_it_started(cluster: Cluster, run_directory: Path) -> None:
    cluster.run("scontrol", "update", "PartitionName=short", "State=DOWN")
    try:
        with ThreadPoolExecutor(1) as pool:
            launched = pool.submit(launch, "model", partition="short")
            wait_for(lambda: cluster.jobs(run_directory))
            cluster.run("scancel", cluster.jobs(run_directory)[0].id)
            with pytest.raises(SegloopError, match=r"without a result or a log \(CANCELLED\)"):
                launched.result(timeout=60)
    finally:
        cluster.run("scontrol", "update", "PartitionName=short", "State=UP")


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"partition": "none"}, r"refuses.*partition.*training\.cluster\.partition"),
        ({"memory_mb": 10**9}, r"refuses.*node configuration.*memory_mb"),
        ({"nodes": 3, "tasks_per_node": 1}, r"(refuses|can never start).*training\.cluster\.(nodes|partition)"),
        ({"partition": "short", "timeout_minutes": 60}, r"can never start.*training\.cluster\.timeout_minutes"),
        ({"extra": {"constraint": "none"}}, r"refuses.*training\.cluster"),
    ],
)
def test_what_slurm_cannot_do_is_named_by_its_setting(
    cluster: Cluster, run_directory: Path, site: dict[str, Any], words: str
) -> None:
    with pytest.raises(SegloopError, match=words):
        launch("model", **site)
    wait_for(lambda: not cluster.jobs(run_directory))


def test_too_little_memory_is_named_by_its_setting(cluster: Cluster, run_directory: Path) -> None:
    with pytest.raises(SegloopError, match=r"more memory than it was given: raise training\.cluster\.memory_mb"):
        launch("model", memory_mb=500)


def test_an_error_of_the_training_passes_on(cluster: Cluster, run_directory: Path) -> None:
    with pytest.raises(SegloopError, match=r"^training stopped at step .* not finite"):
        launch("model", tasks_per_node=2, rate=1e30)
    wait_for(lambda: not cluster.jobs(run_directory))


def test_a_job_survives_its_follower_and_is_found_again(
    cluster: Cluster, run_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = run_directory / "follower.py"
    script.write_text(f"from {__name__} import launch\nlaunch('model')\n")
    follower = subprocess.Popen(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    job = job_at("model", f"step 4 of {STEPS}")
    follower.kill()
    follower.wait()
    with caplog.at_level(logging.INFO, "segloop"):
        found = launch("model")
    assert f"job {job}, which an earlier run submitted, does this already" in caplog.text
    assert [path.name for path in Path("logs/model").iterdir() if path.name.isdigit()] == [job]
    assert facts(found) == facts(launch("inline", launcher="inline"))


def test_a_job_with_other_settings_is_ended_first(
    cluster: Cluster, run_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.run("sbatch", "--comment=training_train_model 0123456789ab", "--wrap=sleep 600")
    (stale,) = (job.id for job in cluster.jobs(run_directory))
    launch("model")
    assert f"job {stale} was submitted for the same output with other settings" in caplog.text
    wait_for(lambda: not cluster.jobs(run_directory))


def test_a_loop_whose_snakemake_is_killed_trains_each_model_once(
    slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path
) -> None:
    loop = undisturbed.copy(
        tmp_path / "run", training=_training_of(undisturbed) | {"launcher": "submitit", "cluster": SITE}
    )
    loop.remove("results/iter_1/model")
    loop = on_slurm(loop, slurm_cluster)
    process = loop.start("results/iter_1/model")
    wait_for(lambda: slurm_cluster.jobs(loop.directory))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (job,) = slurm_cluster.jobs(loop.directory)
    loop.run("results/iter_1/model")
    folder = loop.directory / "logs/train_detector/1"
    assert [path.name for path in folder.iterdir() if path.name.isdigit()] == [job.id]
    assert "step 5 of 12" in (loop.directory / "logs/train_detector/1.log").read_text()
    weights = [
        read_json(run.directory / "results/iter_1/model/model.json")["weights_sha256"] for run in (loop, undisturbed)
    ]
    assert weights[0] == weights[1]


def test_ctrl_c_ends_the_job(slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path) -> None:
    # So many steps that the job is at work when it is to end.
    endless = {"launcher": "submitit", "cluster": SITE, "finetune_steps": 100_000}
    loop = undisturbed.copy(tmp_path / "run", training=_training_of(undisturbed) | endless)
    loop.remove("results/iter_1/model")
    loop = on_slurm(loop, slurm_cluster)
    process = loop.start("results/iter_1/model")
    wait_for(lambda: slurm_cluster.jobs(loop.directory))
    # A terminal sends it to the whole group.
    os.killpg(process.pid, signal.SIGINT)
    status, _ = ended(process)
    assert status != 0
    wait_for(lambda: not slurm_cluster.jobs(loop.directory), 30)


def _training_of(loop: Loop) -> dict[str, Any]:
    import yaml

    training: dict[str, Any] = yaml.safe_load(loop.configfile.read_text())["training"]
    return training
