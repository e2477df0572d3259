"""Train a detector: a plain loop that a kill cannot corrupt and a restart cannot change."""

import hashlib
import json
import logging
import math
import shutil
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from segloop import integrity
from segloop.config import DetectorConfig, PredictionConfig, TrainingConfig
from segloop.data.skipped import SkipReport
from segloop.detection import mask_iou, model_files
from segloop.detection.backends import Backend, Targets, backend_of
from segloop.detection.dataset import Sample, TrainingSet, make_batch, read_ahead
from segloop.detection.distributed import ALONE, Losses, Ranks
from segloop.detection.evaluation import check_categories, measure
from segloop.detection.segmenter import gpu_was_given, numerical_settings, resolve_device
from segloop.errors import SegloopError
from segloop.files import atomic_directory, atomic_file, read_json, sha256_file, write_json
from segloop.randomness import seed_of

logger = logging.getLogger("segloop.detection")

CHECKPOINT = "checkpoint.pt"
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
MOMENTUM = 0.9
WARMUP_FACTOR = 0.001
PREPARING_THREADS = 1
"""One thread prepares batches while the network works; more would take its cores."""


@dataclass(frozen=True)
class Plan:
    """What one training does.

    Attributes
    ----------
    steps
        Optimiser steps.
    learning_rate
        Rate after the warm-up.
    start
        Directory of the model to go on from, or None.
    head_steps
        Further steps in which the mask IoU head learns alone, at its own run of the schedule.
    """

    steps: int
    learning_rate: float
    start: Path | None
    head_steps: int = 0

    @property
    def all_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps + self.head_steps


@dataclass
class Progress:
    """How far a training has come, as its checkpoint knows it.

    Attributes
    ----------
    step
        Optimiser steps done. The learning rate, the place in the data and all random numbers of a step, on every rank,
        are functions of its number; nothing else has to be kept of them.
    seconds, rank_seconds
        Time spent so far, reading the data included; by the clock, and summed over the ranks.
    losses
        One row a step: step, rate, and the mean over the ranks of each of `loss_names`.
    evaluations
        One row a measurement: step, and average precision, NaN where there is nothing to measure.
    """

    step: int = 0
    seconds: float = 0.0
    rank_seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    evaluations: list[list[float]] = field(default_factory=list)

    @property
    def best(self) -> int | None:
        """The first step with the highest average precision; None if none was measured."""
        measured = [(step, precision) for step, precision in self.evaluations if not math.isnan(precision)]
        return int(max(measured, key=lambda one: (one[1], -one[0]))[0]) if measured else None

    def lost_patience(self, patience: int | None) -> bool:
        """Whether so many measurements in a row found nothing better."""
        steps = [int(step) for step, _ in self.evaluations]
        return patience is not None and self.best is not None and len(steps) - 1 - steps.index(self.best) >= patience


class Interruption(Protocol):
    """What a batch system wants of a training that runs; looked at after each step."""

    save: bool
    """Write a checkpoint now."""
    leave: bool
    """Write a checkpoint and end."""

    def end(self) -> None:
        """End this process."""


