"""What the rest of the loop expects of every backend."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from segloop.config import DetectorConfig, PredictionConfig, TrainingClusterConfig, TrainingConfig
from segloop.data import masks
from segloop.data.images import open_image
from segloop.detection import model_files
from segloop.detection import training as training_module
from segloop.detection.backends import Backend, backend_of
from segloop.detection.evaluation import evaluate_detector
from segloop.detection.launching import launch_training
from segloop.detection.prediction import predict_shard
from segloop.detection.segmenter import Detections, Segmenter, load_segmenter, numerical_settings
from segloop.detection.training import LOSSES, train_detector
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.store.predictions import PredictionShard

from .conftest import SIDE, Case, make_dataset, square

CPU = torch.device("cpu")


@pytest.fixture
def segmenter(case: Case) -> Segmenter:
    return load_segmenter(case.model, device="cpu", threads=1)


@pytest.fixture
def images(case: Case) -> list[np.ndarray]:
    return [np.asarray(Image.open(image["file_name"])) for image in read_json(case.training_set)["images"]]


@pytest.fixture
def one_thread() -> Iterator[None]:
    with numerical_settings(CPU, 1):
        yield


def same(one: Detections, other: Detections) -> bool:
    arrays = [
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("score", "category", "box", "embedding")
    ]
    return all(arrays) and one.masks == other.masks


def check(found: Detections, height: int, width: int, most: int) -> None:
    count = len(found)
    assert count <= most
    assert [found.score.dtype, found.box.dtype, found.embedding.dtype] == [np.float32] * 3
    assert found.category.dtype == np.int32
    assert found.score.shape == found.category.shape == (count,)
    assert found.box.shape == (count, 4)
    assert found.embedding.shape == (count, 64)
    assert np.isfinite(found.embedding).all()
    assert (np.diff(found.score) <= 0).all()
    assert set(found.category.tolist()) <= {3, 7}
    assert (found.box >= 0).all()
    assert (found.box <= [width, height, width, height]).all()
    assert len(found.masks) == count
    assert all(masks.check(masks.to_json(rle), (height, width)) == rle for rle in found.masks)
    assert all(masks.area(found.masks) > 0) if count else True


# --- what is found ----------------------------------------------------------------------------------------------------


def test_it_finds_what_it_has_learned(case: Case, segmenter: Segmenter, images: list[np.ndarray]) -> None:
    truth = [one for one in read_json(case.training_set)["annotations"] if one["image_id"] == 1]
    (found,) = segmenter.predict([images[0]], score=0.3)
    for one in truth:
        rows = np.flatnonzero(found.category == one["category_id"])
        expected = masks.from_json(one["segmentation"])
        assert masks.iou([found.masks[row] for row in rows], [expected]).max() > 0.5


def test_shapes_types_and_order(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    assert segmenter.embedding_dim == 64
    assert [category["id"] for category in segmenter.categories] == [3, 7]
    (found,) = segmenter.predict([images[0][:50, :60]], score=0.0)
    assert len(found) > 2
    check(found, 50, 60, 20)
    (few,) = segmenter.predict([images[0][:50, :60]], score=float(found.score[1]))
    assert few.score.tolist() == found.score[found.score > found.score[1]].tolist()


def test_the_same_twice_and_in_a_new_process_memory(case: Case, segmenter: Segmenter, images: list[np.ndarray]) -> None:
    again = load_segmenter(case.model, device="cpu", threads=1)
    for one, two, other in zip(
        segmenter.predict(images, score=0.1),
        segmenter.predict(images, score=0.1),
        again.predict(images, score=0.1),
        strict=True,
    ):
        assert same(one, two)
        assert same(one, other)


def test_an_image_does_not_depend_on_its_neighbours(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    mixed = [images[0], images[1], images[2][:40], images[3][:, :33]]
    together = segmenter.predict(mixed, score=0.1)
    assert sum(map(len, together)) > 4
    for one, image in zip(together, mixed, strict=True):
        (alone,) = segmenter.predict([image], score=0.1)
        assert len(one) == len(alone)
        assert np.allclose(one.score, alone.score, atol=1e-4)
        assert np.allclose(one.box, alone.box, atol=1e-2)
        assert np.allclose(one.embedding, alone.embedding, atol=1e-3)


def test_no_images_and_images_without_anything(segmenter: Segmenter) -> None:
    assert segmenter.predict([], score=0.5) == []
    for height, width in ((32, 32), (64, 64), (1, 1), (1, 200), (200, 1), (3, 2)):
        blank = np.full((height, width, 3), 120, np.uint8)
        (none,) = segmenter.predict([blank], score=1.0)
        assert len(none) == len(none.masks) == 0
        assert none.embedding.shape == (0, 64)
        (some,) = segmenter.predict([blank], score=0.0)
        check(some, height, width, 20)


def test_huge_images(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    huge = np.asarray(Image.fromarray(images[0]).resize((2400, 2400), Image.Resampling.NEAREST))
    (found,), (small,) = segmenter.predict([huge], score=0.3), segmenter.predict([images[0]], score=0.3)
    check(found, 2400, 2400, 20)
    assert found.category[0] == small.category[0]
    grown = np.asarray(Image.fromarray(masks.decode(small.masks[0]).astype(np.uint8)).resize((2400, 2400)))
    assert masks.iou([masks.encode(grown > 0)], [found.masks[0]])[0, 0] > 0.7
    panorama = np.tile(images[0], (1, 60, 1))
    (wide,) = segmenter.predict([panorama], score=0.0)
    check(wide, SIDE, 60 * SIDE, 20)


# --- the embedding ----------------------------------------------------------------------------------------------------


def last_layers(network: Any) -> tuple[nn.Linear, nn.Linear]:
    predictor = network.roi_heads.box_predictor
    return predictor.cls_score, predictor.bbox_pred


def decode(delta: np.ndarray, proposal: np.ndarray) -> np.ndarray:
    """Return the box of a regression (Girshick et al., R-CNN, appendix C), with the weights 10, 10, 5, 5."""
    size = proposal[2:] - proposal[:2]
    centre = proposal[:2] + size / 2 + delta[:2] / 10 * size
    size = size * np.exp(np.minimum(delta[2:] / 5, np.log(1000 / 16)))
    return np.concatenate((centre - size / 2, centre + size / 2))


def recomputed(case: Case, image: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the network, its proposals for an image, and what the box head makes of each of them, one by one."""
    backend = backend_of(case.backend)
    network, _, _ = backend.load_model(case.model)
    network.eval()
    seen: dict[str, Any] = {}
    detectron2 = case.backend == "detectron2"
    proposer = network.proposal_generator if detectron2 else network.rpn
    hooks = [
        network.backbone.register_forward_hook(lambda module, given, made: seen.update(features=made)),
        proposer.register_forward_hook(lambda module, given, made: seen.update(proposals=made[0][0])),
    ]
    heads = network.roi_heads
    with torch.inference_mode():
        network.detect(backend.to_batch([image], CPU), [image.shape[:2]], 0.0)
        for hook in hooks:
            hook.remove()
        if detectron2:
            boxes = seen["proposals"].proposal_boxes
            levels = [seen["features"][name] for name in heads.in_features]
            vectors = [heads.box_head(heads.box_pooler(levels, [boxes[row]])) for row in range(len(boxes))]
            proposals = boxes.tensor
        else:
            proposals = seen["proposals"]
            vectors = [
                heads.box_head(heads.box_roi_pool(seen["features"], [proposals[row : row + 1]]))
                for row in range(len(proposals))
            ]
    return network, proposals.numpy(), torch.cat(vectors).numpy()


