"""What is detectron2's own; what all backends must do stands in test_contract.py. Without detectron2 all is skipped."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segloop.config import DetectorConfig
from segloop.detection import model_files
from segloop.detection.backends import backend_of
from segloop.detection.segmenter import numerical_settings
from segloop.errors import SegloopError
from segloop.files import write_json

CPU = torch.device("cpu")
ZOO = "COCO-InstanceSegmentation"
CASCADE = {
    "ROI_HEADS.NAME": "CascadeROIHeads",
    "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "RPN.POST_NMS_TOPK_TEST": 50,
}
C4 = {
    "BACKBONE.NAME": "build_resnet_backbone",
    "RESNETS.OUT_FEATURES": ["res4"],
    "ANCHOR_GENERATOR.SIZES": [[8, 16, 32, 64]],
    "RPN.IN_FEATURES": ["res4"],
    "ROI_HEADS.NAME": "Res5ROIHeads",
    "ROI_HEADS.IN_FEATURES": ["res4"],
    "ROI_MASK_HEAD.NUM_CONV": 0,
}
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "fpn": ({}, 32),
    "class-agnostic": ({"ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True, "ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True}, 32),
    "cascade": (CASCADE, 32),
    "c4": (C4, 256),
}
Small = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with numerical_settings(CPU, 1):
        yield


@pytest.fixture
def build(small_detectron2: Small, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that builds a small network with changes of its configuration (MODEL) and of `detector`."""

    def make(changes: dict[str, Any] | None = None, categories: int = 3, **detector: Any) -> Any:
        path = small_detectron2(tmp_path / "small.yaml", changes)
        settings = {"embedding_dim": 32, "min_size": 96, "max_size": 96} | detector
        config = DetectorConfig(backend="detectron2", configuration=str(path), **settings)
        torch.manual_seed(3)
        return backend_of("detectron2").build_model(config, categories)

    return make


def pixels(count: int = 1) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (70, 96, 3)).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_it_detects_what_detectron2_itself_detects(build: Callable[..., Any], kind: str) -> None:
    changes, width = KINDS[kind]
    network = build(changes, embedding_dim=width).eval()
    predictors = network.roi_heads.box_predictor
    for predictor in predictors if kind == "cascade" else [predictors]:
        predictor.test_score_thresh = 0.1
        # Differences between the classes, as training makes them.
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.3)
        torch.nn.init.normal_(predictor.bbox_pred.weight, std=0.05)
    (image,) = pixels()
    with torch.inference_mode():
        (found,) = network.detect(backend_of("detectron2").to_batch([image], CPU), [(70, 96)], 0.1)
        blue_first = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))
        (own,) = network.inference([{"image": blue_first}], do_postprocess=False)
    assert len(own) > 3
    assert torch.equal(found["label"], own.pred_classes + 1)
    assert torch.allclose(found["score"], own.scores, atol=1e-6)
    assert torch.allclose(found["box"], own.pred_boxes.tensor, atol=1e-3)
    assert torch.allclose(found["mask"], own.pred_masks[:, 0], atol=1e-4)
    assert found["embedding"].shape == (len(own), width)


