"""Where a run stands, told from files that a test lays out."""

import os
import shutil
from pathlib import Path

import pytest

from segloop.cli import main
from segloop.config import load
from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.progress import STEPS, RunFiles, duration, line_of, seconds_left, size_of, spent_line, worker_of
from segloop.runs import START, RunClaim, iterations_with, record_start

NOW = 1_000_000.0
ONE_SHARD_S = 600.0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three iterations over four shards; iteration 1 is complete, two shards of iteration 2 are."""
    config = load({"pool": {"shards": 4, "truth": {}}, "clustering": {"batches": 2}, "loop": {"iterations": 3}})
    (tmp_path / ".snakemake").mkdir()
    record_start(tmp_path, config, slurm=True)
    for iteration in (0, 1):
        for step in RunFiles(tmp_path).steps(iteration):
            complete(tmp_path, iteration, step.name)
    for iteration, time in ((0, NOW - 20_000), (1, NOW - 10_000)):
        path = tmp_path / "results" / f"iter_{iteration}" / "summary.json"
        write_json(path, {"collected_total": 30 * iteration})
        os.utime(path, (time, time))
        write_json(path.parent / "model" / "model.json", {"device": "cuda:0"})
    for shard in range(2):
        store(tmp_path, 2, shard, NOW - ONE_SHARD_S * shard)
    return tmp_path


def store(run: Path, iteration: int, shard: int, time: float) -> None:
    path = run / f"results/iter_{iteration}/predictions/{shard}.zarr"
    write_json(path / "zarr.json", {"attributes": {"rows": 100}})
    os.utime(path, (time, time))
    tsv = run / f"benchmarks/predict_shard/{iteration}/{shard}.tsv"
    tsv.parent.mkdir(parents=True, exist_ok=True)
    tsv.write_text(f"s\th:m:s\n{ONE_SHARD_S}\t0:10:00\n")


def complete(run: Path, iteration: int, step: str) -> None:
    pattern = next(each for each in STEPS if each.name == step).writes[0]
    for part in range(4 if step == "predict" else 2 if step == "link" else 1):
        if step == "predict":
            store(run, iteration, part, NOW)
        else:
            path = run / f"results/iter_{iteration}" / pattern.replace("*", str(part))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if step == "train" else path.write_text("{}")


def test_where_a_run_stands(run: Path) -> None:
    # What is still written has a name that begins with a dot.
    (run / "results/iter_2/predictions/.2.zarr.tmp").mkdir()
    found = RunFiles(run).progress(NOW)
    assert (found.iteration, found.iterations, found.step, found.done, found.parts) == (2, 3, "predict", 2, 4)
    assert (found.masks, found.collected) == (200, 30)
    assert found.gpu_hours == pytest.approx(6 * ONE_SHARD_S / 3600)
    assert found.step_seconds == pytest.approx(2 * ONE_SHARD_S)
    # Two iterations of 10,000 s, of which 10,000 s have passed.
    assert found.run_seconds == pytest.approx(10_000)
    assert line_of(found) == (
        "iteration 2 of 3: predict 2 of 4, 200 masks predicted, 30 collected, 1.0 GPU hours, "
        "this step about 20 min more, the run about 2 h 47 min more"
    )


def test_a_finished_run_says_why(run: Path) -> None:
    write_json(run / "results/summary.json", {"stop_reason": "no_new_masks"})
    for path in (run / "results/iter_2/predictions").glob("*"):
        shutil.rmtree(path)
    found = RunFiles(run).progress(NOW)
    assert line_of(found) == "finished after iteration 1 (no_new_masks)"


def test_a_finished_run_that_is_extended_is_not_finished(run: Path) -> None:
    rows = [{"iteration": number} for number in range(2)]
    write_json(run / "results/summary.json", {"stop_reason": "iterations", "iterations": rows})
    # Three iterations are wanted now, and the second has begun.
    assert line_of(RunFiles(run).progress(NOW)).startswith("iteration 2 of 3: predict 2 of 4")
    for path in (run / "results/iter_2/predictions").glob("*"):
        shutil.rmtree(path)
    assert RunFiles(run).progress(NOW).stop_reason is None
    write_json(run / "results/summary.json", {"stop_reason": "no_new_masks", "iterations": rows})
    assert line_of(RunFiles(run).progress(NOW)) == "finished after iteration 1 (no_new_masks)"


def test_a_kept_copy_is_no_iteration(run: Path) -> None:
    shutil.copytree(run / "results/iter_1", run / "results/iter_1.bak")
    assert list(iterations_with(run, "summary.json")) == [0, 1]
    assert spent_line(run) == "nothing has been asked yet"


def test_bytes_of_steps(run: Path) -> None:
    files = RunFiles(run)
    predict = STEPS[0]
    (run / "results/iter_2/predictions/.3.zarr.tmp").mkdir()
    before = files.bytes_of(predict, 2)
    (run / "results/iter_2/predictions/0.zarr/rows").write_bytes(b"x" * 5000)
    (run / "checkpoints/iter_2").mkdir(parents=True)
    (run / "checkpoints/iter_2/5.pt").write_bytes(b"x" * 700)
    assert files.bytes_of(predict, 2) == before + 5000
    train = next(step for step in STEPS if step.name == "train")
    assert files.bytes_of(train, 2) == 700


def test_status_prints_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--directory", str(run)]) == 0
    text = capsys.readouterr().out
    assert "iteration 2 of 3: predict 2 of 4" in text
    assert "nobody works in this directory" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["step", "iter", "0", "iter", "1", "iter", "2", "all"] in rows
    assert any(row[:1] == ["predict"] and "(2/4)" in row for row in rows)


def test_a_directory_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--directory", str(tmp_path)]) == 1
    assert f"no run was started in {tmp_path}" in capsys.readouterr().err


def test_a_run_of_an_older_version_is_refused_with_words(run: Path) -> None:
    write_json(run / START, {"config": {"no_such_key": 1}})
    with pytest.raises(SegloopError, match="no_such_key"):
        RunFiles(run)


def test_who_works_in_a_directory(run: Path) -> None:
    claim = run / ".snakemake" / "segloop.claim"
    assert worker_of(claim) == "nobody works in this directory"
    RunClaim(run).release()
    # This process lives, but is no Snakemake: the id was given again.
    assert worker_of(claim) == "nobody works in this directory"
    claim.write_text("12 on elsewhere\n")
    assert worker_of(claim) == "process 12 on elsewhere worked here last; whether it still does, only elsewhere knows"


def test_the_pace_of_the_last_parts_counts() -> None:
    # Ten slow ones, then twenty fast ones.
    times = [100.0 * number for number in range(10)] + [1000.0 + number for number in range(20)]
    assert seconds_left(times, 40) == pytest.approx(10)
    assert seconds_left([1.0], 5) is None
    assert seconds_left([1.0, 2.0], 2) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40, "40 s"), (59.6, "60 s"), (725, "12 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(870, "870 B"), (1_234_000, "1.23 MB"), (94_200_000_000, "94.2 GB"), (3 * 10**15, "3e+03 TB")]
)
def test_sizes(count: int, words: str) -> None:
    assert size_of(count) == words
