"""Tiny images with coloured squares, and a detector that learns on them in seconds."""

import os

# Before torch starts its threads: the tests must not take every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segloop.config import DetectorConfig, TrainingConfig
from segloop.data import masks
from segloop.detection.training import train_detector
from segloop.files import write_json

SIDE = 64
CATEGORIES = [{"id": 3, "name": "bright"}, {"id": 7, "name": "dark"}]


def square(top: int, left: int, side: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def annotation(number: int, image_id: int, category: int, mask: np.ndarray, crowd: int = 0) -> dict[str, Any]:
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "segmentation": masks.to_json(masks.encode(mask)),
        "area": int(mask.sum()),
        "bbox": [float(value) for value in box],
        "iscrowd": crowd,
    }


def make_dataset(folder: Path, images: int = 4) -> dict[str, Any]:
    """Write images with one bright and one dark square each; return their canonical COCO."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": CATEGORIES}
    random = np.random.default_rng(5)
    for image_id in range(1, images + 1):
        pixels = random.integers(100, 140, (SIDE, SIDE, 3)).astype(np.uint8)
        for category, colour in ((3, 250), (7, 5)):
            side = int(random.integers(14, 22))
            top, left = int(random.integers(0, SIDE - side)), int(random.integers(0, 10)) + (32 if category == 7 else 0)
            mask = square(top, left, side)
            pixels[mask] = colour
            dataset["annotations"].append(annotation(len(dataset["annotations"]) + 1, image_id, category, mask))
        path = folder / f"{image_id}.png"
        Image.fromarray(pixels).save(path)
        dataset["images"].append({"id": image_id, "file_name": str(path), "width": SIDE, "height": SIDE})
    return dataset


@pytest.fixture
def annotate() -> Callable[..., dict[str, Any]]:
    """Return the function that turns a mask into an annotation (number, image id, category, mask, crowd)."""
    return annotation


@pytest.fixture
def dataset(tmp_path: Path) -> dict[str, Any]:
    return make_dataset(tmp_path / "images")


@pytest.fixture
def training_set(tmp_path: Path, dataset: dict[str, Any]) -> Path:
    path = tmp_path / "train.json"
    write_json(path, dataset)
    return path


@pytest.fixture
def detector() -> DetectorConfig:
    return DetectorConfig(architecture="tiny", embedding_dim=64, min_size=SIDE, max_size=SIDE, detections_per_image=20)


@pytest.fixture
def training() -> TrainingConfig:
    return TrainingConfig(
        steps=4,
        finetune_steps=2,
        batch_size=2,
        optimiser="adamw",
        learning_rate=0.002,
        warmup_steps=1,
        schedule="cosine",
        checkpoint_steps=2,
        crop=SIDE,
        threads=1,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a model that has learned the squares, and the set it learned from."""
    folder = tmp_path_factory.mktemp("trained")
    write_json(folder / "train.json", make_dataset(folder / "images"))
    train_detector(
        training_set=folder / "train.json",
        previous_model=None,
        output=folder / "model",
        checkpoints=folder / "checkpoints",
        detector=DetectorConfig(
            architecture="tiny", embedding_dim=64, min_size=SIDE, max_size=SIDE, detections_per_image=20
        ),
        training=TrainingConfig(
            steps=110,
            batch_size=2,
            optimiser="adamw",
            learning_rate=0.002,
            warmup_steps=5,
            schedule="cosine",
            clip_gradient=5.0,
            scale_jitter=(1.0, 1.0),
            threads=1,
        ),
        iteration=0,
        seed=0,
        device="cpu",
        max_skipped=0.0,
    )
    return folder / "model", folder / "train.json"