def test_the_embedding_of_a_cascade_is_that_of_its_last_stage(build: Callable[..., Any]) -> None:
    network = build(CASCADE).eval()
    seen: list[torch.Tensor] = []
    hook = network.roi_heads.box_predictor[-1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.inference_mode():
        (found,) = network.detect(backend_of("detectron2").to_batch(pixels(), CPU), [(70, 96)], 0.0)
    hook.remove()
    (vectors,) = seen
    assert len(found["embedding"]) > 10
    assert (found["embedding"][:, None] == vectors[None]).all(dim=2).any(dim=1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_describes_what_lies_below_a_mask(build: Callable[..., Any], kind: str) -> None:
    changes, width = KINDS[kind]
    config = DetectorConfig(backend="detectron2", embedding_dim=width)
    network = build(changes, embedding_dim=width).eval()
    weights = set(network.state_dict())
    backend_of("detectron2").add_mask_weighted(network, config)
    with torch.inference_mode():
        (found,) = network.detect(backend_of("detectron2").to_batch(pixels(), CPU), [(70, 96)], 0.0)
        (none,) = network.detect(backend_of("detectron2").to_batch(pixels(), CPU), [(70, 96)], 1.0)
    assert found["mask_weighted"].shape == (len(found["box"]), 512) and len(found["box"]) > 3
    assert bool(found["mask_weighted"].abs().sum(dim=1).gt(0).all())
    assert none["mask_weighted"].shape == (0, 512)
    assert set(network.state_dict()) == weights


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns(build: Callable[..., Any], kind: str) -> None:
    changes, width = KINDS[kind]
    network = build(changes, embedding_dim=width).train()
    mask = torch.zeros(1, 70, 96, dtype=torch.uint8)
    mask[:, 10:40, 20:60] = 1
    known = {
        "boxes": torch.tensor([[20.0, 10.0, 60.0, 40.0]]),
        "labels": torch.tensor([2]),
        "masks": mask,
        "ignored": torch.tensor([[0.0, 40.0, 96.0, 70.0]]),
    }
    batch = backend_of("detectron2").to_batch(pixels(2), CPU)
    losses = network.losses(batch, [(70, 96)] * 2, [known, known])
    assert sorted(losses) == ["loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]
    sum(losses.values()).backward()
    trainable = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    assert trainable == []


def test_anchors_in_ignored_regions_are_left_out_before_they_are_drawn(build: Callable[..., Any]) -> None:
    from detectron2.structures import Boxes

    from segloop.detection.detectron2_backend import Truth

    network = build({"RPN.BATCH_SIZE_PER_IMAGE": 1000})
    places = torch.tensor([[0.0, 0.0, 10.0, 10.0], [40.0, 40.0, 60.0, 60.0], [41.0, 41.0, 59.0, 59.0]])
    truth = Truth(
        (70, 96),
        torch.tensor([[0.0, 0.0, 10.0, 5.0]]),
        gt_boxes=Boxes(torch.tensor([[40.0, 40.0, 60.0, 60.0]])),
    )
    (labels,), _ = network.proposal_generator.label_and_sample_anchors([Boxes(places)], [truth])
    assert labels.tolist() == [-1, 1, 1]
    nothing = Truth((70, 96), torch.zeros(0, 4), gt_boxes=Boxes(torch.zeros(0, 4)))
    (labels,), _ = network.proposal_generator.label_and_sample_anchors([Boxes(places)], [nothing])
    assert labels.tolist() == [0, 0, 0]


def test_the_keys_of_the_section_detector_go_first(build: Callable[..., Any]) -> None:
    network = build(embedding_dim=48, nms=0.3, detections_per_image=7, categories=5)
    assert network.roi_heads.num_classes == 5
    assert network.roi_heads.box_predictor.cls_score.weight.shape == (6, 48)
    with torch.inference_mode():
        (found,) = network.eval().detect(backend_of("detectron2").to_batch(pixels(), CPU), [(70, 96)], 0.0)
    assert len(found["score"]) == 7
    # Random first stages must learn; pretrained ones stay as they are.
    assert all(one.requires_grad for one in network.backbone.parameters())
    frozen = build(weights="some.pkl")
    assert not any(one.requires_grad for one in frozen.backbone.bottom_up.stem.parameters())


@pytest.mark.usefixtures("small_detectron2")
def test_the_thesis_model_from_the_model_zoo() -> None:
    network = backend_of("detectron2").build_model(DetectorConfig(backend="detectron2"), 100)
    assert len(network.backbone.bottom_up.res4) == 23
    assert network.roi_heads.box_head.fc2.weight.shape == (1024, 1024)
    assert network.roi_heads.mask_head.predictor.weight.shape[0] == 100
    assert "proposal_generator.anchor_generator.cell_anchors.0" not in network.state_dict()


@pytest.mark.usefixtures("small_detectron2")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", "keypoints"),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", "PanopticFPN"),
        ("Misc/semantic_R_50_FPN_1x.yaml", "SemanticSegmentor"),
        ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", "RetinaNet"),
        ("COCO-Detection/rpn_R_50_FPN_1x.yaml", "ProposalNetwork"),
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "boxes without masks"),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", "without masks|proposals come from"),
    ],
)
def test_configurations_of_other_tasks_are_refused(name: str, reason: str) -> None:
    with pytest.raises(SegloopError, match=reason) as error:
        backend_of("detectron2").build_model(DetectorConfig(backend="detectron2", configuration=name), 2)
    assert name in str(error.value)