@pytest.mark.usefixtures("one_thread")
def test_an_embedding_is_the_activation_for_the_box_that_was_kept(
    case: Case, segmenter: Segmenter, images: list[np.ndarray]
) -> None:
    """Class and box of a detection follow from its embedding and the proposal that this is the activation of."""
    network, proposals, vectors = recomputed(case, images[0])
    (found,) = segmenter.predict([images[0]], score=0.05)
    assert len(found) > 2
    classes, boxes = last_layers(network)
    embedding = torch.from_numpy(found.embedding)
    with torch.inference_mode():
        probability = classes(embedding).softmax(dim=1).numpy()
        deltas = boxes(embedding).reshape(len(found), -1, 4).numpy()
    label = np.searchsorted([3, 7], found.category)
    # torchvision's background is the first class, detectron2's the last; torchvision regresses it, too.
    column = label if case.backend == "detectron2" else label + 1
    rows = np.arange(len(found))
    assert np.allclose(probability[rows, column], found.score, atol=1e-5)
    distance = np.abs(vectors[None] - found.embedding[:, None]).max(axis=2)
    source = distance.argmin(axis=1)
    assert distance[rows, source].max() < 1e-3
    for row in rows:
        box = np.clip(decode(deltas[row, column[row]], proposals[source[row]]), 0, SIDE)
        assert np.allclose(box, found.box[row], atol=1e-2)


# --- files and stores -------------------------------------------------------------------------------------------------


