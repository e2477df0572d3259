import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch

from segloop import integrity
from segloop.config import DetectorConfig, PredictionConfig, TrainingConfig
from segloop.data.skipped import SkipReport
from segloop.detection import model_files
from segloop.detection import training as training_module
from segloop.detection.training import Plan, learning_rate, make_optimiser, make_plan, train_detector
from segloop.errors import SegloopError
from segloop.files import read_json, write_json

Train = Callable[..., Path]


@pytest.fixture
def train(training_set: Path, tmp_path: Path, detector: DetectorConfig, training: TrainingConfig) -> Train:
    """Return a function that trains into a named folder, with changes to the configuration."""

    def run(name: str, **changes: Any) -> Path:
        arguments: dict[str, Any] = {
            "training_set": training_set,
            "previous_model": None,
            "output": tmp_path / name,
            "checkpoints": tmp_path / f"{name}.checkpoints",
            "detector": detector,
            "training": training,
            "iteration": 0,
            "seed": 0,
            "device": "cpu",
            "max_skipped": 0.0,
        }
        train_detector(**arguments | changes)
        return tmp_path / name

    return run


def sha256(model: Path) -> str:
    return str(model_files.read_description(model)["weights_sha256"])


def test_a_model_directory_is_complete(train: Train, training_set: Path, tmp_path: Path) -> None:
    model = train("model")
    seen = sorted(path.name for path in model.iterdir() if not path.name.startswith("."))
    assert seen == ["losses.csv", "model.json", "skipped.json", "weights.pt"]
    assert [integrity.is_whole(model / name) for name in ("model.json", "weights.pt")] == [True, True]
    description = read_json(model / "model.json")
    assert description["schema_version"] == 1
    assert description["backend"] == "torchvision"
    assert description["architecture"] == "tiny"
    assert description["embedding_dim"] == 64
    assert description["steps"] == 4
    assert description["images"] == 4
    assert description["instances"] == 8
    assert [category["id"] for category in description["categories"]] == [3, 7]
    state = torch.load(model / "weights.pt", weights_only=True)
    assert model_files.weights_sha256(state) == description["weights_sha256"]
    lines = (model / "losses.csv").read_text().splitlines()
    assert lines[0].startswith("step,learning_rate,loss,loss_objectness")
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    assert not (tmp_path / "model.checkpoints").exists()


