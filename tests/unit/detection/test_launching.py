import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from segloop.config import DetectorConfig, TrainingClusterConfig, TrainingConfig
from segloop.detection.dataset import TrainingSet, batch_indices, make_batch
from segloop.detection.distributed import ALONE, Ranks, process_group
from segloop.detection.launching import Signals, launch_training, request_of
from segloop.detection.submission import Submission, parameters
from segloop.detection.training import train_detector
from segloop.errors import SegloopError
from segloop.files import read_json

Launch = Callable[..., Path]

SHORT = {"timeout_minutes": 5, "signal_delay": 60}


@pytest.fixture
def arguments(training_set: Path, detector: DetectorConfig, training: TrainingConfig) -> dict[str, Any]:
    return {
        "training_set": training_set,
        "previous_model": None,
        "detector": detector,
        "training": training.model_copy(update={"steps": 12, "batch_size": 4, "checkpoint_steps": 4}),
        "iteration": 0,
        "seed": 0,
        "device": "cpu",
        "max_skipped": 0.0,
    }


@pytest.fixture
def launch(arguments: dict[str, Any], tmp_path: Path) -> Launch:
    """Return a function that trains a named model by submitit, or inline, on a cluster as it is described."""

    def run(name: str, changes: dict[str, Any] | None = None, **cluster: Any) -> Path:
        settings = TrainingConfig(
            launcher="submitit" if cluster else "inline", cluster=TrainingClusterConfig(**SHORT | cluster)
        )
        launch_training(
            settings=settings,
            name=f"train_{name}",
            folder=tmp_path / "logs" / name,
            output=tmp_path / name,
            checkpoints=tmp_path / "checkpoints" / name,
            **arguments | (changes or {}),
        )
        return tmp_path / name

    return run


def same_model(a: Path, b: Path) -> bool:
    """Compare all that does not come from a clock."""
    descriptions = [read_json(model / "model.json") for model in (a, b)]
    for description in descriptions:
        del description["seconds"]
    files = [(model / "losses.csv").read_bytes() + (model / "skipped.json").read_bytes() for model in (a, b)]
    return bool(descriptions[0] == descriptions[1]) and files[0] == files[1]


def log_of(folder: Path, task: int) -> str:
    return "".join(path.read_text() for path in folder.glob(f"*/*_{task}_log.out"))


