"""Tiny images with coloured squares, and a detector that learns on them in seconds."""

import importlib.util
import os

# Before torch starts its threads: the tests must not take every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segloop.config import DetectorConfig, TrainingConfig
from segloop.data import masks
from segloop.detection.training import train_detector
from segloop.files import write_json

SIDE = 64
STAGES = ["res2", "res3", "res4", "res5"]
SMALL = {
    "VERSION": 2,
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": True,
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {
            "OUT_FEATURES": STAGES,
            "NORM": "GN",
            "STEM_OUT_CHANNELS": 32,
            "RES2_OUT_CHANNELS": 32,
            "WIDTH_PER_GROUP": 32,
            "STRIDE_IN_1X1": False,
        },
        "FPN": {"IN_FEATURES": STAGES, "OUT_CHANNELS": 32, "NORM": "GN"},
        "ANCHOR_GENERATOR": {"SIZES": [[8, 12], [16, 24], [32, 48], [64, 96], [128, 192]]},
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 200,
            "POST_NMS_TOPK_TRAIN": 100,
            "PRE_NMS_TOPK_TEST": 200,
            "POST_NMS_TOPK_TEST": 100,
        },
        "ROI_HEADS": {
            "NAME": "StandardROIHeads",
            "IN_FEATURES": ["p2", "p3", "p4"],
            "BATCH_SIZE_PER_IMAGE": 64,
        },
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {
            "NAME": "MaskRCNNConvUpsampleHead",
            "NUM_CONV": 1,
            "CONV_DIM": 32,
            "NORM": "GN",
            "POOLER_RESOLUTION": 14,
        },
    },
}
"""A configuration of detectron2 that a CPU trains in seconds."""
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


def skip_without_detectron2() -> None:
    if importlib.util.find_spec("detectron2") is None:
        pytest.skip(
            "detectron2 is not installed; PyPI does not have it, so that SEGLOOP_REQUIRE_ALL does not ask for it"
        )


@pytest.fixture(scope="session")
def small_detectron2() -> Callable[..., Path]:
    """Return the function that writes a small configuration, with changes (dotted keys below MODEL); else skip."""
    skip_without_detectron2()

    def write(path: Path, changes: dict[str, Any] | None = None) -> Path:
        settings: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SMALL))
        for key, value in (changes or {}).items():
            *sections, name = key.split(".")
            section = settings["MODEL"]
            for one in sections:
                section = section.setdefault(one, {})
            section[name] = value
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    return write


def squares_detector(backend: str, folder: Path, request: pytest.FixtureRequest) -> DetectorConfig:
    """Return a small detector of a backend; where its library is missing, skip."""
    common: dict[str, Any] = {"embedding_dim": 64, "min_size": SIDE, "max_size": SIDE, "detections_per_image": 20}
    if backend == "torchvision":
        return DetectorConfig(architecture="tiny", **common)
    path = request.getfixturevalue("small_detectron2")(folder / "small.yaml")
    return DetectorConfig(backend="detectron2", configuration=str(path), **common)


def train_squares(folder: Path, detector: DetectorConfig, steps: int = 150) -> tuple[Path, Path]:
    """Train a detector on the squares; return its model directory, and the set it learned from."""
    write_json(folder / "train.json", make_dataset(folder / "images"))
    train_detector(
        training_set=folder / "train.json",
        previous_model=None,
        output=folder / "model",
        checkpoints=folder / "checkpoints",
        detector=detector,
        training=TrainingConfig(
            steps=steps,
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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """Return a model that has learned the squares, and the set it learned from."""
    folder = tmp_path_factory.mktemp("trained")
    return train_squares(folder, squares_detector("torchvision", folder, request))


@dataclass(frozen=True)
class Case:
    """A backend, a small detector of it, the model that has learned the squares, and the set it learned from."""

    backend: str
    detector: DetectorConfig
    model: Path
    training_set: Path


@pytest.fixture(scope="session", params=["torchvision", "detectron2"])
def case(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Case:
    """Return what a contract is tested on, for every backend."""
    folder = tmp_path_factory.mktemp(request.param)
    detector = squares_detector(request.param, folder, request)
    if request.param == "torchvision":
        return Case(request.param, detector, *request.getfixturevalue("trained"))
    return Case(request.param, detector, *train_squares(folder, detector, steps=160))
