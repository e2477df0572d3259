from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from segloop.config import DetectorConfig
from segloop.detection import model_files
from segloop.detection.heads import MaskRCNN
from segloop.detection.scaling import scaled_size
from segloop.detection.segmenter import numerical_settings
from segloop.detection.torchvision_backend import build_model, load_initial_weights, to_batch, to_gpu_batch
from segloop.errors import SegloopError


def target(boxes: list[list[float]], ignored: list[list[float]], side: int = 96) -> dict[str, torch.Tensor]:
    masks = torch.zeros(len(boxes), side, side, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = 1
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "masks": masks,
        "ignored": torch.tensor(ignored).reshape(-1, 4),
    }


def tiny(**changes: object) -> MaskRCNN:
    torch.manual_seed(0)
    return build_model(DetectorConfig(architecture="tiny", embedding_dim=24, **changes), 2)


def test_the_tiny_network_is_tiny() -> None:
    model = build_model(DetectorConfig(architecture="tiny", embedding_dim=256), 6)
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 2e6


@pytest.mark.parametrize("architecture", ["tiny", "r50_fpn", "r101_fpn"])
def test_every_architecture_learns_and_detects(architecture: str) -> None:
    torch.manual_seed(0)
    config = DetectorConfig(architecture=architecture, embedding_dim=24, detections_per_image=5)
    model = build_model(config, 2)
    if architecture != "tiny":
        # Without pretrained batch norms the features of so many random layers would explode.
        for parameter in model.backbone.body.parameters():
            parameter.data *= 0.5
    images = torch.randn(2, 3, 96, 96)
    sizes = [(96, 96), (96, 80)]
    targets = [target([[10, 10, 40, 50]], []), target([], [[0, 0, 50, 50]])]
    losses = model.losses(images, sizes, targets)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    if architecture == "tiny":
        unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert unused == []
    with torch.inference_mode():
        for found, size in zip(model.eval().detect(images, sizes, 0.0), sizes, strict=True):
            assert 0 < len(found["score"]) <= 5
            assert found["embedding"].shape == (len(found["score"]), 24)
            assert found["mask"].shape == (len(found["score"]), 28, 28)
            assert (found["score"].diff() <= 0).all()
            assert (found["label"] >= 1).all()
            assert (found["box"][:, 2] <= size[1]).all()


def test_the_embedding_is_the_vector_that_is_classified() -> None:
    """Feeding a detection's embedding to the predictor gives back its score: row and embedding belong together."""
    model = tiny(detections_per_image=30).eval()
    with torch.inference_mode():
        (found,) = model.detect(torch.randn(1, 3, 96, 96), [(96, 96)], 0.0)
        logits, _ = model.roi_heads.box_predictor(found["embedding"])
    scores = logits.softmax(dim=1)[torch.arange(len(logits)), found["label"]]
    assert len(scores) == 30
    assert scores.unique().numel() > 20
    torch.testing.assert_close(scores, found["score"])


def test_anchors_in_ignored_regions_are_left_out() -> None:
    model = tiny()
    anchors = torch.tensor([[0.0, 0, 20, 20], [60, 60, 80, 80], [10, 10, 40, 50], [0, 40, 40, 80]])
    regions = [[0.0, 0, 30, 30], [0, 0, 90, 55]]
    without, _ = model.rpn.assign_targets_to_anchors([anchors], [target([[10, 10, 40, 50]], [])])
    inside, _ = model.rpn.assign_targets_to_anchors([anchors], [target([[10, 10, 40, 50]], regions)])
    nothing, _ = model.rpn.assign_targets_to_anchors([anchors], [target([], regions)])
    assert without[0].tolist() == [0, 0, 1, 0]
    assert inside[0].tolist() == [-1, 0, 1, 0]
    assert nothing[0].tolist() == [-1, 0, -1, 0]


def test_proposals_in_ignored_regions_are_left_out() -> None:
    model = tiny()
    proposals = torch.tensor([[0.0, 0, 20, 20], [60, 60, 80, 80], [11, 11, 40, 50]])
    region = [[0.0, 0, 50, 55]]
    torch.manual_seed(0)
    chosen, _, labels, _ = model.roi_heads.select_training_samples([proposals], [target([[10, 10, 40, 50]], region)])
    found = {tuple(box): label for box, label in zip(chosen[0].tolist(), labels[0].tolist(), strict=True)}
    # The background beside it, the good proposal although it lies in the region, and the truth itself.
    assert found == {(60, 60, 80, 80): 0, (11, 11, 40, 50): 1, (10, 10, 40, 50): 1}