def test_configurations_that_cannot_be_used(build: Callable[..., Any], tmp_path: Path) -> None:
    def of(name: str) -> None:
        backend_of("detectron2").build_model(DetectorConfig(backend="detectron2", configuration=name), 2)

    with pytest.raises(SegloopError, match=r"neither a file in .* nor a configuration"):
        of(f"{ZOO}/mask_rcnn_R_5_FPN_3x.yaml")
    with pytest.raises(SegloopError, match="Python programs are not read"):
        of(f"{ZOO}/mask_rcnn_R_50_FPN_1x.py")
    with pytest.raises(SegloopError, match=r"small\.yaml cannot be read .*NO_SUCH_KEY"):
        build({"NO_SUCH_KEY": 1})
    (tmp_path / "unsafe.yaml").write_text("MODEL: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(SegloopError, match=r"unsafe\.yaml cannot be read"):
        of(str(tmp_path / "unsafe.yaml"))
    with pytest.raises(SegloopError, match="embedding_dim: 256"):
        build(C4, embedding_dim=1024)


def arrays(network: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def write_pickle(path: Path, content: dict[str, Any]) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def test_weights_of_its_model_zoo(build: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, network = build(categories=4), build(categories=2)
    with torch.no_grad():
        for one in source.parameters():
            one.add_(1)
    older = {"pixel_mean": np.zeros((3, 1, 1), np.float32)}
    older["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    content = {"model": {**arrays(source), **older}, "__author__": "Detectron2 Model Zoo"}
    path = write_pickle(tmp_path / "model_final.pkl", content)
    backend_of("detectron2").load_initial_weights(network, path)
    assert len([one for one in caplog.records if "another number of categories" in one.message]) == 1
    state, loaded = source.state_dict(), network.state_dict()
    same = [name for name in state if "predictor" not in name]
    assert all(torch.equal(loaded[name], state[name]) for name in same)
    torch.save({"model": state, "iteration": 3}, tmp_path / "model_final.pth")
    again = build(categories=4)
    backend_of("detectron2").load_initial_weights(again, tmp_path / "model_final.pth")
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_a_classifier_of_imagenet_under_the_names_of_caffe2(
    build: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = build({"RESNETS.NORM": "FrozenBN", "FPN.NORM": ""})
    names = {name: value for name, value in network.state_dict().items() if name.startswith("backbone.bottom_up.")}
    content: dict[str, np.ndarray] = {"pred_w": np.zeros((1000, 256), np.float32), "conv1_w_momentum": np.zeros(1)}
    for name, value in names.items():
        if not name.endswith(("running_mean", "running_var")):
            content[caffe2(name)] = np.full(value.shape, len(content) / 100, np.float32)
    path = write_pickle(tmp_path / "R-50.pkl", content)
    backend_of("detectron2").load_initial_weights(network, path)
    state = network.state_dict()
    place = "backbone.bottom_up.res3.0.conv2.weight"
    assert caffe2(place) == "res3_0_branch2b_w"
    assert torch.equal(state[place], torch.from_numpy(content["res3_0_branch2b_w"]))
    assert "left random" not in caplog.text
    del content["res3_0_branch2b_w"]
    with pytest.raises(SegloopError, match="another architecture: 1 parameters are missing"):
        backend_of("detectron2").load_initial_weights(network, write_pickle(tmp_path / "part.pkl", content))


def caffe2(name: str) -> str:
    """Return the name that Caffe2's ResNets have for a parameter of the backbone."""
    parts = name.removeprefix("backbone.bottom_up.").split(".")
    kind = {"weight": "s" if "norm" in parts else "w", "bias": "b"}[parts[-1]]
    suffix = f"_bn_{kind}" if "norm" in parts else f"_{kind}"
    if parts[0] == "stem":
        return f"res_conv1{suffix}" if "norm" in parts else f"conv1{suffix}"
    branch = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}[parts[2]]
    return f"{parts[0]}_{parts[1]}_{branch}{suffix}"


def test_weights_of_another_architecture(build: Callable[..., Any], tmp_path: Path) -> None:
    path = write_pickle(
        tmp_path / "other.pkl", {"model": arrays(build({"FPN.OUT_CHANNELS": 64})), "__author__": "somebody"}
    )
    with pytest.raises(SegloopError, match=r"other\.pkl belongs to another architecture: size mismatch"):
        backend_of("detectron2").load_initial_weights(build(), path)


@pytest.mark.usefixtures("small_detectron2")
def test_a_model_does_not_need_its_yaml_file_again(build: Callable[..., Any], tmp_path: Path) -> None:
    backend = backend_of("detectron2")
    network = build(detections_per_image=30)
    config = DetectorConfig(
        backend="detectron2",
        configuration=str(tmp_path / "small.yaml"),
        embedding_dim=32,
        detections_per_image=30,
    )
    description = {
        "schema_version": model_files.SCHEMA_VERSION,
        "detector": config.model_dump(mode="json"),
        "categories": [{"id": number} for number in (1, 2, 3)],
        **backend.facts_of(network),
    }
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    write_json(
        tmp_path / "model.json", description | {"weights_sha256": model_files.weights_sha256(network.state_dict())}
    )
    (tmp_path / "small.yaml").unlink()
    again, _, _ = backend.load_model(tmp_path)
    batch = backend.to_batch(pixels(), CPU)
    with torch.inference_mode():
        (one,), (other,) = (each.eval().detect(batch, [(70, 96)], 0.0) for each in (network, again))
    assert len(one["score"]) == 30
    assert all(torch.equal(one[name], other[name]) for name in one)
