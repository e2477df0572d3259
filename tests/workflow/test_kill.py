"""`kill -9` of any process at any moment, then the same command: the bytes of an undisturbed run."""

import os
import signal
import time
from pathlib import Path

import pytest

from ..loops import Loop, processes, same_results, wait_for

pytestmark = pytest.mark.workflow


def _kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def _before_iteration(undisturbed: Loop, directory: Path, iteration: int) -> Loop:
    """Return a copy of the run as it was just before the model of an iteration was trained."""
    loop = undisturbed.copy(directory)
    loop.remove(f"results/iter_{iteration}/model", f"results/iter_{iteration}/evaluation.json", "results/summary.json")
    loop.remove(f"results/iter_{iteration}/summary.json")
    return loop


def test_snakemake_killed_in_the_middle_of_training(undisturbed: Loop, tmp_path: Path) -> None:
    loop = _before_iteration(undisturbed, tmp_path / "run", 2)
    checkpoint = loop.directory / "checkpoints" / "iter_2"
    process = loop.start()
    wait_for(lambda: checkpoint.exists() and any(checkpoint.iterdir()))
    _kill(process.pid)
    process.communicate()
    assert not (loop.directory / "results/iter_2/model").exists()
    loop.run()
    assert same_results(undisturbed, loop) == []


@pytest.mark.parametrize(
    "step", ["train_detector", "predict_shard", "index_predictions", "link_partitions", "annotate_oracle"]
)
def test_a_job_killed_by_surprise(undisturbed: Loop, tmp_path: Path, step: str) -> None:
    loop = undisturbed.copy(tmp_path / "run")
    output = {
        "train_detector": "results/iter_1/model",
        "predict_shard": "results/iter_1/predictions/0.zarr",
        "index_predictions": "results/iter_1/index.zarr",
        "link_partitions": "results/iter_1/links/0.zarr",
        "annotate_oracle": "results/iter_1/verdicts.parquet",
    }[step]
    loop.remove(output)
    process = loop.start(output)
    wait_for(lambda: bool(processes(loop.directory, step)))
    time.sleep(1.0)
    for job in processes(loop.directory, step):
        _kill(job)
    process.communicate(timeout=180)
    loop.run(output)
    assert same_results(undisturbed, loop) == []


def test_everything_killed_at_once(undisturbed: Loop, tmp_path: Path) -> None:
    """As when a node loses power, again and again while the whole second iteration is made."""
    loop = undisturbed.copy(tmp_path / "run")
    loop.remove("results/iter_2")
    for seconds in (3.0, 9.0, 15.0):
        process = loop.start()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    loop.run()
    assert same_results(undisturbed, loop) == []


def test_a_second_snakemake_in_the_same_directory_is_refused(undisturbed: Loop, tmp_path: Path) -> None:
    loop = _before_iteration(undisturbed, tmp_path / "run", 2)
    with loop.start() as first:
        wait_for(lambda: bool(processes(loop.directory, "train_detector")))
        output = loop.run(status=1)
        assert "Directory cannot be locked" in output
        first.communicate(timeout=180)
    assert first.returncode == 0
    assert same_results(undisturbed, loop) == []