def test_what_lies_below_a_mask_is_described_beside_the_heads(
    case: Case, segmenter: Segmenter, images: list[np.ndarray]
) -> None:
    """The embedding `mask_weighted` follows that of the head, and changes nothing else."""
    describing = load_segmenter(case.model, device="cpu", threads=1, embeddings=["mask_weighted"])
    assert describing.embedding_parts == {"box_head": 64, "mask_weighted": 512}
    (found,), (plain,) = (one.predict([images[0]], score=0.1) for one in (describing, segmenter))
    assert len(found) > 1 and found.embedding.shape == (len(found), 576)
    assert np.array_equal(found.embedding[:, :64], plain.embedding) and found.masks == plain.masks
    described = found.embedding[:, 64:]
    assert np.isfinite(described).all() and described.any(axis=1).all()
    assert not np.allclose(described[0], described[1])
    (none,) = describing.predict([images[0]], score=1.0)
    assert none.embedding.shape == (0, 576)


def test_greyscale_and_cmyk_files(segmenter: Segmenter, images: list[np.ndarray], tmp_path: Path) -> None:
    grey = Image.fromarray(images[0]).convert("L")
    grey.save(tmp_path / "grey.png")
    Image.fromarray(images[0]).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    (expected,) = segmenter.predict([np.asarray(grey.convert("RGB"))], score=0.3)
    (found,) = segmenter.predict([open_image(tmp_path / "grey.png")], score=0.3)
    assert len(found) > 0
    assert same(found, expected)
    (printed,), (original,) = (
        segmenter.predict([image], score=0.3) for image in (open_image(tmp_path / "cmyk.jpg"), images[0])
    )
    assert printed.category[:2].tolist() == original.category[:2].tolist()
    assert masks.iou(printed.masks[:1], original.masks[:1])[0, 0] > 0.7


def test_ids_and_rows_of_a_shard(case: Case, segmenter: Segmenter, images: list[np.ndarray], tmp_path: Path) -> None:
    files = [image["file_name"] for image in read_json(case.training_set)["images"]]
    columns = {
        "image_id": pa.array([10, 20, 30, 40], pa.int64()),
        "file_name": pa.array(files, pa.string()),
        "width": pa.array([0] * 4, pa.int32()),
        "height": pa.array([0] * 4, pa.int32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "shard.parquet")
    predict_shard(
        models={"detector": case.model},
        images=tmp_path / "shard.parquet",
        shard=5,
        iteration=2,
        output=tmp_path / "5.zarr",
        skipped=tmp_path / "5.skipped.json",
        prediction=PredictionConfig(store_score=0.2, batch_size=3),
        device="cpu",
        max_skipped=0.0,
    )
    shard = PredictionShard.open(tmp_path / "5.zarr")
    assert shard.model_sha256 == model_files.read_description(case.model)["weights_sha256"]
    assert shard.prediction.tolist() == [(2 << 56) + (5 << 32) + row for row in range(len(shard))]
    for number, image in enumerate(images):
        rows = np.flatnonzero(shard.image_id == 10 * (number + 1))
        (found,) = segmenter.predict([image], score=0.2)
        assert shard.category[rows].tolist() == found.category.tolist()
        assert np.allclose(shard.embeddings(rows), found.embedding, atol=0.02, rtol=0.01)


def test_average_precision_is_that_of_pycocotools(case: Case, tmp_path: Path) -> None:
    evaluate_detector(
        model=case.model,
        validation_set=case.training_set,
        output=tmp_path / "evaluation.json",
        results=tmp_path / "results.json",
        prediction=PredictionConfig(),
        device="cpu",
        max_skipped=0.0,
    )
    ours = read_json(tmp_path / "evaluation.json")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(case.training_set))
        theirs = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert ours["ap"] > 0.2
    assert ours["ap"] == pytest.approx(theirs.stats[0], abs=1e-6)
    assert ours["ap50"] == pytest.approx(theirs.stats[1], abs=1e-6)
    assert ours["ap75"] == pytest.approx(theirs.stats[2], abs=1e-6)


# --- training ---------------------------------------------------------------------------------------------------------

Train = Callable[..., Path]