def wait_for(found: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "the moment that the test waits for never came"
        time.sleep(0.05)
    return value


def processes_of(job: str, task: int) -> list[int]:
    """Return the processes of a local job that are this task of it."""
    wanted = {f"SUBMITIT_LOCAL_JOB_ID={job}".encode(), f"SUBMITIT_LOCAL_GLOBALID={task}".encode()}
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_one_process_gives_the_same_however_it_is_launched(
    launch: Launch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inline = launch("inline")
    assert same_model(launch("debug", kind="debug"), inline)
    with caplog.at_level(logging.INFO, "segloop"):
        assert same_model(launch("local", kind="local"), inline)
    # Its log was followed, and only its files are left.
    assert "step 4 of 12: loss" in caplog.text
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_two_processes_interrupted_end_with_the_same_bits(launch: Launch, tmp_path: Path) -> None:
    undisturbed = launch("undisturbed", kind="local", tasks_per_node=2)
    assert read_json(undisturbed / "model.json")["ranks"] == 2
    folder = tmp_path / "logs" / "interrupted"
    with ThreadPoolExecutor(1) as pool:
        launched = pool.submit(launch, "interrupted", kind="local", tasks_per_node=2)
        wait_for(lambda: "step 4 of 12" in log_of(folder, 0))
        (job,) = (path.name for path in folder.iterdir() if path.name.isdigit())
        for task in (0, 1):
            for process in processes_of(job, task):
                os.kill(process, signal.SIGUSR2)
        interrupted = launched.result(timeout=120)
    assert "Requeued job" in log_of(folder, 0)
    assert "training goes on from step" in log_of(folder, 0)
    assert "training goes on from step" in log_of(folder, 1)
    assert same_model(interrupted, undisturbed)


def test_a_vanished_job_is_an_error_and_the_next_one_goes_on(launch: Launch, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "model"
    with ThreadPoolExecutor(1) as pool:
        launched = pool.submit(launch, "model", kind="local")
        wait_for(lambda: "step 4 of 12" in log_of(folder, 0))
        (job,) = (path.name for path in folder.iterdir() if path.name.isdigit())
        began = time.monotonic()
        os.kill(int(job), signal.SIGKILL)
        for process in processes_of(job, 0):
            os.kill(process, signal.SIGKILL)
        with pytest.raises(SegloopError, match=f"job {job} ended without a result .* goes on from the last checkpoint"):
            launched.result(timeout=60)
        assert time.monotonic() - began < 60
    assert not (tmp_path / "model").exists()
    assert same_model(launch("model", kind="local"), launch("inline"))
    assert log_of(folder, 0).count("training goes on from step") == 1


def test_what_one_of_two_processes_finds_is_what_a_person_reads(launch: Launch, arguments: dict[str, Any]) -> None:
    wild = arguments["training"].model_copy(update={"learning_rate": 1e30, "optimiser": "sgd", "warmup_steps": 0})
    with pytest.raises(SegloopError, match=r"^training stopped at step .* not finite.*learning_rate"):
        launch("model", {"training": wild}, kind="local", tasks_per_node=2)


def test_a_model_that_was_finished_meanwhile_is_only_moved(
    launch: Launch, arguments: dict[str, Any], tmp_path: Path
) -> None:
    """As when Snakemake was killed, and its training went on to the end without it."""
    checkpoints = tmp_path / "checkpoints" / "model"
    other = tmp_path / "checkpoints" / "model.0123456789ab"
    other.mkdir(parents=True)
    finished = checkpoints.with_name(f"model.{request_of(arguments)}")
    train_detector(output=finished, checkpoints=checkpoints, **arguments)
    weights = (finished / "weights.pt").read_bytes()
    model = launch("model", kind="local")
    assert (model / "weights.pt").read_bytes() == weights
    assert not (tmp_path / "logs").exists()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_request_names_what_is_learned_and_not_where(
    arguments: dict[str, Any], training_set: Path, tmp_path: Path
) -> None:
    request = request_of(arguments)
    elsewhere = arguments["training"].model_copy(
        update={"checkpoint_steps": 7, "cluster": TrainingClusterConfig(nodes=2), "launcher": "submitit"}
    )
    assert request_of(arguments | {"training": elsewhere}) == request
    assert request_of(arguments | {"seed": 1}) != request
    yaml = tmp_path / "small.yaml"
    detectron2 = arguments | {"detector": DetectorConfig(backend="detectron2", configuration=str(yaml))}
    before = request_of(detectron2)
    yaml.write_text("VERSION: 2")
    assert request_of(detectron2) != before
    training_set.write_text(training_set.read_text() + "\n")
    assert request_of(arguments) != request


def test_ranks_share_the_batch_of_one(
    training_set: Path, detector: DetectorConfig, training: TrainingConfig, tmp_path: Path
) -> None:
    from segloop.data.skipped import SkipReport

    data = TrainingSet(training_set, SkipReport(tmp_path / "skipped.json", 0.0), 1)
    large = training.model_copy(update={"batch_size": 6, "crop": None})
    whole = make_batch(data, 3, detector, large, 0, 0)
    parts = [make_batch(data, 3, detector, large, 0, 0, ranks=Ranks(rank, 3)) for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    for place, sample in enumerate(whole):
        same = parts[place % 3][place // 3]
        assert (same.image == sample.image).all()
        assert (same.boxes == sample.boxes).all()
    assert len(set(batch_indices(4, 4, 0, 0, 0))) == 4


def test_alone_nothing_is_exchanged() -> None:
    with process_group(ALONE, "nowhere.invalid", 1, gpus=False):
        assert ALONE.share(3) == [3]
        assert ALONE.from_first("x") == "x"


def test_an_address_that_nobody_knows_is_named_with_the_remedy() -> None:
    with (
        pytest.raises(SegloopError, match=r"at nowhere\.invalid:1 .* MASTER_ADDR"),
        process_group(Ranks(1, 2), "nowhere.invalid", 1, gpus=False),
    ):
        pass


def test_signals_wait_for_the_end_of_a_step() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (signals.save, signals.leave) == (True, False)
            os.kill(os.getpid(), signal.SIGUSR2)
            assert (signals.save, signals.leave, heard) == (True, True, [])
            signals.end()
            assert heard == [signal.SIGUSR2]
        os.kill(os.getpid(), signal.SIGUSR2)
        assert heard == [signal.SIGUSR2] * 2
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_what_is_asked_of_slurm() -> None:
    cluster = TrainingClusterConfig(
        nodes=2, tasks_per_node=4, memory_mb=64_000, partition="gpu", account="me", extra={"constraint": "a100"}
    )
    asked = parameters(Submission("train_detector_2", "abc", Path("logs"), cluster, 3, "auto"))
    assert (asked["nodes"], asked["tasks_per_node"], asked["gpus_per_node"]) == (2, 4, 4)
    assert (asked["slurm_mem"], asked["slurm_partition"], asked["slurm_account"]) == ("64000M", "gpu", "me")
    assert asked["slurm_comment"] == "training_train_detector_2 abc"
    assert asked["slurm_additional_parameters"] == {"requeue": True, "constraint": "a100"}
    assert "--cpus-per-task=3" in asked["slurm_srun_args"]
    on_cpu = parameters(Submission("x", "abc", Path("logs"), cluster, 3, "cpu"))
    assert on_cpu["gpus_per_node"] is None
