"""What goes wrong on a cluster ends in one message that names the setting to change."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..loops import REPOSITORY, Loop
from .conftest import Cluster, ended, on_slurm, start_cluster, stop_cluster
from .test_faults import FIRST, Task, outputs, without

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

NewLoop = Callable[..., Loop]
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs a mount of its own, which is for root")


def messages(output: str) -> list[str]:
    """Return the lines from the first `error:` on, for an error that the workflow itself reports."""
    assert "Traceback" not in output, output
    return output[output.index("error: ") :].splitlines()


def test_what_no_node_can_ever_do(slurm_cluster: Cluster, new_loop: NewLoop) -> None:
    """Every problem at once, each in a line of its own, and no job is submitted."""
    loop = on_slurm(
        new_loop(),
        slurm_cluster,
        default_resources={"slurm_account": "nobody"},
        set_resources={
            "import_seed": {"slurm_partition": "none"},
            "predict_shard": {"gpu": 3},
            "evaluate_detector": {"slurm_partition": "short", "runtime": 60},
            "train_detector": {"mem_mb": 10**6},
        },
    )
    found = messages(loop.run(status=1))
    assert found[0] == "error: this cluster cannot run the workflow as it is configured:"
    expected = [
        r"evaluate_detector: it asks for 60 minutes, partition short allows 5\. Change runtime or slurm",
        r"import_seed: there is no partition none \(there are: cpu, gpu, short\)\. Change slurm_partition in profiles/",
        r"predict_shard: it asks for 3 GPUs, no node of partition gpu has more than 2\. Change gpu or slurm_par",
        r"train_detector: it asks for 1000000 MB of memory, no node of partition gpu has more than .* Change mem_mb or",
        r"slurm_account is set, but this SLURM keeps no accounts\. Remove slurm_account from profiles/",
    ]
    for line, words in zip(found[1:], expected, strict=False):
        assert re.match(rf"  {words}", line)
    assert slurm_cluster.jobs() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slurm_status_command": "sacct"}, r"sacct does not work here \(.*\)\. Set slurm-status-command: squeue in"),
        (
            {"slurm_init_seconds_before_status_checks": 200},
            r"Set slurm-init-seconds-before-.* to at most 100 in",
        ),
    ],
)
def test_jobs_whose_end_nobody_would_notice(
    slurm_cluster: Cluster, new_loop: NewLoop, changes: dict[str, Any], words: str
) -> None:
    loop = on_slurm(new_loop(), slurm_cluster, **changes)
    assert re.search(words, messages(loop.run(status=1))[1])


def test_no_slurm_on_this_machine(new_loop: NewLoop, tmp_path: Path) -> None:
    loop = new_loop()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "which"):
        (programs / name).symlink_to(shutil.which(name) or name)
    command = [part.replace("profiles/local", "profiles/slurm") for part in loop.command()]
    command = command[: command.index("--cores")]
    answer = subprocess.run(
        command,
        env=dict(loop.env) | {"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert answer.returncode == 1
    assert "no SLURM on this machine" in messages(answer.stdout + answer.stderr)[0]
    assert "--profile profiles/local" in answer.stdout + answer.stderr


@ROOT
def test_a_full_disk(slurm_cluster: Cluster, new_loop: NewLoop) -> None:
    loop = on_slurm(new_loop(), slurm_cluster)
    # In a mount namespace of its own, which ends with the command.
    script = f'mount -t tmpfs -o size=20m none {loop.directory} && exec "$@"'
    answer = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *loop.command()],
        env=dict(loop.env),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 1
    assert re.match(r"error: only \d+ MB are free.*--directory.*retention", messages(answer.stdout + answer.stderr)[0])


@ROOT
def test_a_run_directory_that_nodes_do_not_see(undisturbed: Loop, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    cluster = start_cluster("--nodes", "1", "--hide", str(tmp_path / "private"))
    try:
        loop = without(undisturbed, tmp_path / "private" / "run", FIRST)
        loop = on_slurm(loop, cluster, retries=0, latency_wait=2)
        output = loop.run(FIRST.output, status=1)
        assert "predict_shard: the job left no log in" in output
        assert "Choose a --directory on a file system that all nodes share" in output
    finally:
        stop_cluster(cluster)


def test_too_little_time_and_memory_with_accounting(
    slurm_cluster_with_accounting: Cluster, undisturbed: Loop, tmp_path: Path
) -> None:
    """Also: an account of one's own is used, sacct is asked, and the efficiency report is written."""
    cluster = slurm_cluster_with_accounting
    starved, late = Task("evaluate_detector", "0"), Task("evaluate_detector", "1")
    loop = without(undisturbed, tmp_path / "run", starved, late, FIRST)
    profile = {
        "retries": 0,
        "slurm_status_command": "sacct",
        "set_resources": {
            "evaluate_detector": {
                "mem_mb": "320 if wildcards.iteration == '0' else 4000",
                "runtime": "1 if wildcards.iteration == '1' else 60",
            }
        },
    }
    targets = outputs(starved, late, FIRST)
    wrong = on_slurm(loop, cluster, default_resources={"slurm_account": "nobody"}, **profile)
    said = messages(wrong.run(*targets, status=1))[1]
    assert re.match(r"  nobody is not an account of yours \(yours: .*test\)\. Change slurm_account in profiles/", said)
    loop = on_slurm(loop, cluster, default_resources={"slurm_account": "test"}, **profile)
    process = loop.start(*targets)
    late.freeze(cluster, loop)
    status, output = ended(process)
    assert status == 1
    assert "evaluate_detector: its time was too little. Raise its runtime (minutes) under set-resources in" in output
    assert "evaluate_detector: its memory was too little. Raise its mem_mb under set-resources in" in output
    assert not any((loop.directory / task.output).exists() for task in (starved, late))
    assert (loop.directory / FIRST.output).exists()
    assert "account=test" in cluster.run("scontrol", "show", "job", FIRST.logs(loop)[0].stem).lower()
    (report,) = (loop.directory / "logs" / "efficiency").glob("*.csv")
    assert "predict_shard" in report.read_text()