def train_detector(
    *,
    training_set: Path,
    previous_model: Path | None,
    output: Path,
    checkpoints: Path,
    detector: DetectorConfig,
    training: TrainingConfig,
    iteration: int,
    seed: int,
    device: str,
    max_skipped: float,
    validation_set: Path | None = None,
    prediction: PredictionConfig | None = None,
    ranks: Ranks = ALONE,
    interruption: Interruption | None = None,
) -> None:
    """Train a detector and write its model directory.

    A killed training goes on from its last checkpoint and, on a CPU with as many ranks, ends with the same weights bit
    for bit. `training.batch_size` is the batch of all ranks together: each step sees the images that one process alone
    would see, with the same learning rate, but each rank draws its own samples of regions.

    Parameters
    ----------
    training_set
        Canonical COCO file; `iscrowd: 1` marks ignored regions.
    previous_model
        Model directory of the iteration before; used if `training.initialise` is `previous`.
    output
        Model directory to write: weights.pt, model.json, losses.csv, skipped.json.
    checkpoints
        Folder for checkpoints; removed at the end. It is no output, so that a restart finds it.
    iteration, seed
        Keys of all random numbers.
    device
        `auto`, `cpu` or `cuda`.
    max_skipped
        Largest tolerated share of unreadable images.
    validation_set, prediction
        Canonical COCO file that measures average precision, and how; needed if `training.evaluate_steps` is set.
    ranks
        Who trains with this process; all are given the same other arguments. The first one writes.
    interruption
        What may ask the first rank for a checkpoint before its time.

    Raises
    ------
    SegloopError
        If there is nothing to train on, the weights to start from do not fit, the device cannot be used, a loss is not
        finite, or the validation set has other categories.
    """
    began = time.monotonic()
    where = resolve_device(device, gpu_was_given())
    backend = backend_of(detector.backend)
    checkpoints.mkdir(parents=True, exist_ok=True)
    skipped = checkpoints / (model_files.SKIPPED if ranks.first else f"rank_{ranks.rank}_{model_files.SKIPPED}")
    with numerical_settings(where, training.threads):
        data = TrainingSet(training_set, SkipReport(skipped, max_skipped), training.threads, ranks)
        validation = _validation(training, validation_set, prediction)
        if validation is not None:
            check_categories(read_json(validation[0]), data.categories, validation[0], training_set)
        plan = make_plan(training, previous_model, len(data))
        torch.manual_seed(seed_of("initial weights", seed, iteration))
        model = backend.build_model(detector, len(data.categories)).to(where)
        facts = {
            "iteration": iteration,
            "seed": seed,
            "training_set_sha256": sha256_file(training_set),
            "start_sha256": _initialise(backend, model, plan, detector, data.categories),
            **backend.facts_of(model),
        }
        optimiser = make_optimiser(model, training)
        work = _Work(
            backend, model, optimiser, data, plan, detector, training, (seed, iteration), facts, validation, ranks
        )
        checkpoint = _Checkpoint(checkpoints / CHECKPOINT, _fingerprint(detector, training, plan, facts))
        progress = _optimise(work, checkpoint, interruption, began)
    # Nobody ends before everybody is done, and nobody writes any more when the checkpoints go.
    ranks.wait()
    if not ranks.first:
        return
    if training.keep == "best" and progress.best not in (None, progress.step):
        model.load_state_dict(model_files.read_weights(_best(checkpoint, progress.best)))
    with atomic_directory(output) as directory:
        _write_model(directory, work, progress)
        (directory / model_files.LOSSES).write_text(_losses_table(progress.losses, detector), encoding="utf-8")
        shutil.copyfile(skipped, directory / model_files.SKIPPED)
    shutil.rmtree(checkpoints)


def _validation(
    training: TrainingConfig, labelled: Path | None, prediction: PredictionConfig | None
) -> tuple[Path, PredictionConfig] | None:
    if training.evaluate_steps is None:
        return None
    if labelled is None or prediction is None:
        raise ValueError("training.evaluate_steps needs a validation set, and how to predict it")
    return labelled, prediction


def _write_model(directory: Path, work: "_Work", progress: Progress) -> None:
    """Write what the network needs to be opened again."""
    # An open file, because only that tells torch's other failures from a full disk.
    with (directory / model_files.WEIGHTS).open("wb") as file:
        torch.save(_on_cpu(work.model.state_dict()), file)
    integrity.seal(directory / model_files.WEIGHTS)
    write_json(directory / model_files.DESCRIPTION, _describe(work, progress))


def loss_names(detector: DetectorConfig) -> tuple[str, ...]:
    """Return the names of a detector's losses, in the order of losses.csv."""
    return (*LOSSES, mask_iou.LOSS) if detector.mask_iou_head else LOSSES


def make_plan(training: TrainingConfig, previous_model: Path | None, images: int) -> Plan:
    """Decide from what, how long and how fast to learn.

    Parameters
    ----------
    images
        Number of training images.
    """
    further = training.mask_iou_steps
    if previous_model is not None and training.initialise == "previous":
        rate = training.finetune_learning_rate or training.learning_rate
        steps = _steps(training, training.finetune_epochs, training.finetune_steps, images)
        return Plan(steps, rate, previous_model, further)
    return Plan(_steps(training, training.epochs, training.steps, images), training.learning_rate, None, further)


def _steps(training: TrainingConfig, epochs: float | None, steps: int, images: int) -> int:
    return steps if epochs is None else math.ceil(epochs * images / training.batch_size)


