from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segloop.config import DetectorConfig, MaskIouExamples, PredictionConfig, TrainingConfig
from segloop.data import masks
from segloop.detection import model_files
from segloop.detection import training as training_module
from segloop.detection.heads import MaskRCNN
from segloop.detection.launching import launch_training
from segloop.detection.mask_iou import (
    Examples,
    MaskIouHead,
    draw_examples,
    example_targets,
    mask_iou_loss,
    mask_iou_targets,
)
from segloop.detection.prediction import predict_shard
from segloop.detection.segmenter import Detections, load_segmenter, times_iou
from segloop.detection.torchvision_backend import build_model, load_initial_weights
from segloop.detection.training import train_detector
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.store.predictions import PredictionShard

HEAD = "roi_heads.mask_iou_head."
SIDE = 64


def head(categories: int = 3) -> MaskIouHead:
    torch.manual_seed(0)
    return MaskIouHead(4, categories, width=8, hidden=16, embedding_dim=12)


def network(mask_iou_head: bool = True, examples: MaskIouExamples = "detections") -> MaskRCNN:
    torch.manual_seed(0)
    config = DetectorConfig(
        architecture="tiny",
        embedding_dim=24,
        mask_iou_head=mask_iou_head,
        mask_iou_examples=examples,
        detections_per_image=300,
    )
    return build_model(config, 2)


def target(boxes: list[list[float]], ignored: list[list[float]]) -> dict[str, torch.Tensor]:
    shown = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(shown, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = 1
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "masks": shown,
        "ignored": torch.tensor(ignored).reshape(-1, 4),
    }


# --- the module ---


def test_one_iou_a_category_and_an_embedding() -> None:
    iou, embedding = head()(torch.randn(5, 4, 14, 14), torch.rand(5, 28, 28))
    assert (iou.shape, embedding.shape) == ((5, 3), (5, 12))
    assert (embedding >= 0).all()
    torch.testing.assert_close(iou, head().iou(embedding))


def test_no_mask_no_judgement() -> None:
    iou, embedding = head()(torch.randn(0, 4, 14, 14), torch.rand(0, 28, 28))
    assert (iou.shape, embedding.shape) == ((0, 3), (0, 12))


def test_features_learn_from_the_judgement_and_masks_do_not() -> None:
    features = torch.randn(2, 4, 14, 14, requires_grad=True)
    probability = torch.rand(2, 28, 28, requires_grad=True)
    iou, _ = head()(features, probability)
    iou.sum().backward()
    assert features.grad is not None
    assert features.grad.any()
    assert probability.grad is None


def test_the_mask_is_max_pooled() -> None:
    """A pixel is seen wherever in its 2 x 2 it lies, and another mask is judged otherwise."""
    features, probability = torch.randn(1, 4, 14, 14), torch.zeros(1, 28, 28)
    empty, _ = head()(features, probability)
    judged = []
    for row, column in ((8, 8), (9, 9), (9, 10)):
        one = probability.clone()
        one[0, row, column] = 1
        judged.append(head()(features, one)[0])
    assert torch.equal(judged[0], judged[1])
    assert not torch.equal(judged[0], judged[2])
    assert not torch.equal(judged[0], empty)


rectangles = st.tuples(*[st.integers(0, 60)] * 4).map(
    lambda ends: (min(ends[0], ends[1]), min(ends[2], ends[3]), max(ends[:2]) + 1, max(ends[2:]) + 1)
)