@pytest.fixture
def train(case: Case, training: TrainingConfig, tmp_path: Path) -> Train:
    """Return a function that trains a few steps into a named folder, with changes."""

    def run(name: str, **changes: Any) -> Path:
        arguments: dict[str, Any] = {
            "training_set": case.training_set,
            "previous_model": None,
            "output": tmp_path / name,
            "checkpoints": tmp_path / f"{name}.checkpoints",
            "detector": case.detector,
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


def test_the_same_seed_gives_the_same_weights_killed_or_not(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = train("undisturbed")
    real_step, steps = training_module._step, []

    def step(*arguments: Any) -> list[float]:
        steps.append(arguments[-1])
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
        assert not (tmp_path / "killed").exists()
        resumed = train("killed")
    assert steps[4] == 2
    assert sha256(resumed) == sha256(undisturbed)
    assert (resumed / "losses.csv").read_bytes() == (undisturbed / "losses.csv").read_bytes()
    assert sha256(train("other", seed=1)) != sha256(undisturbed)


def test_two_processes_train_together(case: Case, training: TrainingConfig, tmp_path: Path) -> None:
    launch_training(
        settings=TrainingConfig(
            launcher="submitit",
            cluster=TrainingClusterConfig(kind="local", tasks_per_node=2, timeout_minutes=5, signal_delay=60),
        ),
        name="train_together",
        folder=tmp_path / "logs",
        output=tmp_path / "model",
        checkpoints=tmp_path / "checkpoints" / "model",
        training_set=case.training_set,
        previous_model=None,
        detector=case.detector,
        training=training,
        iteration=0,
        seed=0,
        device="cpu",
        max_skipped=0.0,
    )
    description = read_json(tmp_path / "model" / "model.json")
    assert (description["ranks"], description["steps"]) == (2, 4)
    assert load_segmenter(tmp_path / "model", device="cpu", threads=1).embedding_dim == 64


def test_the_description_of_a_model(case: Case) -> None:
    description = read_json(case.model / "model.json")
    assert description["backend"] == case.backend
    assert description["embedding_dim"] == 64
    assert (description["images"], description["instances"]) == (4, 8)
    losses = [line.split(",") for line in (case.model / "losses.csv").read_text().splitlines()]
    assert losses[0] == ["step", "learning_rate", "loss", *LOSSES]
    totals = [float(line[2]) for line in losses[1:]]
    assert sum(totals[-10:]) < 0.6 * sum(totals[:10])


def test_a_model_goes_on_from_another_of_the_same_categories(
    case: Case, train: Train, training: TrainingConfig, tmp_path: Path
) -> None:
    still = training.model_copy(update={"finetune_learning_rate": 1e-12})
    before = model_files.read_weights(case.model)
    after = model_files.read_weights(train("next", previous_model=case.model, iteration=1, training=still))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    dataset = read_json(case.training_set)
    dataset["categories"][1]["name"] = "other"
    write_json(tmp_path / "renamed.json", dataset)
    with pytest.raises(SegloopError, match="other categories"):
        train("third", previous_model=case.model, training_set=tmp_path / "renamed.json")
    with pytest.raises(SegloopError, match="another detector"):
        train("wide", previous_model=case.model, detector=case.detector.model_copy(update={"embedding_dim": 32}))


def test_weights_of_another_number_of_categories(
    case: Case, train: Train, training: TrainingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = read_json(case.training_set)
    dataset["categories"].append({"id": 9, "name": "third"})
    write_json(tmp_path / "three.json", dataset)
    started = case.detector.model_copy(update={"weights": str(case.model / "weights.pt")})
    still = training.model_copy(update={"learning_rate": 1e-12})
    model = train("three", training_set=tmp_path / "three.json", detector=started, training=still)
    warnings = [record for record in caplog.records if "another number of categories" in record.message]
    assert len(warnings) == 1
    assert "box_predictor.cls_score.weight" in warnings[0].message
    before, after = model_files.read_weights(case.model), model_files.read_weights(model)
    assert before["roi_heads.box_predictor.cls_score.weight"].shape == (3, 64)
    assert after["roi_heads.box_predictor.cls_score.weight"].shape == (4, 64)
    unchanged = [name for name in before if "predictor" not in name and "mask_fcn_logits" not in name]
    assert len(unchanged) > 20
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in unchanged)


def test_weights_of_another_architecture_are_refused(case: Case, train: Train, tmp_path: Path) -> None:
    state = model_files.read_weights(case.model)
    for name in [name for name in state if name.startswith("backbone.")][:3]:
        del state[name]
    torch.save(state, tmp_path / "other.pth")
    started = case.detector.model_copy(update={"weights": str(tmp_path / "other.pth")})
    with pytest.raises(SegloopError, match="another architecture: 3 parameters are missing"):
        train("model", detector=started)
    wider = case.detector.model_copy(update={"weights": str(case.model / "weights.pt"), "embedding_dim": 32})
    with pytest.raises(SegloopError, match="another architecture"):
        train("wide", detector=wider)


def test_a_loss_that_is_not_finite_stops_with_all_losses(train: Train, training: TrainingConfig) -> None:
    wild = training.model_copy(update={"learning_rate": 1e30, "optimiser": "sgd", "warmup_steps": 0})
    with pytest.raises(SegloopError, match=r"not finite.*loss_objectness.*loss_mask.*learning_rate"):
        train("model", training=wild)


def target(boxes: list[list[float]], ignored: list[list[float]]) -> dict[str, Tensor]:
    shown = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(shown, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = 1
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "masks": shown,
        "ignored": torch.tensor(ignored).reshape(-1, 4),
    }


def losses_of(case: Case, images: list[np.ndarray], targets: list[dict[str, Tensor]]) -> tuple[Any, dict[str, Tensor]]:
    backend: Backend = backend_of(case.backend)
    network, _, _ = backend.load_model(case.model)
    network.train()
    torch.manual_seed(0)
    batch = backend.to_batch(images[: len(targets)], CPU)
    return network, network.losses(batch, [(SIDE, SIDE)] * len(targets), targets)


@pytest.mark.usefixtures("one_thread")
def test_zero_positives_in_a_batch(case: Case, images: list[np.ndarray]) -> None:
    network, losses = losses_of(case, images, [target([], []), target([], [])])
    assert set(losses) == set(LOSSES)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] == 0
    assert losses["loss_classifier"] > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(one.grad).all() for one in network.parameters() if one.grad is not None)