def learning_rate(step: int, plan: Plan, training: TrainingConfig) -> float:
    """Return the rate of a step, counted from 0: a linear warm-up times the schedule.

    The warm-up takes at most half of the steps, so that a short fine-tuning reaches its rate. The steps of the mask IoU
    head alone have a warm-up and a schedule of their own.
    """
    if step >= plan.steps:
        return learning_rate(step - plan.steps, Plan(plan.head_steps, plan.learning_rate, None), training)
    warmup = min(training.warmup_steps, plan.steps // 2)
    rise = 1.0 if step >= warmup else WARMUP_FACTOR + (1 - WARMUP_FACTOR) * step / warmup
    done = step / plan.steps
    if training.schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * done))
    elif training.schedule == "steps":
        fall = 0.1 ** ((done >= 2 / 3) + (done >= 8 / 9))
    else:
        fall = 1.0
    return plan.learning_rate * rise * fall


def make_optimiser(model: torch.nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimiser; biases and norms are not decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [one for one in trainable if one.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [one for one in trainable if one.ndim <= 1], "weight_decay": 0.0},
    ]
    if training.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate)
    return torch.optim.SGD(groups, lr=training.learning_rate, momentum=MOMENTUM)


def to_targets(samples: list[Sample], device: torch.device) -> Targets:
    """Turn samples into the targets that `Network.losses` takes; masks are padded to the largest of the batch."""
    height, width = (max(sample.image.shape[axis] for sample in samples) for axis in (0, 1))
    targets = []
    for sample in samples:
        masks = torch.zeros((len(sample.labels), height, width), dtype=torch.uint8)
        masks[:, : sample.image.shape[0], : sample.image.shape[1]] = torch.from_numpy(sample.masks)
        target = {
            "boxes": torch.from_numpy(sample.boxes),
            "labels": torch.from_numpy(sample.labels),
            "masks": masks,
            "ignored": torch.from_numpy(sample.ignored),
        }
        targets.append({name: value.to(device) for name, value in target.items()})
    return targets


def _initialise(
    backend: Backend,
    model: torch.nn.Module,
    plan: Plan,
    detector: DetectorConfig,
    categories: list[dict[str, Any]],
) -> str | None:
    # Returns a hash of what the weights came from; None means the seed alone.
    if plan.start is not None:
        description = model_files.read_description(plan.start)
        _check_same_categories(description["categories"], categories, plan.start)
        try:
            model.load_state_dict(model_files.read_weights(plan.start))
        except RuntimeError:
            raise SegloopError(
                f"{plan.start} was trained with another detector than the configuration describes "
                f"({description['architecture']}, embedding of {description['embedding_dim']}, "
                f"mask_iou_head: {str(description['detector'].get('mask_iou_head', False)).lower()}). "
                "Restore the configuration, or start in a new run directory."
            ) from None
        return str(description["weights_sha256"])
    if detector.weights is not None:
        backend.load_initial_weights(model, Path(detector.weights))
        return sha256_file(detector.weights)
    backend.warn_of_random_weights(model, detector)
    return None


def _check_same_categories(before: list[dict[str, Any]], now: list[dict[str, Any]], model: Path) -> None:
    old, new = ([(one["id"], one["name"]) for one in categories] for categories in (before, now))
    if old != new:
        changed = sorted(set(old) ^ set(new)) or new
        raise SegloopError(
            f"{model} was trained for other categories than the training set has (first difference: {changed[0]}). "
            "Start in a new run directory."
        )


def _fingerprint(detector: DetectorConfig, training: TrainingConfig, plan: Plan, facts: dict[str, Any]) -> str:
    # What is learned, not where: a training may go on with other hardware than it began with.
    settings = {
        "detector": detector.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude=training.WHERE),
        "steps": plan.all_steps,
        "facts": facts,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Work:
    """What every step needs."""

    backend: Backend
    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    data: TrainingSet
    plan: Plan
    detector: DetectorConfig
    training: TrainingConfig
    key: tuple[int, int]
    facts: dict[str, Any]
    validation: tuple[Path, PredictionConfig] | None
    ranks: Ranks

    def batch(self, step: int) -> list[Sample]:
        return make_batch(self.data, step, self.detector, self.training, *self.key, ranks=self.ranks)


@dataclass(frozen=True)
class _Checkpoint:
    """The file a training goes on from, and what it must have been written for."""

    path: Path
    fingerprint: str