def raster(rectangle: tuple[int, int, int, int], side: int = 80) -> np.ndarray:
    x0, y0, x1, y1 = rectangle
    mask = np.zeros((side, side), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(
    truth=rectangles,
    predicted=rectangles,
    left=st.integers(0, 20),
    top=st.integers(0, 20),
    cell=st.sampled_from([1, 2]),
)
def test_the_target_is_the_iou_with_the_whole_object(
    truth: tuple[int, int, int, int], predicted: tuple[int, int, int, int], left: int, top: int, cell: int
) -> None:
    """Compared with a count of pixels; the object may lie partly or wholly outside of the box."""
    side = 28 * cell
    window = (slice(top, top + side), slice(left, left + side))
    object_, box = raster(truth), torch.tensor([[left, top, left + side, top + side]], dtype=torch.float32)
    cells = raster(predicted)[:28, :28]
    mask = np.zeros_like(object_)
    mask[window] = np.kron(cells, np.ones((cell, cell), bool))
    union = (mask | object_).sum()
    expected = (mask & object_).sum() / union
    coverage = object_[window].reshape(28, cell, 28, cell).mean(axis=(1, 3), dtype=np.float32)
    found = mask_iou_targets(
        torch.from_numpy(0.9 * cells.astype(np.float32))[None],
        torch.from_numpy(coverage)[None],
        box,
        torch.tensor([int(object_.sum())]),
    )
    assert found.tolist() == pytest.approx([expected], abs=1e-5)


def test_the_target_has_no_gradient_and_survives_boxes_without_area() -> None:
    probability = torch.zeros(2, 28, 28, requires_grad=True)
    boxes = torch.tensor([[5.0, 5, 5, 9], [0, 0, 28, 28]])
    found = mask_iou_targets(probability, torch.zeros(2, 28, 28), boxes, torch.tensor([0, 0]))
    assert found.tolist() == [0, 0]
    assert not found.requires_grad


def detections(boxes: list[list[float]], labels: list[int]) -> dict[str, torch.Tensor]:
    return {
        "box": torch.tensor(boxes).reshape(-1, 4),
        "label": torch.tensor(labels, dtype=torch.int64),
        "score": torch.full((len(labels),), 0.5),
    }


def test_a_detection_is_compared_with_the_best_object_of_its_category() -> None:
    boxes = [[10.0, 10, 30, 30], [10, 10, 50, 50], [12, 12, 32, 32], [40, 2, 60, 8]]
    known = target([[10, 10, 30, 30], [10, 10, 48, 48]], [])
    known["labels"] = torch.tensor([1, 2])
    (drawn,) = draw_examples([detections(boxes, [1, 2, 2, 1])], [known])
    assert torch.equal(drawn.boxes, torch.tensor(boxes))
    assert drawn.labels.tolist() == [1, 2, 2, 1]
    assert drawn.matched.tolist() == [0, 1, 1, -1]


def test_detections_that_match_nothing_in_ignored_regions_are_left_out() -> None:
    boxes = [[10.0, 10, 30, 30], [40, 40, 60, 60], [0, 40, 20, 60]]
    known = target([[10, 10, 30, 30]], [[0, 0, 64, 35], [38, 38, 62, 62]])
    (drawn,) = draw_examples([detections(boxes, [1, 1, 1])], [known])
    assert drawn.boxes.tolist() == [boxes[0], boxes[2]]
    assert drawn.matched.tolist() == [0, -1]


def test_so_many_are_drawn_of_each_image() -> None:
    torch.manual_seed(0)
    boxes = [[float(x), 0, x + 8.0, 8] for x in range(50)]
    many, none, few = draw_examples(
        [detections(boxes, [1] * 50), detections([], []), detections(boxes[:3], [1] * 3)], [target([], [])] * 3, most=20
    )
    assert (len(many.labels), len(none.labels), len(few.labels)) == (20, 0, 3)
    assert len(set(many.boxes[:, 0].tolist())) == 20
    again, _, _ = draw_examples([detections(boxes, [1] * 50)] * 3, [target([], [])] * 3, most=20)
    assert not torch.equal(many.boxes, again.boxes)


def test_likely_detections_are_drawn_more_often() -> None:
    torch.manual_seed(0)
    found = detections([[float(x), 0, x + 8.0, 8] for x in range(50)], [1] * 50)
    found["score"][:10], found["score"][10:] = 0.9, 0.05
    counts = np.zeros(50)
    for _ in range(200):
        counts[draw_examples([found], [target([], [])], most=10)[0].boxes[:, 0].long().numpy()] += 1
    assert counts[:10].min() > 2 * counts[10:].max()
    assert counts[10:].min() > 0


def test_the_iou_of_what_matches_nothing_is_zero() -> None:
    """In a batch of three images, the first with a perfect mask, one twice too large, and one of nothing."""
    known = target([[8, 8, 36, 36]], [])
    first = Examples(
        torch.tensor([[8.0, 8, 36, 36], [8, 8, 36, 64], [40, 40, 60, 60]]),
        torch.tensor([1, 1, 1]),
        torch.tensor([0, 0, -1]),
    )
    none = Examples(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    alone = Examples(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([1]), torch.tensor([-1]))
    found = example_targets(torch.ones(4, 28, 28), [first, none, alone], [known, known, target([], [])])
    assert found.tolist() == pytest.approx([1, 0.5, 0, 0], abs=1e-5)
    assert found.dtype == torch.float32


def test_the_loss_looks_at_the_true_category() -> None:
    predicted = torch.tensor([[0.5, 9.0], [9.0, 0.2]], requires_grad=True)
    loss = mask_iou_loss(predicted, torch.tensor([0, 1]), torch.tensor([1.0, 0.2]))
    assert loss.item() == pytest.approx(0.125)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad[[0, 1], [1, 0]].tolist() == [0, 0]


def test_without_positives_the_loss_is_zero_and_reaches_every_parameter() -> None:
    judge = head()
    predicted, _ = judge(torch.randn(0, 4, 14, 14), torch.rand(0, 28, 28))
    loss = mask_iou_loss(predicted, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss.backward()
    assert loss.item() == 0
    assert all(one.grad is not None and not one.grad.any() for one in judge.parameters())


def test_it_learns_to_judge() -> None:
    """Squares in the features, the same squares moved as masks: after some steps it ranks masks it has not seen."""
    torch.manual_seed(1)
    judge = MaskIouHead(1, 1, width=8, hidden=32, embedding_dim=16)
    optimiser = torch.optim.Adam(judge.parameters(), 0.003)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        truth, mask = torch.zeros(count, 28, 28), torch.zeros(count, 28, 28)
        for row, (x, y, dx, dy) in enumerate(zip(*torch.randint(0, 9, (4, count)).tolist(), strict=True)):
            truth[row, y : y + 12, x : x + 12] = 1
            mask[row, y + dy : y + dy + 12, x + dx : x + dx + 12] = 1
        box = torch.tensor([[0.0, 0, 28, 28]]).repeat(count, 1)
        target = mask_iou_targets(mask, truth, box, truth.sum(dim=(1, 2)))
        return torch.nn.functional.max_pool2d(truth[:, None], 2), mask, target

    for _ in range(60):
        features, mask, target_iou = draw(64)
        loss = mask_iou_loss(judge(features, mask)[0], torch.zeros(64, dtype=torch.int64), target_iou)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    features, mask, target_iou = draw(200)
    with torch.no_grad():
        found = judge(features, mask)[0][:, 0]
    assert float(torch.corrcoef(torch.stack((found, target_iou)))[0, 1]) > 0.7


# --- in the network ---


def test_without_the_head_nothing_is_another_weight() -> None:
    plain, scoring = network(mask_iou_head=False).state_dict(), network().state_dict()
    assert {name for name in scoring if name not in plain} == {name for name in scoring if name.startswith(HEAD)}
    assert all(torch.equal(value, scoring[name]) for name, value in plain.items())


def losses_of(model: MaskRCNN, known: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    losses = model.losses(torch.randn(1, 3, SIDE, SIDE), [(SIDE, SIDE)], [known])
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []
    return losses


@pytest.mark.parametrize("examples", ["detections", "positives"])
def test_every_parameter_learns(examples: MaskIouExamples) -> None:
    losses = losses_of(network(examples=examples), target([[10, 10, 40, 50]], []))
    assert list(losses)[-2:] == ["loss_mask", "loss_mask_iou"]
    assert losses["loss_mask_iou"] > 0


def test_without_an_object_positives_teach_nothing_and_detections_teach_zero() -> None:
    assert losses_of(network(examples="positives"), target([], []))["loss_mask_iou"] == 0
    model = network()
    judge = model.roi_heads.mask_iou_head
    assert judge is not None
    torch.nn.init.zeros_(judge.iou.weight)
    assert losses_of(model, target([], []))["loss_mask_iou"].item() == pytest.approx(0.25)
    assert judge.iou.bias.grad is not None
    assert (judge.iou.bias.grad >= 0).all()
    assert judge.iou.bias.grad.any()
    torch.nn.init.zeros_(judge.iou.bias)
    assert losses_of(model, target([], []))["loss_mask_iou"] == 0


def test_without_a_detection_the_loss_is_zero() -> None:
    everywhere = [[-500.0, -500, 500, 500]]
    model = network()
    assert losses_of(model, target([], everywhere))["loss_mask_iou"] == 0


def test_what_teaches_are_the_masks_of_the_kept_boxes() -> None:
    """The loss is that of what `detect` finds among the training's proposals, with the truth of each mask."""
    model = network()
    judge = model.roi_heads.mask_iou_head
    assert judge is not None
    # Masks that fill their boxes more or less, as those of a trained network.
    model.roi_heads.mask_predictor.mask_fcn_logits.bias.data += 2
    images, known = torch.randn(1, 3, SIDE, SIDE), target([[10, 10, 40, 50], [20, 5, 60, 30]], [])
    proposals = [torch.tensor([[9.0, 9, 42, 48], [18, 6, 55, 33], [44, 40, 60, 62]])]
    features = model.backbone(images)
    with torch.no_grad():
        (found,) = model.roi_heads.detect(features, proposals, [(SIDE, SIDE)], 0.05)
        examples = draw_examples([found], [known])
        true_iou = example_targets(found["mask"], examples, [known])
        expected = torch.nn.functional.mse_loss(found["predicted_iou"], true_iou)
    loss = model.roi_heads.losses(features, proposals, [(SIDE, SIDE)], [known])["loss_mask_iou"]
    assert len(true_iou) > 3
    assert true_iou.max() > 0.2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_what_is_judged_is_the_mask_of_the_kept_box() -> None:
    """The head, given the features of a detection's box and its mask, says again what came with the detection."""
    model = network().eval()
    judge = model.roi_heads.mask_iou_head
    assert judge is not None
    judge.iou.bias.data[:] = torch.tensor([0.3, 0.7])
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        found = model.detect(images, [(SIDE, SIDE)] * 2, 0.0)
        features = model.backbone(images)
        pooled = model.roi_heads.mask_roi_pool(features, [one["box"] for one in found])
        iou, embedding = judge(pooled, torch.cat([one["mask"] for one in found]))
    label = torch.cat([one["label"] for one in found])
    assert len(label) > 300
    assert set(label.tolist()) == {1, 2}
    own = iou[torch.arange(len(label)), label - 1].clamp(0, 1)
    torch.testing.assert_close(torch.cat([one["predicted_iou"] for one in found]), own)
    joined = torch.cat([one["embedding"] for one in found])
    torch.testing.assert_close(joined[:, 24:], embedding)
    logits, _ = model.roi_heads.box_predictor(joined[:, :24])
    scores = logits.softmax(dim=1)[torch.arange(len(label)), label]
    torch.testing.assert_close(scores, torch.cat([one["score"] for one in found]))


def test_no_proposal_no_predicted_iou() -> None:
    model = network().eval()
    features = model.backbone(torch.zeros(1, 3, SIDE, SIDE))
    (found,) = model.roi_heads.detect(features, [torch.zeros(0, 4)], [(SIDE, SIDE)], 0.0)
    assert found["predicted_iou"].shape == (0,)
    assert found["embedding"].shape == (0, 48)


def test_the_head_of_the_paper() -> None:
    """Four convolutions of 256 channels and two layers of 1024, on features of 14 x 14 (figure 3)."""
    judge = build_model(DetectorConfig(architecture="r50_fpn", mask_iou_head=True), 5).roi_heads.mask_iou_head
    shapes = [tuple(one.shape) for name, one in judge.named_parameters() if name.endswith("weight")]
    assert shapes[:4] == [(256, 257, 3, 3), *[(256, 256, 3, 3)] * 3]
    assert shapes[4:] == [(1024, 256 * 49), (1024, 1024), (5, 1024)]


# --- training, model directories, prediction ---

Train = Callable[..., Path]


@pytest.fixture
def scoring(detector: DetectorConfig) -> DetectorConfig:
    return detector.model_copy(update={"mask_iou_head": True})


@pytest.fixture
def train(training_set: Path, tmp_path: Path, scoring: DetectorConfig, training: TrainingConfig) -> Train:
    def run(name: str, **changes: Any) -> Path:
        arguments: dict[str, Any] = {
            "training_set": training_set,
            "previous_model": None,
            "output": tmp_path / name,
            "checkpoints": tmp_path / f"{name}.checkpoints",
            "detector": scoring,
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


def test_a_killed_training_ends_with_the_same_bits(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train("undisturbed")
    real_step = training_module._step

    def step(*arguments: Any) -> list[float]:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return real_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    resumed = train("killed")
    assert sha256(resumed) == sha256(undisturbed)
    lines = (resumed / "losses.csv").read_text().splitlines()
    assert lines == (undisturbed / "losses.csv").read_text().splitlines()
    assert lines[0].endswith(",loss_mask,loss_mask_iou")
    description = read_json(resumed / "model.json")
    assert (description["embedding_dim"], description["detector"]["mask_iou_head"]) == (128, True)


def test_in_further_steps_the_head_learns_alone(
    train: Train, training: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a training that is killed in them ends with the same bits."""
    before = model_files.read_weights(train("before"))
    longer = training.model_copy(update={"mask_iou_steps": 4})
    undisturbed = train("undisturbed", training=longer)
    after = model_files.read_weights(undisturbed)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(HEAD)}
    real_step = training_module._step

    def step(*arguments: Any) -> list[float]:
        if arguments[-1] == 7:
            raise KeyboardInterrupt
        return real_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train("killed", training=longer)
    assert sha256(train("killed", training=longer)) == sha256(undisturbed)
    assert read_json(undisturbed / "model.json")["steps"] == 8
    rates = [float(line.split(",")[1]) for line in (undisturbed / "losses.csv").read_text().splitlines()[1:]]
    assert len(rates) == 8
    assert rates[4:] == rates[:4]


def test_two_processes_train_it_together(
    training_set: Path, tmp_path: Path, scoring: DetectorConfig, training: TrainingConfig
) -> None:
    cluster = TrainingConfig().cluster.model_copy(update={"kind": "local", "tasks_per_node": 2, "timeout_minutes": 5})
    launch_training(
        settings=TrainingConfig(launcher="submitit", cluster=cluster),
        name="train",
        folder=tmp_path / "logs",
        output=tmp_path / "model",
        checkpoints=tmp_path / "checkpoints" / "model",
        training_set=training_set,
        previous_model=None,
        detector=scoring,
        training=training.model_copy(update={"mask_iou_steps": 2}),
        iteration=0,
        seed=0,
        device="cpu",
        max_skipped=0.0,
    )
    torch.manual_seed(0)
    state = model_files.read_weights(tmp_path / "model")
    assert read_json(tmp_path / "model" / "model.json")["ranks"] == 2
    fresh = build_model(scoring, 2).state_dict()
    assert all(not torch.equal(state[name], fresh[name]) for name in state if name.startswith(HEAD))


def test_another_head_than_before_is_refused(train: Train, detector: DetectorConfig) -> None:
    first = train("first")
    with pytest.raises(SegloopError, match=r"another detector.*mask_iou_head: true"):
        train("second", previous_model=first, detector=detector)


def test_weights_without_the_head_start_a_detector_with_one(
    tmp_path: Path, detector: DetectorConfig, scoring: DetectorConfig, caplog: pytest.LogCaptureFixture
) -> None:
    plain, model = build_model(detector, 2), build_model(scoring, 2)
    path = tmp_path / "plain.pt"
    torch.save(plain.state_dict(), path)
    before = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(HEAD)}
    with caplog.at_level("INFO", "segloop"):
        load_initial_weights(model, path)
    assert "mask_iou_head; it is left random" in caplog.text
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in (plain.state_dict() | before).items())
    torch.save({name: value for name, value in state.items() if name != f"{HEAD}fc1.weight"}, path)
    with pytest.raises(SegloopError, match="1 parameters are missing"):
        load_initial_weights(model, path)
    torch.save(state, path)
    with pytest.raises(SegloopError, match=r"are unknown .*detector\.mask_iou_head"):
        load_initial_weights(plain, path)


def test_weights_for_other_categories_leave_the_last_layer_random(tmp_path: Path, scoring: DetectorConfig) -> None:
    path = tmp_path / "weights.pt"
    other, model = build_model(scoring, 5), build_model(scoring, 2)
    torch.save(other.state_dict(), path)
    last = model.state_dict()[f"{HEAD}iou.weight"].clone()
    load_initial_weights(model, path)
    assert torch.equal(model.state_dict()[f"{HEAD}iou.weight"], last)
    assert torch.equal(model.state_dict()[f"{HEAD}fc2.weight"], other.state_dict()[f"{HEAD}fc2.weight"])


def untrained(folder: Path, config: DetectorConfig) -> Path:
    """Write a model directory of random weights, with scores that differ."""
    folder.mkdir()
    torch.manual_seed(0)
    model = build_model(config, 2)
    model.roi_heads.box_predictor.cls_score.weight.data *= 30
    if config.mask_iou_head:
        model.roi_heads.mask_iou_head.iou.weight.data *= 2
    torch.save(model.state_dict(), folder / model_files.WEIGHTS)
    description = {
        "schema_version": model_files.SCHEMA_VERSION,
        "backend": "torchvision",
        "detector": config.model_dump(mode="json"),
        "categories": [{"id": 3, "name": "bright"}, {"id": 7, "name": "dark"}],
        "weights_sha256": model_files.weights_sha256(model.state_dict()),
    }
    write_json(folder / model_files.DESCRIPTION, description)
    return folder


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)


def test_a_shard_holds_predicted_iou_and_both_parts(tmp_path: Path, scoring: DetectorConfig) -> None:
    model = untrained(tmp_path / "model", scoring)
    Image.fromarray(picture(0)).save(tmp_path / "image.png")
    columns = {
        "image_id": pa.array([5], pa.int64()),
        "file_name": pa.array([str(tmp_path / "image.png")], pa.string()),
        "width": pa.array([SIDE], pa.int32()),
        "height": pa.array([SIDE], pa.int32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "shard.parquet")
    predict_shard(
        models={"detector": model},
        images=tmp_path / "shard.parquet",
        shard=0,
        iteration=1,
        output=tmp_path / "0.zarr",
        skipped=tmp_path / "0.skipped.json",
        prediction=PredictionConfig(store_score=0.1),
        device="cpu",
        max_skipped=0.0,
    )
    shard = PredictionShard.open(tmp_path / "0.zarr")
    (found,) = load_segmenter(model, device="cpu", threads=1).predict([picture(0)], score=0.1)
    assert shard.detectors[0].embedding_parts == {"box_head": 64, "mask_iou_head": 64}
    assert len(shard) == len(found) > 5
    assert found.predicted_iou is not None
    assert shard.predicted_iou is not None
    assert np.array_equal(shard.predicted_iou, found.predicted_iou)
    assert len(np.unique(found.predicted_iou)) > 5
    assert ((found.predicted_iou >= 0) & (found.predicted_iou <= 1)).all()
    assert np.allclose(shard.embeddings(), found.embedding, rtol=1e-3, atol=1e-3)


def test_score_times_predicted_iou(tmp_path: Path, scoring: DetectorConfig) -> None:
    model = untrained(tmp_path / "model", scoring)
    (plain,) = load_segmenter(model, device="cpu", threads=1).predict([picture(1)], score=0.0)
    segmenter = load_segmenter(model, device="cpu", threads=1, score="class_times_iou")
    assert (segmenter.embedding_dim, segmenter.embedding_parts) == (128, {"box_head": 64, "mask_iou_head": 64})
    assert [one["id"] for one in segmenter.categories] == [3, 7]
    assert plain.predicted_iou is not None
    product = plain.score * plain.predicted_iou
    limit = float(np.median(product))
    (found,) = segmenter.predict([picture(1)], score=limit)
    assert found.score.tolist() == sorted(product[product > limit].tolist(), reverse=True)
    assert len(found) > 3


def test_columns_stay_together_when_scores_change() -> None:
    rles = [masks.encode(np.eye(4, dtype=bool)[[row, *range(1, 4)]]) for row in range(4)]
    found = Detections(
        score=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        category=np.arange(4, dtype=np.int32),
        box=np.arange(16, dtype=np.float32).reshape(4, 4),
        masks=rles,
        embedding=np.arange(8, dtype=np.float32).reshape(4, 2),
        predicted_iou=np.array([0.1, 1.0, 0.5, 1.0], np.float32),
    )
    again = times_iou(found, 0.35)
    assert again.score.tolist() == pytest.approx([0.8, 0.6])
    assert again.category.tolist() == [1, 3]
    assert again.box[:, 0].tolist() == [4, 12]
    assert again.masks == [rles[1], rles[3]]
    assert again.embedding[:, 0].tolist() == [2, 6]
    assert again.predicted_iou is not None
    assert again.predicted_iou.tolist() == [1, 1]


def test_a_model_without_the_head_cannot_be_asked_for_iou(tmp_path: Path, detector: DetectorConfig) -> None:
    model = untrained(tmp_path / "model", detector)
    with pytest.raises(SegloopError, match=r"trained without a mask IoU head.*detector\.mask_iou_head: true"):
        load_segmenter(model, device="cpu", threads=1, score="class_times_iou")
    (found,) = load_segmenter(model, device="cpu", threads=1).predict([picture(0)], score=0.1)
    assert found.predicted_iou is None
    assert found.embedding.shape[1] == 64


def test_a_model_older_than_the_head_opens(tmp_path: Path, detector: DetectorConfig) -> None:
    model = untrained(tmp_path / "model", detector)
    (before,) = load_segmenter(model, device="cpu", threads=1).predict([picture(0)], score=0.1)
    description = read_json(model / "model.json")
    del description["detector"]["mask_iou_head"]
    write_json(model / "model.json", description)
    (after,) = load_segmenter(model, device="cpu", threads=1).predict([picture(0)], score=0.1)
    assert np.array_equal(before.embedding, after.embedding)
