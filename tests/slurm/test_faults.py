"""Whatever happens to jobs, nodes or Snakemake: the same command goes on, and nothing is lost or done twice."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..loops import Loop, processes, same_results, wait_for
from .conftest import Cluster, ended, on_slurm, segloop

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

OUTPUTS = {
    "evaluate_detector": "results/iter_{}/evaluation.json",
    "predict_shard": "results/iter_{}/predictions/{}.zarr",
}


@dataclass(frozen=True)
class Task:
    """One job of the loop, such as `predict_shard 2_1`: shard 1 of iteration 2."""

    rule: str
    wildcards: str

    @property
    def output(self) -> str:
        return OUTPUTS[self.rule].format(*self.wildcards.split("_"))

    def logs(self, loop: Loop) -> list[Path]:
        """Return SLURM's logs: one a job."""
        folder = loop.directory / "logs" / "slurm" / f"rule_{self.rule}" / self.wildcards
        return sorted(folder.glob("*.log"), key=lambda path: int(path.stem))

    def job(self, cluster: Cluster, loop: Loop) -> str:
        """Return the id of the job, once its script works."""

        def found() -> list[str]:
            comment = f"rule_{self.rule}_wildcards_{self.wildcards}"
            ids = [job.id for job in cluster.jobs(loop.directory) if job.comment == comment]
            return [number for number in ids if self.scripts(loop, number)]

        wait_for(found)
        return found()[0]

    def scripts(self, loop: Loop, job: str) -> list[int]:
        """Return the processes of a job that run its entry script."""
        found = []
        for process in processes(loop.directory, self.rule):
            try:
                if f"SLURM_JOB_ID={job}".encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                    found.append(process)
            except OSError:
                continue
        return found

    def freeze(self, cluster: Cluster, loop: Loop) -> str:
        """Stop the script where it is, so that the job takes as long as the test needs, and return the job's id."""
        job = self.job(cluster, loop)
        for process in self.scripts(loop, job):
            os.kill(process, signal.SIGSTOP)
        return job

    def thaw(self, loop: Loop) -> None:
        for process in processes(loop.directory, self.rule):
            os.kill(process, signal.SIGCONT)


FIRST, SECOND = Task("predict_shard", "2_0"), Task("predict_shard", "2_1")


def without(undisturbed: Loop, directory: Path, *tasks: Task) -> Loop:
    """Return a copy of the run in which some jobs are to be done again."""
    loop = undisturbed.copy(directory)
    loop.remove(*(task.output for task in tasks))
    return loop


def outputs(*tasks: Task) -> list[str]:
    return [task.output for task in tasks]


def test_cancelled_requeued_out_of_memory_and_timed_out(
    slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path
) -> None:
    starved, late = Task("evaluate_detector", "0"), Task("evaluate_detector", "1")
    tasks = (starved, late, FIRST, SECOND)
    scarce = {
        "mem_mb": "320 if wildcards.iteration == '0' and attempt == 1 else 4000",
        "runtime": "1 if wildcards.iteration == '1' and attempt == 1 else 60",
    }
    loop = on_slurm(
        without(undisturbed, tmp_path / "run", *tasks), slurm_cluster, set_resources={"evaluate_detector": scarce}
    )
    process = loop.start(*outputs(*tasks))
    slurm_cluster.run("scancel", FIRST.freeze(slurm_cluster, loop))
    slurm_cluster.run("scontrol", "requeue", SECOND.freeze(slurm_cluster, loop))
    late.freeze(slurm_cluster, loop)
    status, output = ended(process)
    assert status == 0, output[-6000:]
    assert "exceeded memory limit" in starved.logs(loop)[0].read_text()
    assert "DUE TO TIME LIMIT" in late.logs(loop)[0].read_text()
    assert [len(task.logs(loop)) for task in tasks] == [2, 2, 2, 1]
    assert same_results(undisturbed, loop) == []
    assert slurm_cluster.jobs(loop.directory) == []


def test_node_set_down(slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path) -> None:
    loop = on_slurm(without(undisturbed, tmp_path / "run", FIRST), slurm_cluster)
    process = loop.start(FIRST.output)
    job = FIRST.freeze(slurm_cluster, loop)
    lost = FIRST.scripts(loop, job)
    node = slurm_cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    # Drained, too: its slurmd never died, and would report back and get the job again while its first try still ends.
    for state in ("DRAIN", "DOWN"):
        slurm_cluster.run("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=test")
    status, output = ended(process)
    slurm_cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert status == 0, output[-6000:]
    assert same_results(undisturbed, loop) == []
    assert not any(Path(f"/proc/{process}").exists() for process in lost)


def test_snakemake_killed_and_run_again(slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path) -> None:
    """Plain Snakemake refuses to start beside the jobs that are left; `segloop run` waits for what they make."""
    loop = on_slurm(without(undisturbed, tmp_path / "run", FIRST, SECOND), slurm_cluster)
    targets = outputs(FIRST, SECOND)
    process = loop.start(*targets)
    for task in (FIRST, SECOND):
        task.freeze(slurm_cluster, loop)
    process.kill()
    process.communicate()
    output = loop.run(*targets, status=1)
    assert "2 jobs (" in output
    assert "segloop cancel --directory" in output
    again = segloop(loop, "run", *targets)
    assert again.stdout is not None
    assert "2 jobs (" in again.stdout.readline()
    assert "waiting for their end" in again.stdout.readline()
    FIRST.thaw(loop)
    status, output = ended(again)
    assert status == 0, output[-6000:]
    assert "Nothing to be done" in output
    assert [len(task.logs(loop)) for task in (FIRST, SECOND)] == [1, 1]
    assert same_results(undisturbed, loop) == []


def test_jobs_of_a_killed_run_are_cancelled_on_request(
    slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path
) -> None:
    loop = on_slurm(without(undisturbed, tmp_path / "run", FIRST), slurm_cluster)
    process = loop.start(FIRST.output)
    FIRST.freeze(slurm_cluster, loop)
    status, output = ended(segloop(loop, "cancel"))
    assert status == 1
    assert f"process {process.pid} on" in output
    process.kill()
    process.communicate()
    status, output = ended(segloop(loop, "cancel"))
    assert status == 0
    assert "1 jobs ended" in output
    assert slurm_cluster.jobs(loop.directory) == []
    assert not (loop.directory / FIRST.output).exists()
    loop.run(FIRST.output)
    assert same_results(undisturbed, loop) == []


def test_sigterm_is_an_orderly_stop(slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path) -> None:
    loop = on_slurm(without(undisturbed, tmp_path / "run", FIRST, SECOND), slurm_cluster)
    process = segloop(loop, "run", *outputs(FIRST, SECOND))
    for task in (FIRST, SECOND):
        task.freeze(slurm_cluster, loop)
    process.send_signal(signal.SIGTERM)
    status, output = ended(process)
    assert status != 0
    assert slurm_cluster.jobs(loop.directory) == [], output[-3000:]
    assert not any((loop.directory / output).exists() for output in outputs(FIRST, SECOND))