def _optimise(work: _Work, checkpoint: _Checkpoint, interruption: Interruption | None, began: float) -> Progress:
    progress = _resume(checkpoint, work)
    seconds, rank_seconds = progress.seconds, progress.rank_seconds
    steps = range(progress.step, work.plan.all_steps)
    if progress.lost_patience(work.training.patience):
        return progress
    losses_of = work.ranks.losses_of(work.model)
    work.model.train()
    shown = tqdm(desc="training", unit="step", initial=progress.step, total=work.plan.all_steps, disable=None)
    with shown, closing(read_ahead(work.batch, steps, PREPARING_THREADS)) as batches:
        for step, samples in zip(steps, batches, strict=True):
            # The samplers of torchvision draw from torch's global generator.
            torch.manual_seed(seed_of("step", *work.key, step) + work.ranks.rank)
            rate = learning_rate(step, work.plan, work.training)
            losses = _step(work, losses_of, samples, rate, step)
            shown.update()
            progress.losses.append([step, rate, *losses])
            progress.step = step + 1
            spent = time.monotonic() - began
            progress.seconds, progress.rank_seconds = seconds + spent, rank_seconds + spent * work.ranks.size
            _between_steps(work, checkpoint, progress, interruption)
            if progress.lost_patience(work.training.patience):
                logger.info("no better AP since step %s: training ends after step %d", progress.best, progress.step)
                break
    return progress


def _between_steps(work: _Work, checkpoint: _Checkpoint, progress: Progress, interruption: Interruption | None) -> None:
    """Measure average precision, write a checkpoint, and leave, whatever it is time for."""
    training, last = work.training, progress.step == work.plan.all_steps
    measures = training.evaluate_steps is not None and (progress.step % training.evaluate_steps == 0 or last)
    if measures:
        _evaluate(work, checkpoint, progress)
    if not work.ranks.first or (last and not measures):
        return
    wanted = interruption is not None and (interruption.save or interruption.leave)
    if wanted or measures or progress.step % training.checkpoint_steps == 0:
        _save_checkpoint(checkpoint, work, progress)
        logger.info("step %d of %d: loss %.4f", progress.step, work.plan.all_steps, sum(progress.losses[-1][2:]))
    if measures:
        # Not before the checkpoint: until it is there, a restart needs the earlier one.
        _remove_all_but(_best(checkpoint, progress.best))
    if interruption is not None and not last:
        interruption.save = False
        if interruption.leave:
            interruption.end()


def _evaluate(work: _Work, checkpoint: _Checkpoint, progress: Progress) -> None:
    """Measure average precision on the first rank, and keep the model there if it is the best so far."""
    assert work.validation is not None
    precision = math.nan
    candidate = _best(checkpoint, progress.step)
    if work.ranks.first:
        shutil.rmtree(candidate, ignore_errors=True)
        with atomic_directory(candidate) as directory:
            _write_model(directory, work, progress)
        report = SkipReport(checkpoint.path.with_name("validation.skipped.json"), 1.0)
        where = next(work.model.parameters()).device.type
        measured, _ = measure(candidate, *work.validation, where, report)
        precision = math.nan if measured["ap"] is None else measured["ap"]
        logger.info("step %d of %d: AP %.4f", progress.step, work.plan.all_steps, precision)
    progress.evaluations.append([progress.step, work.ranks.from_first(precision)])


def _best(checkpoint: _Checkpoint, step: int | None) -> Path:
    return checkpoint.path.with_name(f"best_{step}")


def _remove_all_but(best: Path) -> None:
    for folder in best.parent.glob("best_*"):
        if folder != best:
            shutil.rmtree(folder)


def _step(work: _Work, losses_of: Losses, samples: list[Sample], rate: float, step: int) -> list[float]:
    device = next(work.model.parameters()).device
    alone = step >= work.plan.steps
    if alone:
        _hold_all_but_the_head(work.model)
        # Without DDP's wrapper, which waits for the gradients of all parameters.
        losses_of = work.model.losses  # type: ignore[assignment]
    for group in work.optimiser.param_groups:
        group["lr"] = rate
    sizes = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
    images = work.backend.to_batch([sample.image for sample in samples], device)
    losses = losses_of(images, sizes, to_targets(samples, device))
    # All ranks look at the same numbers, so that all stop at the same step.
    names = loss_names(work.detector)
    values = work.ranks.mean(torch.stack([losses[name] for name in names]).detach()).tolist()
    if not math.isfinite(sum(values)):
        shown = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values, strict=True))
        raise SegloopError(
            f"training stopped at step {step}: a loss is not finite ({shown}). Lower training.learning_rate, set "
            "training.clip_gradient, or lengthen training.warmup_steps."
        )
    work.optimiser.zero_grad(set_to_none=True)
    if alone:
        _head_gradients(work, losses[mask_iou.LOSS])
    else:
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    if work.training.clip_gradient is not None:
        torch.nn.utils.clip_grad_norm_(work.model.parameters(), work.training.clip_gradient)
    work.optimiser.step()
    return [float(value) for value in values]