def test_ignored_regions_silence_the_loss() -> None:
    """With everything ignored and no object there is no negative left, hence no gradient to call it background."""
    model = tiny()
    images = torch.randn(1, 3, 64, 64)
    everything = [target([], [[-500.0, -500, 500, 500]], 64)]
    losses = model.losses(images, [(64, 64)], everything)
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(losses, 0.0)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_an_image_without_objects_or_positives_has_finite_losses() -> None:
    losses = tiny().losses(torch.randn(1, 3, 64, 64), [(64, 64)], [target([], [], 64)])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] == 0


def test_no_proposal_no_detection() -> None:
    model = tiny().eval()
    features = model.backbone(torch.zeros(1, 3, 64, 64))
    (found,) = model.roi_heads.detect(features, [torch.zeros(0, 4)], [(64, 64)], 0.0)
    assert found["box"].shape == (0, 4)
    assert found["embedding"].shape == (0, 24)
    assert len(found["mask"]) == 0


def test_scaled_size_keeps_both_limits() -> None:
    config = DetectorConfig(min_size=800, max_size=1333)
    assert scaled_size(400, 500, config) == (800, 1000)
    assert scaled_size(400, 2000, config) == (267, 1333)
    assert scaled_size(1, 5000, config) == (1, 1333)


def test_a_batch_is_padded_with_the_mean_colour() -> None:
    images = [np.full((30, 20, 3), 255, np.uint8), np.zeros((33, 31, 3), np.uint8)]
    batch = to_batch(images, torch.device("cpu"))
    assert batch.shape == (2, 3, 64, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[0, :, 30:].abs().max() < 1e-6
    assert batch[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)


def test_the_batch_of_a_gpu_holds_the_same_numbers() -> None:
    random = np.random.default_rng(3)
    images = [random.integers(0, 256, shape).astype(np.uint8) for shape in ((30, 20, 3), (33, 31, 3))]
    expected, batch = (make(images, torch.device("cpu")) for make in (to_batch, to_gpu_batch))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch, expected, atol=2e-6, rtol=0)
    assert not batch[0, :, 30:].any()
    assert not batch[0, :, :, 20:].any()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file in the layout of torchvision's published Mask R-CNN, for 4 categories and the background."""
    path = tmp_path_factory.mktemp("weights") / "maskrcnn.pth"
    torch.manual_seed(1)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
    torch.save(model.state_dict(), path)
    return path


def test_published_weights_fit(published: Path) -> None:
    model = build_model(DetectorConfig(architecture="r50_fpn", weights=str(published)), 2)
    load_initial_weights(model, published)
    state, loaded = torch.load(published, weights_only=True), model.state_dict()
    assert torch.equal(loaded["roi_heads.box_head.fc7.weight"], state["roi_heads.box_head.fc7.weight"])
    assert torch.equal(loaded["backbone.body.layer4.2.conv3.weight"], state["backbone.body.layer4.2.conv3.weight"])
    assert loaded["roi_heads.box_predictor.cls_score.weight"].shape == (3, 1024)


def test_a_plain_resnet_fits_the_backbone(published: Path, tmp_path: Path) -> None:
    prefix = "backbone.body."
    body = {
        name.removeprefix(prefix): value
        for name, value in torch.load(published, weights_only=True).items()
        if name.startswith(prefix)
    }
    path = tmp_path / "resnet.pth"
    torch.save({**body, "fc.weight": torch.zeros(2, 2)}, path)
    model = build_model(DetectorConfig(architecture="r50_fpn", weights=str(path)), 2)
    load_initial_weights(model, path)
    assert torch.equal(model.state_dict()["backbone.body.conv1.weight"], body["conv1.weight"])


def test_weights_of_another_architecture_are_refused(published: Path) -> None:
    with pytest.raises(SegloopError, match="another architecture"):
        load_initial_weights(tiny(), published)


def test_unreadable_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="do not exist"):
        model_files.load_state(tmp_path / "none.pt")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    with pytest.raises(SegloopError, match="cannot be read"):
        model_files.load_state(tmp_path / "broken.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(SegloopError, match="state dictionary"):
        model_files.load_state(tmp_path / "list.pt")


def test_the_hash_depends_on_names_and_values_alone() -> None:
    first = {"a": torch.arange(4.0), "b": torch.zeros(2)}
    assert model_files.weights_sha256(first) == model_files.weights_sha256(dict(reversed(first.items())))
    assert model_files.weights_sha256(first) != model_files.weights_sha256({**first, "b": torch.ones(2)})
    assert model_files.weights_sha256(first) != model_files.weights_sha256({**first, "a": torch.arange(4)})


def test_numerical_settings_are_put_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with numerical_settings(torch.device("cpu"), before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
