"""What every backend promises of the mask IoU head."""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segloop.config import DetectorConfig, TrainingConfig
from segloop.detection import mask_iou, model_files
from segloop.detection.backends import backend_of
from segloop.detection.segmenter import Segmenter, load_segmenter
from segloop.detection.training import loss_names, train_detector
from segloop.errors import SegloopError
from segloop.files import read_json, write_json

from .conftest import SIDE, Case
from .test_contract import losses_of, target


def head_of(network: Any) -> mask_iou.MaskIouHead:
    found: list[mask_iou.MaskIouHead] = [one for one in network.modules() if isinstance(one, mask_iou.MaskIouHead)]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def judging(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a model with the head, which went on from weights without it."""
    folder = tmp_path_factory.mktemp("judging")
    start = {"mask_iou_head": True, "weights": str(case.model / "weights.pt")}
    detector = DetectorConfig.model_validate(case.detector.model_dump() | start)
    train_detector(
        training_set=case.training_set,
        previous_model=None,
        output=folder / "model",
        checkpoints=folder / "checkpoints",
        detector=detector,
        training=TrainingConfig(
            steps=40, batch_size=2, optimiser="adamw", learning_rate=0.001, warmup_steps=5, crop=SIDE, threads=1
        ),
        iteration=0,
        seed=0,
        device="cpu",
        max_skipped=0.0,
    )
    return Case(case.backend, detector, folder / "model", case.training_set)


@pytest.fixture
def segmenter(judging: Case) -> Segmenter:
    return load_segmenter(judging.model, device="cpu", threads=1)


@pytest.fixture
def images(case: Case) -> list[np.ndarray]:
    return [np.asarray(Image.open(image["file_name"])) for image in read_json(case.training_set)["images"]]


def test_predicted_iou_follows_from_the_second_part_of_the_embedding(
    judging: Case, segmenter: Segmenter, images: list[np.ndarray]
) -> None:
    assert segmenter.embedding_parts == {"box_head": 64, "mask_iou_head": 64}
    assert segmenter.predicts_iou
    network, _, _ = backend_of(judging.backend).load_model(judging.model)
    for found in segmenter.predict(images, score=0.2):
        assert found.predicted_iou is not None
        assert len(found) > 0
        assert found.embedding.shape == (len(found), segmenter.embedding_dim)
        assert ((found.predicted_iou >= 0) & (found.predicted_iou <= 1)).all()
        with torch.inference_mode():
            said = head_of(network).iou(torch.from_numpy(found.embedding[:, 64:])).numpy()
        column = np.searchsorted([3, 7], found.category)
        assert np.allclose(said[np.arange(len(found)), column].clip(0, 1), found.predicted_iou, atol=1e-5)


def test_good_masks_are_foretold(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    (found,) = segmenter.predict(images[:1], score=0.5)
    assert found.predicted_iou is not None
    assert found.predicted_iou.max() > 0.4
    (none,) = segmenter.predict([np.full((SIDE, SIDE, 3), 120, np.uint8)], score=1.0)
    assert none.predicted_iou is not None
    assert none.embedding.shape == (0, 128)
    assert none.predicted_iou.shape == (0,)


def test_its_loss_is_recorded(judging: Case) -> None:
    header, *rows = (judging.model / "losses.csv").read_text().splitlines()
    assert header.split(",") == ["step", "learning_rate", "loss", *loss_names(judging.detector)]
    own = [float(row.split(",")[-1]) for row in rows]
    assert sum(own[-10:]) < sum(own[:10])


@pytest.fixture
def of_positives(judging: Case, tmp_path: Path) -> Case:
    """Return the model with a head that learns as in the paper."""
    folder = tmp_path / "model"
    shutil.copytree(judging.model, folder)
    description = read_json(folder / model_files.DESCRIPTION)
    description["detector"]["mask_iou_examples"] = "positives"
    write_json(folder / model_files.DESCRIPTION, description)
    return dataclasses.replace(judging, model=folder)


def test_it_learns_from_positives_alone(of_positives: Case, images: list[np.ndarray]) -> None:
    boxes = [[8.0, 8.0, 30.0, 30.0]]
    network, losses = losses_of(of_positives, images, [target(boxes, []), target([], [])])
    assert losses[mask_iou.LOSS] > 0
    losses[mask_iou.LOSS].backward()
    assert all(one.grad is not None and one.grad.any() for one in head_of(network).fc1.parameters())
    network, losses = losses_of(of_positives, images, [target([], []), target([], [])])
    assert losses[mask_iou.LOSS] == 0
    losses[mask_iou.LOSS].backward()
    assert all(one.grad is not None and not one.grad.any() for one in head_of(network).parameters())


def test_it_learns_from_what_is_detected(judging: Case, images: list[np.ndarray]) -> None:
    """Where nothing is known but detected, it learns zero; where all is ignored, nothing."""
    network, losses = losses_of(judging, images, [target([], []), target([], [])])
    assert losses[mask_iou.LOSS] > 0
    losses[mask_iou.LOSS].backward()
    assert head_of(network).iou.bias.grad.max() > 0
    assert all(one.grad is not None and one.grad.any() for one in head_of(network).fc1.parameters())
    everything = [[-500.0, -500.0, 500.0, 500.0]]
    network, losses = losses_of(judging, images, [target([], everything), target([], everything)])
    assert losses[mask_iou.LOSS] == 0
    losses[mask_iou.LOSS].backward()
    assert all(one.grad is not None and not one.grad.any() for one in head_of(network).parameters())


def test_all_else_begins_with_the_weights_it_has_without_the_head(case: Case) -> None:
    backend = backend_of(case.backend)
    states = []
    for wanted in (False, True):
        torch.manual_seed(3)
        detector = DetectorConfig.model_validate(case.detector.model_dump() | {"mask_iou_head": wanted})
        states.append(backend.build_model(detector, 2).state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert {name.rpartition("mask_iou_head.")[1] for name in states[1].keys() - states[0].keys()} == {"mask_iou_head."}


def test_a_file_without_the_head_is_said_to_lack_it(
    case: Case, judging: Case, caplog: pytest.LogCaptureFixture
) -> None:
    backend = backend_of(case.backend)
    network = backend.build_model(judging.detector, 2)
    with caplog.at_level(logging.INFO, "segloop.detection"):
        backend.load_initial_weights(network, case.model / "weights.pt")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "mask_iou_head; it is left random" in caplog.text
    before = model_files.read_weights(case.model)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_older_weights_of_a_whole_model_still_need_every_other_parameter(
    case: Case, judging: Case, tmp_path: Path
) -> None:
    state = model_files.read_weights(judging.model)
    name = next(name for name in state if name.endswith("mask_iou_head.fc1.weight"))
    del state[name]
    torch.save(state, tmp_path / "torn.pth")
    backend = backend_of(case.backend)
    with pytest.raises(SegloopError, match="1 parameters are missing"):
        backend.load_initial_weights(backend.build_model(judging.detector, 2), tmp_path / "torn.pth")