def _hold_all_but_the_head(model: torch.nn.Module) -> None:
    """Let nothing learn but the mask IoU head: no other weight, and no statistic of a batch norm."""
    head = {id(one) for part in _heads(model) for one in part.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in head)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def _head_gradients(work: _Work, loss: Tensor) -> None:
    """Give the mask IoU head its gradient, the mean over the ranks; what has none, the optimiser leaves as it is."""
    parameters = [one for part in _heads(work.model) for one in part.parameters()]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = work.ranks.mean(gradient)


def _heads(model: torch.nn.Module) -> list[mask_iou.MaskIouHead]:
    return [module for module in model.modules() if isinstance(module, mask_iou.MaskIouHead)]


def _save_checkpoint(checkpoint: _Checkpoint, work: _Work, progress: Progress) -> None:
    with atomic_file(checkpoint.path, sealed=True) as temporary, temporary.open("wb") as file:
        torch.save(
            {
                "fingerprint": checkpoint.fingerprint,
                "model": work.model.state_dict(),
                "optimiser": work.optimiser.state_dict(),
                **asdict(progress),
            },
            file,
        )


def _resume(checkpoint: _Checkpoint, work: _Work) -> Progress:
    # Read by one rank, so that all go on from the same step whatever a shared file system shows to each.
    state = work.ranks.from_first(_read_checkpoint(checkpoint) if work.ranks.first else None)
    if state is None:
        return Progress()
    work.model.load_state_dict(state["model"])
    work.optimiser.load_state_dict(state["optimiser"])
    progress = Progress(**{one.name: state[one.name] for one in fields(Progress) if one.name in state})
    logger.info("training goes on from step %d of %s", progress.step, checkpoint.path)
    return progress


def _read_checkpoint(checkpoint: _Checkpoint) -> dict[str, Any] | None:
    if not checkpoint.path.exists():
        return None
    try:
        integrity.check(checkpoint.path)
        state: dict[str, Any] = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
        fingerprint = state["fingerprint"]
    except Exception as error:  # whatever torch's unpickler raises for a damaged file
        logger.warning("the checkpoint %s cannot be read (%s); training starts anew", checkpoint.path, error)
        return None
    if fingerprint != checkpoint.fingerprint:
        logger.info("the checkpoint %s belongs to other settings or data; training starts anew", checkpoint.path)
        return None
    return state


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _losses_table(rows: list[list[float]], detector: DetectorConfig) -> str:
    lines = [",".join(("step", "learning_rate", "loss", *loss_names(detector)))]
    for step, rate, *losses in rows:
        lines.append(",".join([str(int(step)), f"{rate:.6g}", f"{sum(losses):.6g}", *(f"{one:.6g}" for one in losses)]))
    return "\n".join(lines) + "\n"


def _describe(work: _Work, progress: Progress) -> dict[str, Any]:
    model, data, detector = work.model, work.data, work.detector
    device = next(model.parameters()).device
    measured = [[int(step), None if math.isnan(precision) else precision] for step, precision in progress.evaluations]
    kept = progress.best if work.training.keep == "best" else None
    return {
        "schema_version": model_files.SCHEMA_VERSION,
        "backend": detector.backend,
        "architecture": detector.configuration or detector.architecture,
        "embedding_dim": sum(model_files.embedding_parts(detector).values()),
        "detector": detector.model_dump(mode="json"),
        "categories": data.categories,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "images": len(data),
        "instances": sum(len(record.labels) for record in data.records),
        "ignored_regions": sum(len(record.ignored) for record in data.records),
        "steps": progress.step,
        **({"evaluations": measured, "kept_step": kept or progress.step} if work.validation else {}),
        **work.facts,
        "weights_sha256": model_files.weights_sha256(model.state_dict()),
        "device": str(device.type),
        "ranks": work.ranks.size,
        "seconds": round(progress.seconds, 3),
        "gpu_hours": round(progress.rank_seconds / 3600, 6) if device.type == "cuda" else 0.0,
    }