@pytest.mark.usefixtures("one_thread")
def test_nothing_is_learned_where_all_is_ignored(case: Case, images: list[np.ndarray]) -> None:
    everything = [[-500.0, -500.0, 500.0, 500.0]]
    network, losses = losses_of(case, images, [target([], everything), target([], everything)])
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(LOSSES, 0.0)
    sum(losses.values()).backward()
    assert all(not one.grad.any() for one in network.parameters() if one.grad is not None)


@pytest.mark.usefixtures("one_thread")
def test_objects_in_ignored_regions_are_still_learned(case: Case, images: list[np.ndarray]) -> None:
    everything = [[-500.0, -500.0, 500.0, 500.0]]
    _, losses = losses_of(case, images, [target([[8.0, 8.0, 30.0, 30.0]], everything)])
    assert all(loss.item() > 0 for loss in losses.values())
    # But not that what is around them is none.
    _, free = losses_of(case, images, [target([[8.0, 8.0, 30.0, 30.0]], [])])
    assert losses["loss_objectness"].item() != free["loss_objectness"].item()
    assert losses["loss_classifier"].item() != free["loss_classifier"].item()


def test_one_pixel_objects_and_images_without_any(
    case: Case, train: Train, annotate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "images")
    dataset["annotations"] = [one for one in dataset["annotations"] if one["image_id"] != 2]
    dataset["annotations"].append(annotate(100, 1, 3, square(30, 30, 1)))
    dataset["annotations"].append(annotate(101, 3, 7, square(0, 0, SIDE), crowd=1))
    write_json(tmp_path / "train.json", dataset)
    description = read_json(train("model", training_set=tmp_path / "train.json") / "model.json")
    assert (description["instances"], description["ignored_regions"]) == (7, 1)


def test_three_hundred_detections(case: Case, train: Train, training: TrainingConfig, tmp_path: Path) -> None:
    # No two boxes are duplicates, so that only the limit is left.
    many = case.detector.model_copy(update={"detections_per_image": 300, "nms": 1.0, "min_size": 96, "max_size": 96})
    model = train("many", detector=DetectorConfig.model_validate(many.model_dump()))
    (found,) = load_segmenter(model, device="cpu", threads=1).predict(
        [np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)], score=0.0
    )
    check(found, 96, 96, 300)
    assert len(found) > 250


def test_a_model_directory_that_is_not_whole_is_refused(case: Case, tmp_path: Path) -> None:
    description = read_json(case.model / "model.json")
    write_json(tmp_path / "model.json", description)
    with pytest.raises(SegloopError, match=r"weights\.pt do not exist"):
        load_segmenter(tmp_path, device="cpu", threads=1)
    state = model_files.read_weights(case.model)
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(7, 64)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(SegloopError, match=r"weights\.pt is damaged: its weights have not the SHA-256"):
        load_segmenter(tmp_path, device="cpu", threads=1)
    write_json(tmp_path / "model.json", description | {"weights_sha256": model_files.weights_sha256(state)})
    with pytest.raises(SegloopError, match="do not fit"):
        load_segmenter(tmp_path, device="cpu", threads=1)