def test_the_same_seed_gives_the_same_weights(train: Train) -> None:
    first, second = train("first"), train("second")
    assert sha256(first) == sha256(second)
    assert (first / "losses.csv").read_bytes() == (second / "losses.csv").read_bytes()
    assert sha256(train("other seed", seed=1)) != sha256(first)
    assert sha256(train("other iteration", iteration=1)) != sha256(first)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_killed_training_ends_with_the_same_bits(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    undisturbed = train("undisturbed")
    real_step, steps = training_module._step, []

    def step(*arguments: Any) -> list[float]:
        steps.append(arguments[-1])
        if len(steps) == killed_at + 1:
            raise KeyboardInterrupt
        return real_step(*arguments)

    monkeypatch.setattr(training_module, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train("killed")
    assert not (tmp_path / "killed").exists()
    resumed = train("killed")
    # The checkpoint after two steps is where it went on from.
    assert steps[killed_at + 1] == (2 if killed_at >= 2 else 0)
    assert sha256(resumed) == sha256(undisturbed)
    assert (resumed / "losses.csv").read_bytes() == (undisturbed / "losses.csv").read_bytes()


def test_a_checkpoint_of_other_settings_is_not_used(
    train: Train, training: TrainingConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = train("fresh", seed=1)
    real_step = training_module._step

    def step(*arguments: Any) -> list[float]:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return real_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train("model", seed=0)
    with caplog.at_level("INFO", "segloop"):
        model = train("model", seed=1)
    assert "belongs to other settings" in caplog.text
    assert sha256(model) == sha256(fresh)


def test_a_damaged_checkpoint_is_not_used(train: Train, tmp_path: Path) -> None:
    (tmp_path / "model.checkpoints").mkdir()
    (tmp_path / "model.checkpoints" / training_module.CHECKPOINT).write_bytes(b"half a checkpoint")
    assert sha256(train("model")) == sha256(train("fresh"))


def test_later_iterations_go_on_from_the_previous_weights(train: Train, training: TrainingConfig) -> None:
    first = train("first")
    still = training.model_copy(update={"finetune_learning_rate": 1e-12})
    second = train("second", previous_model=first, iteration=1, training=still)
    before, after = model_files.read_weights(first), model_files.read_weights(second)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert read_json(second / "model.json")["steps"] == 2
    assert read_json(second / "model.json")["start_sha256"] == sha256(first)
    scratch = training.model_copy(update={"initialise": "scratch"})
    third = model_files.read_weights(train("third", previous_model=first, iteration=1, training=scratch))
    assert any(not torch.allclose(before[name], third[name], atol=1e-2) for name in before)


def test_local_weights_start_iteration_zero(train: Train, detector: DetectorConfig, training: TrainingConfig) -> None:
    first = train("first")
    still = training.model_copy(update={"learning_rate": 1e-12})
    started = detector.model_copy(update={"weights": str(first / "weights.pt")})
    before = model_files.read_weights(first)
    after = model_files.read_weights(train("second", detector=started, training=still, seed=5))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_other_categories_or_another_detector_are_refused(
    train: Train, dataset: dict[str, Any], detector: DetectorConfig, tmp_path: Path
) -> None:
    first = train("first")
    wider = detector.model_copy(update={"embedding_dim": 32})
    with pytest.raises(SegloopError, match="another detector"):
        train("second", previous_model=first, detector=wider)
    dataset["categories"] = [{"id": 3, "name": "bright"}, {"id": 7, "name": "other"}]
    write_json(tmp_path / "renamed.json", dataset)
    with pytest.raises(SegloopError, match="other categories"):
        train("third", previous_model=first, training_set=tmp_path / "renamed.json")


def test_a_loss_that_is_not_finite_stops_with_all_losses(train: Train, training: TrainingConfig) -> None:
    wild = training.model_copy(update={"learning_rate": 1e30, "optimiser": "sgd", "warmup_steps": 0})
    with pytest.raises(SegloopError, match=r"not finite.*loss_objectness.*loss_mask.*learning_rate"):
        train("model", training=wild)


def test_learning_lowers_the_loss(trained: tuple[Path, Path]) -> None:
    losses = [float(line.split(",")[2]) for line in (trained[0] / "losses.csv").read_text().splitlines()[1:]]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_the_plan() -> None:
    training = TrainingConfig(steps=9, finetune_steps=4, learning_rate=0.2, finetune_learning_rate=0.1)
    model = Path("model")
    assert make_plan(training, None, 10) == Plan(9, 0.2, None)
    assert make_plan(training, model, 10) == Plan(4, 0.1, model)
    assert make_plan(training.model_copy(update={"initialise": "scratch"}), model, 10) == Plan(9, 0.2, None)
    assert make_plan(training.model_copy(update={"finetune_learning_rate": None}), model, 10).learning_rate == 0.2


def test_the_learning_rate_rises_and_falls() -> None:
    plan = Plan(900, 1.0, None)
    steps = TrainingConfig(warmup_steps=100, schedule="steps")
    rates = [learning_rate(step, plan, steps) for step in range(900)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[50] == pytest.approx(0.5005)
    assert rates[100] == rates[599] == 1.0
    assert rates[600] == pytest.approx(0.1)
    assert rates[800] == pytest.approx(0.01)
    cosine = TrainingConfig(warmup_steps=0, schedule="cosine")
    assert learning_rate(450, plan, cosine) == pytest.approx(0.5)
    assert learning_rate(899, plan, cosine) == pytest.approx(0.5 * (1 + math.cos(math.pi * 899 / 900)))
    short = TrainingConfig(warmup_steps=1000, schedule="constant")
    assert learning_rate(5, Plan(10, 1.0, None), short) == 1.0


def test_biases_and_norms_are_not_decayed() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GroupNorm(1, 3))
    model[0].weight.requires_grad_(False)
    for kind in ("sgd", "adamw"):
        groups = make_optimiser(model, TrainingConfig(optimiser=kind, weight_decay=0.1)).param_groups
        assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(0, 0.1), (3, 0.0)]


def test_epochs_take_the_place_of_steps(training: TrainingConfig, tmp_path: Path) -> None:
    changed = training.model_copy(update={"epochs": 3.0, "finetune_epochs": 0.5, "batch_size": 4})
    assert make_plan(changed, None, 10).steps == 8
    assert make_plan(changed, tmp_path, 10).steps == 2
    # Scratch learns as iteration 0 did.
    assert make_plan(changed.model_copy(update={"initialise": "scratch"}), tmp_path, 10).steps == 8


@pytest.mark.parametrize("changes", [{"keep": "best"}, {"patience": 2}])
def test_what_goes_by_ap_needs_measurements(changes: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match="evaluate_steps"):
        TrainingConfig(**changes)


@pytest.fixture
def measuring(training_set: Path, training: TrainingConfig) -> dict[str, Any]:
    """Return the arguments of a training that measures AP after every second step."""
    return {
        "training": training.model_copy(update={"steps": 8, "evaluate_steps": 2}),
        "validation_set": training_set,
        "prediction": PredictionConfig(),
    }


def scripted(monkeypatch: pytest.MonkeyPatch, precisions: list[float | None]) -> list[Path]:
    """Let measurements come out as given; return the models that were measured."""
    real, models, left = training_module.measure, [], list(precisions)

    def measure(model: Path, *arguments: Any) -> Any:
        measured, detections = real(model, *arguments)
        models.append(model)
        return measured | {"ap": left.pop(0)}, detections

    monkeypatch.setattr(training_module, "measure", measure)
    return models


def test_measuring_changes_no_weights(train: Train, measuring: dict[str, Any], tmp_path: Path) -> None:
    plain = measuring["training"].model_copy(update={"evaluate_steps": None})
    measured = train("measured", **measuring)
    assert sha256(measured) == sha256(train("plain", training=plain))
    description = read_json(measured / "model.json")
    assert [step for step, _ in description["evaluations"]] == [2, 4, 6, 8]
    # The last measurement is that of the model itself.
    again, _ = training_module.measure(
        measured, measuring["validation_set"], PredictionConfig(), "cpu", SkipReport(tmp_path / "skipped.json", 0.0)
    )
    assert description["evaluations"][-1][1] == again["ap"]
    assert description["kept_step"] == 8


def test_the_best_weights_are_kept(train: Train, measuring: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    four = train("four", training=measuring["training"].model_copy(update={"evaluate_steps": None, "steps": 8}))
    scripted(monkeypatch, [0.1, 0.3, 0.3, 0.2])
    measuring["training"] = measuring["training"].model_copy(update={"keep": "best"})
    best = train("best", **measuring)
    description = read_json(best / "model.json")
    assert description["kept_step"] == 4
    assert description["steps"] == 8
    assert sha256(best) != sha256(four)
    assert model_files.weights_sha256(model_files.read_weights(best)) == sha256(best)
    assert len((best / "losses.csv").read_text().splitlines()) == 9


def test_a_killed_training_keeps_the_same_best(
    train: Train, measuring: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring["training"] = measuring["training"].model_copy(update={"keep": "best", "checkpoint_steps": 100})
    with monkeypatch.context() as patch:
        scripted(patch, [0.1, 0.4, 0.2, 0.3])
        undisturbed = train("undisturbed", **measuring)
    real_step, killed = training_module._step, []

    def step(*arguments: Any) -> list[float]:
        if arguments[-1] == 5 and not killed:
            killed.append(5)
            raise KeyboardInterrupt
        return real_step(*arguments)

    monkeypatch.setattr(training_module, "_step", step)
    models = scripted(monkeypatch, [0.1, 0.4, 0.2, 0.3])
    with pytest.raises(KeyboardInterrupt):
        train("killed", **measuring)
    assert len(models) == 2
    resumed = train("killed", **measuring)
    assert len(models) == 4
    assert sha256(resumed) == sha256(undisturbed)
    assert read_json(resumed / "model.json")["evaluations"] == [[2, 0.1], [4, 0.4], [6, 0.2], [8, 0.3]]


def test_patience_ends_a_training(
    train: Train, measuring: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scripted(monkeypatch, [0.3, 0.2, None, 0.4])
    measuring["training"] = measuring["training"].model_copy(update={"patience": 2, "keep": "best"})
    with caplog.at_level("INFO", "segloop"):
        model = train("model", **measuring)
    description = read_json(model / "model.json")
    assert description["evaluations"] == [[2, 0.3], [4, 0.2], [6, None]]
    assert (description["steps"], description["kept_step"]) == (6, 2)
    assert "no better AP since step 2" in caplog.text


def test_a_validation_set_of_other_categories_is_refused_at_once(
    train: Train, measuring: dict[str, Any], dataset: dict[str, Any], tmp_path: Path
) -> None:
    dataset["categories"] = [{"id": 3, "name": "bright"}, {"id": 7, "name": "dim"}]
    write_json(tmp_path / "val.json", dataset)
    measuring["validation_set"] = tmp_path / "val.json"
    with pytest.raises(SegloopError, match="different categories"):
        train("model", **measuring)
