"""What is said before the first job and after a failed one; tests/slurm asks a real SLURM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segloop import preflight
from segloop.errors import SegloopError
from segloop.preflight import (
    Node,
    Partition,
    Request,
    describe,
    explain_failures,
    misfits,
    parse_partitions,
    refuse_full_disk,
    refuse_left_over,
)
from segloop.slurm import QueuedJob

SINFO = """\
cpu|infinite|4|64000|(null)
gpu|7-00:00:00|64+|500000+|gpu:a100:4(S:0-1),shard:8
gpu|7-00:00:00|32|250000|gpu:2
short|5:00|4|64000|gpu:fake:2
night|12:00:00|4|64000|gpu:a:1,gpu:b:2
"""


def request_of(**changes: Any) -> Request:
    values: dict[str, Any] = {
        "partition": "gpu",
        "account": None,
        "gpus": 1,
        "cpus": 1,
        "mem_mb": 16_000,
        "minutes": 240,
    }
    return Request("predict_shard", **values | changes)


def test_partitions_are_read_from_sinfo() -> None:
    found = parse_partitions(SINFO)
    assert found["gpu"] == Partition(7 * 24 * 60, (Node(64, 500_000, 4), Node(32, 250_000, 2)))
    assert found["cpu"] == Partition(float("inf"), (Node(4, 64_000, 0),))
    assert found["short"].minutes == 5
    assert (found["night"].minutes, found["night"].nodes[0].gpus) == (720, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "gpus"}, r"no partition gpus \(there are: cpu, gpu, night, short\)\. Change slurm_partition in"),
        ({"gpus": 5}, r"asks for 5 GPUs, no node of partition gpu has more than 4\. Change gpu or slurm_partition of"),
        ({"mem_mb": 600_000}, r"600000 MB of memory.*Change mem_mb or slurm_partition of predict_shard under set-res"),
        ({"cpus": 65}, r"65 cores.*more than 64\. Change threads"),
        ({"partition": "short"}, r"asks for 240 minutes, partition short allows 5\. Change runtime or slurm_partition"),
    ],
)
def test_a_request_that_fits_no_node_names_its_setting(changes: dict[str, Any], words: str) -> None:
    (line,) = misfits([request_of(**changes)], parse_partitions(SINFO))
    assert line.startswith("predict_shard: ")
    with pytest.raises(SegloopError, match=words):
        raise SegloopError(line)


def test_what_fits_or_is_left_to_the_cluster_is_not_mentioned() -> None:
    assert misfits([request_of(), request_of(partition=None, gpus=99)], parse_partitions(SINFO)) == []


def test_a_request_is_what_the_plugin_asks_for() -> None:
    resources = {"slurm_partition": "gpu", "slurm_account": "a", "gpu": 1, "mem_mb": 500, "runtime": 9, "qos": "q"}
    found = Request.of("train_detector", resources, 2)
    options = "--partition=gpu --account=a --qos=q --gpus=1 --cpus-per-task=2 --mem=500 --time=9"
    assert found.options() == options.split()
    # What depends on a file that does not exist yet is no number.
    assert Request.of("link_partitions", {"mem_mb": "<TBD>"}, 1).options() == ["--cpus-per-task=1"]


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_full_disk(tmp_path)
    monkeypatch.setattr(preflight, "LEAST_FREE_BYTES", 10**18)
    with pytest.raises(SegloopError, match=r"MB are free on the file system of .*--directory.*retention\.embeddings"):
        refuse_full_disk(tmp_path)


def test_left_over_jobs_are_named_but_not_those_that_are_gone_on_with(tmp_path: Path) -> None:
    def job(number: int, comment: str) -> QueuedJob:
        return QueuedJob(str(number), "RUNNING", "None", tmp_path, comment)

    jobs = [job(number, f"rule_predict_shard_wildcards_1_{number}") for number in range(7)]
    assert describe(jobs[:1]) == "1 job (0 predict_shard 1_0)"
    assert describe(jobs).endswith("4 predict_shard 1_4, ...)")
    refuse_left_over(tmp_path, [job(9, "training_train_model 0123")])
    with pytest.raises(SegloopError, match=rf"7 jobs .*segloop cancel --directory {tmp_path}"):
        refuse_left_over(tmp_path, jobs)


@pytest.fixture
def failed(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes Snakemake's log of failed jobs, and theirs unless they left none."""

    def write(*jobs: tuple[str, str, str | None]) -> Path:
        lines = []
        for number, (rule, state, said) in enumerate(jobs, start=1):
            log = tmp_path / f"{number}.log"
            if said is not None:
                log.write_text(said)
            lines += [
                f"Job {number} has been submitted with SLURM jobid {number} (log: {log}).",
                f"Error in rule {rule}:",
            ]
            lines += [f"    message: SLURM-job '{number}' failed, SLURM status is: '{state}'. For further"]
        (tmp_path / "snakemake.log").write_text("\n".join(lines))
        return tmp_path / "snakemake.log"

    return write


def test_failures_are_explained_once_each(failed: Callable[..., Path]) -> None:
    late = ("predict_shard", "FAILED", "slurmstepd: error: *** JOB 3 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***")
    log = failed(
        late,
        late,
        ("join_trees", "OUT_OF_MEMORY", ""),
        ("train_detector", "FAILED", "error: the training set is empty"),
        ("evaluate_detector", "FAILED", None),
    )
    lines = explain_failures(log)
    assert [line.partition(":")[0] for line in lines] == ["predict_shard", "join_trees", "evaluate_detector"]
    assert "Raise its runtime (minutes) under set-resources in profiles/slurm/config.yaml" in lines[0]
    assert "Raise its mem_mb" in lines[1]
    assert "Choose a --directory on a file system that all nodes share" in lines[2]
