"""Train a detector: a plain loop that a kill cannot corrupt and a restart cannot change."""

import hashlib
import json
import logging
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from segloop.config import DetectorConfig, TrainingConfig
from segloop.data.skipped import SkipReport
from segloop.detection import model_files
from segloop.detection.dataset import Sample, TrainingSet, make_batch, read_ahead
from segloop.detection.heads import MaskRCNN, Targets
from segloop.detection.segmenter import gpu_was_given, numerical_settings, resolve_device
from segloop.detection.torchvision_backend import build_model, load_initial_weights, to_batch
from segloop.errors import SegloopError
from segloop.files import atomic_directory, atomic_file, sha256_file, write_json
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
    """

    steps: int
    learning_rate: float
    start: Path | None


@dataclass
class Progress:
    """How far a training has come, as its checkpoint knows it."""

    step: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)


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
) -> None:
    """Train a detector and write its model directory.

    A killed training goes on from its last checkpoint and, on a CPU, ends with the same weights bit for bit.

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

    Raises
    ------
    SegloopError
        If there is nothing to train on, the weights to start from do not fit, the device cannot be used, or a loss
        is not finite.
    """
    where = resolve_device(device, gpu_was_given())
    plan = make_plan(training, previous_model)
    checkpoints.mkdir(parents=True, exist_ok=True)
    with numerical_settings(where, training.threads):
        report = SkipReport(checkpoints / model_files.SKIPPED, max_skipped)
        data = TrainingSet(training_set, report, training.threads)
        torch.manual_seed(seed_of("initial weights", seed, iteration))
        model = build_model(detector, len(data.categories)).to(where)
        start_sha256 = _initialise(model, plan, detector, data.categories)
        facts = {
            "iteration": iteration,
            "seed": seed,
            "training_set_sha256": sha256_file(training_set),
            "start_sha256": start_sha256,
        }
        fingerprint = _fingerprint(detector, training, plan, facts)
        progress = _optimise(model, data, plan, detector, training, checkpoints, fingerprint, (seed, iteration))
    description = _describe(model, data, detector, plan, progress, facts, where)
    with atomic_directory(output) as directory:
        torch.save(_on_cpu(model.state_dict()), directory / model_files.WEIGHTS)
        write_json(directory / model_files.DESCRIPTION, description)
        (directory / model_files.LOSSES).write_text(_losses_table(progress.losses), encoding="utf-8")
        shutil.copyfile(checkpoints / model_files.SKIPPED, directory / model_files.SKIPPED)
    shutil.rmtree(checkpoints)


def make_plan(training: TrainingConfig, previous_model: Path | None) -> Plan:
    """Decide from what, how long and how fast to learn."""
    if previous_model is not None and training.initialise == "previous":
        rate = training.finetune_learning_rate or training.learning_rate
        return Plan(training.finetune_steps, rate, previous_model)
    return Plan(training.steps, training.learning_rate, None)


def learning_rate(step: int, plan: Plan, training: TrainingConfig) -> float:
    """Return the rate of a step, counted from 0: a linear warm-up times the schedule.

    The warm-up takes at most half of the steps, so that a short fine-tuning reaches its rate.
    """
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
    """Turn samples into the targets `MaskRCNN.losses` takes; masks are padded to the largest of the batch."""
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


def _initialise(model: MaskRCNN, plan: Plan, detector: DetectorConfig, categories: list[dict[str, Any]]) -> str | None:
    # Returns a hash of what the weights came from; None means the seed alone.
    if plan.start is not None:
        description = model_files.read_description(plan.start)
        _check_same_categories(description["categories"], categories, plan.start)
        try:
            model.load_state_dict(model_files.read_weights(plan.start))
        except RuntimeError:
            raise SegloopError(
                f"{plan.start} was trained with another detector than the configuration describes "
                f"({description['architecture']}, embedding of {description['embedding_dim']}). "
                "Restore the configuration, or start in a new run directory."
            ) from None
        return str(description["weights_sha256"])
    if detector.weights is not None:
        load_initial_weights(model, Path(detector.weights))
        return sha256_file(detector.weights)
    if detector.architecture != "tiny" and not detector.trainable_batch_norm:
        logger.warning(
            "detector.weights is null: a %s with frozen batch norms seldom learns from random weights; give pretrained "
            "weights or set detector.trainable_batch_norm: true",
            detector.architecture,
        )
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
    # Everything the weights depend on; how often checkpoints are written is not part of it.
    settings = {
        "detector": detector.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude={"checkpoint_steps"}),
        "steps": plan.steps,
        "facts": facts,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _optimise(
    model: MaskRCNN,
    data: TrainingSet,
    plan: Plan,
    detector: DetectorConfig,
    training: TrainingConfig,
    checkpoints: Path,
    fingerprint: str,
    key: tuple[int, int],
) -> Progress:
    optimiser = make_optimiser(model, training)
    progress = _resume(checkpoints / CHECKPOINT, fingerprint, model, optimiser)
    steps = range(progress.step, plan.steps)
    batches = read_ahead(lambda step: make_batch(data, step, detector, training, *key), steps, PREPARING_THREADS)
    began = time.monotonic() - progress.seconds
    model.train()
    for step, samples in zip(
        tqdm(steps, desc="training", unit="step", initial=progress.step, total=plan.steps, disable=None),
        batches,
        strict=True,
    ):
        # The samplers of torchvision draw from torch's global generator.
        torch.manual_seed(seed_of("step", *key, step))
        rate = learning_rate(step, plan, training)
        losses = _step(model, optimiser, samples, rate, training, step)
        progress.losses.append([step, rate, *losses])
        progress.step = step + 1
        progress.seconds = time.monotonic() - began
        if progress.step % training.checkpoint_steps == 0 and progress.step < plan.steps:
            _save_checkpoint(checkpoints / CHECKPOINT, fingerprint, model, optimiser, progress)
            logger.info("step %d of %d: loss %.4f", progress.step, plan.steps, sum(losses))
    return progress


def _step(
    model: MaskRCNN,
    optimiser: torch.optim.Optimizer,
    samples: list[Sample],
    rate: float,
    training: TrainingConfig,
    step: int,
) -> list[float]:
    device = next(model.parameters()).device
    for group in optimiser.param_groups:
        group["lr"] = rate
    sizes = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
    images = to_batch([sample.image for sample in samples], device)
    losses = model.losses(images, sizes, to_targets(samples, device))
    total = torch.stack(list(losses.values())).sum()
    if not math.isfinite(float(total.detach())):
        values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        raise SegloopError(
            f"training stopped at step {step}: a loss is not finite ({values}). Lower training.learning_rate, set "
            "training.clip_gradient, or lengthen training.warmup_steps."
        )
    optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if training.clip_gradient is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_gradient)
    optimiser.step()
    return [float(losses[name].detach()) for name in LOSSES]


def _save_checkpoint(
    path: Path, fingerprint: str, model: MaskRCNN, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    with atomic_file(path) as temporary:
        torch.save(
            {
                "fingerprint": fingerprint,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": progress.step,
                "seconds": progress.seconds,
                "losses": progress.losses,
            },
            temporary,
        )


def _resume(path: Path, fingerprint: str, model: MaskRCNN, optimiser: torch.optim.Optimizer) -> Progress:
    if not path.exists():
        return Progress()
    try:
        checkpoint = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    except Exception as error:  # whatever torch's unpickler raises for a damaged file
        logger.warning("the checkpoint %s cannot be read (%s); training starts anew", path, error)
        return Progress()
    if checkpoint["fingerprint"] != fingerprint:
        logger.info("the checkpoint %s belongs to other settings or data; training starts anew", path)
        return Progress()
    model.load_state_dict(checkpoint["model"])
    optimiser.load_state_dict(checkpoint["optimiser"])
    logger.info("training goes on from step %d of %s", checkpoint["step"], path)
    return Progress(checkpoint["step"], checkpoint["seconds"], checkpoint["losses"])


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _losses_table(rows: list[list[float]]) -> str:
    lines = [",".join(("step", "learning_rate", "loss", *LOSSES))]
    for step, rate, *losses in rows:
        lines.append(",".join([str(int(step)), f"{rate:.6g}", f"{sum(losses):.6g}", *(f"{one:.6g}" for one in losses)]))
    return "\n".join(lines) + "\n"


def _describe(
    model: MaskRCNN,
    data: TrainingSet,
    detector: DetectorConfig,
    plan: Plan,
    progress: Progress,
    facts: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    return {
        "schema_version": model_files.SCHEMA_VERSION,
        "backend": detector.backend,
        "architecture": detector.architecture,
        "embedding_dim": detector.embedding_dim,
        "detector": detector.model_dump(mode="json"),
        "categories": data.categories,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "images": len(data),
        "instances": sum(len(record.labels) for record in data.records),
        "ignored_regions": sum(len(record.ignored) for record in data.records),
        "steps": plan.steps,
        **facts,
        "weights_sha256": model_files.weights_sha256(model.state_dict()),
        "device": str(device.type),
        "seconds": round(progress.seconds, 3),
    }
