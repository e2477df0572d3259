"""Several detectors in one store, and what stands on it: index, embeddings, provenance, agreement."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segloop.clustering.embeddings import ShardSource
from segloop.collection.index import index_predictions
from segloop.config import DetectorConfig, DistillationConfig, PredictionConfig
from segloop.detection import model_files
from segloop.detection.agreement import measure_agreement
from segloop.detection.prediction import predict_shard
from segloop.detection.segmenter import load_segmenter
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.ids import prediction_ids
from segloop.store.index import read_index, read_index_attributes
from segloop.store.predictions import PredictionShard, drop_low_scores

from .conftest import SIDE, squares_detector, train_squares
from .test_prediction import write_shard

SCORE = 0.2


@pytest.fixture(scope="session")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a second model: narrower embeddings, and a mask IoU head."""
    folder = tmp_path_factory.mktemp("judging")
    detector = DetectorConfig(
        architecture="tiny",
        embedding_dim=24,
        mask_iou_head=True,
        min_size=SIDE,
        max_size=SIDE,
        detections_per_image=20,
    )
    return train_squares(folder, detector, steps=70)[0]


@pytest.fixture
def files(trained: tuple[Path, Path], tmp_path: Path) -> list[Path]:
    Image.fromarray(np.full((40, 64, 3), 120, np.uint8)).save(tmp_path / "blank.png")
    known = [Path(image["file_name"]) for image in read_json(trained[1])["images"]]
    return [known[0], tmp_path / "blank.png", known[1], known[2]]


def predict(models: dict[str, Path], files: list[Path], folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"device": "cpu", "max_skipped": 0.5, "duplicates_iou": 0.8}
    prediction = PredictionConfig(store_score=SCORE, **changes)
    predict_shard(
        models=models,
        images=write_shard(folder / "shard.parquet", files),
        shard=0,
        iteration=1,
        output=folder / "0.zarr",
        skipped=folder / "0.skipped.json",
        prediction=prediction,
        **settings,
    )
    return folder / "0.zarr"


def index_of(store: Path) -> Path:
    output = store.with_name("index.zarr")
    index_predictions(
        predictions=[store],
        earlier=[],
        earlier_verdicts=[],
        output=output,
        score=0.3,
        duplicates_iou=0.8,
        iteration=1,
    )
    return output


def test_each_prediction_names_its_detector(
    trained: tuple[Path, Path], judging: Path, files: list[Path], tmp_path: Path
) -> None:
    """Rows of each detector are what it finds alone, with the ids of their rows; nothing is shown twice."""
    models = {"plain": trained[0], "judging": judging}
    shard = PredictionShard.open(predict(models, files, tmp_path / "both"))
    hashes = [model_files.read_description(model)["weights_sha256"] for model in models.values()]
    assert [(one.name, one.model_sha256) for one in shard.detectors] == list(zip(models, hashes, strict=True))
    assert [one.embedding_parts for one in shard.detectors] == [
        {"box_head": 64},
        {"box_head": 24, "mask_iou_head": 24},
    ]
    assert shard.predicted_iou is None and shard.embedding_dim == 64
    assert shard.prediction.tolist() == prediction_ids(1, 0, len(shard)).tolist()
    assert set(shard.detector.tolist()) == {0, 1} and sum(shard.duplicates_between_detectors) > 0
    for number, (name, model) in enumerate(models.items()):
        alone = PredictionShard.open(predict({name: model}, files, tmp_path / name))
        own = np.flatnonzero(shard.detector == number)
        assert len(own) + shard.duplicates_between_detectors[number] == len(alone)
        places = {
            (image, rle["counts"]): row
            for row, (image, rle) in enumerate(zip(alone.image_id.tolist(), alone.rles(), strict=True))
        }
        rows = [
            places[image, rle["counts"]]
            for image, rle in zip(shard.image_id[own].tolist(), shard.rles(own), strict=True)
        ]
        assert np.array_equal(shard.score[own], alone.score[rows])
        width = alone.embedding_dim
        assert np.array_equal(shard.embeddings(own)[:, :width], alone.embeddings(np.array(rows)))
        assert not shard.embeddings(own)[:, width:].any()


def test_a_model_beside_itself_adds_nothing(trained: tuple[Path, Path], files: list[Path], tmp_path: Path) -> None:
    alone = PredictionShard.open(predict({"one": trained[0]}, files, tmp_path / "one"))
    shard = PredictionShard.open(predict({"one": trained[0], "two": trained[0]}, files, tmp_path / "two"))
    assert len(shard) == len(alone) >= 4
    assert not shard.detector.any() and shard.duplicates_between_detectors == [0, len(alone)]
    assert shard.rles() == alone.rles() and alone.detectors[0].name is None


def test_the_index_and_the_embeddings_keep_detectors_apart(
    trained: tuple[Path, Path], judging: Path, files: list[Path], tmp_path: Path
) -> None:
    models = {"plain": trained[0], "judging": judging}
    store = predict(models, files, tmp_path / "both", embeddings=["mask_weighted"])
    path = index_of(store)
    index, shard = read_index(path), PredictionShard.open(store)
    assert index.detector is not None
    assert np.array_equal(index.detector, shard.detector[shard.score > np.float32(0.3)])
    listed = read_index_attributes(path)["detectors"]
    assert [one["name"] for one in listed] == list(models)
    assert [one["predictions"] for one in listed] == np.bincount(index.detector, minlength=2).tolist()
    assert [one["duplicates_left_out"] for one in listed] == shard.duplicates_between_detectors
    source = ShardSource(index.prediction, [store], path)
    assert source.dim == 64 + 24
    values = source.read(np.arange(len(index)))
    assert not values[index.detector == 0, 64:].any() and not values[index.detector == 1, :64].any()
    assert values[index.detector == 0, :64].any(axis=1).all() and values[index.detector == 1, 64:].any(axis=1).all()
    assert ShardSource(index.prediction, [store], path, ("mask_weighted",)).dim == 2 * 512
    with pytest.raises(SegloopError, match="no embedding of mask_iou_head of the detector plain"):
        ShardSource(index.prediction, [store], path, ("box_head", "mask_iou_head"))
    before = shard.detector
    drop_low_scores(store, 0.3)
    assert np.array_equal(PredictionShard.open(store).detector, before)


def test_crops_are_compared_whichever_detector_found_them(
    trained: tuple[Path, Path], judging: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One network describes the crops of all: the embedding of a mask does not depend on who found it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crops_of_tests.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x.mean(dim=(2, 3))\n"
    )
    crop = {"model": "crops_of_tests:Net", "size": 8}
    models = {"plain": trained[0], "judging": judging}
    changes: dict[str, Any] = {"embeddings": ["mask_weighted", "crop"], "crop": crop}
    store = predict(models, files, tmp_path / "both", **changes)
    shard, path = PredictionShard.open(store), index_of(store)
    assert [list(one.embedding_parts.items())[-2:] for one in shard.detectors] == [
        [("mask_weighted", 512), ("crop", 3)]
    ] * 2
    assert shard.embedding_facts["crop"]["model"] == "crops_of_tests:Net"
    assert len(shard.embedding_facts["mask_weighted"]["projection_sha256"]) == 64
    index = read_index(path)
    values = ShardSource(index.prediction, [store], path, ("crop",)).read(np.arange(len(index)))
    assert values.shape == (len(index), 3) and np.isfinite(values).all()
    alone = predict({"judging": judging}, files, tmp_path / "alone", **changes)
    segmenter = load_segmenter(judging, device="cpu", threads=1, **changes | {"crop": PredictionConfig(crop=crop).crop})
    (found,) = segmenter.predict([np.asarray(Image.open(files[0]).convert("RGB"))], score=SCORE)
    first = PredictionShard.open(alone)
    rows = np.flatnonzero(first.image_id == 0)
    assert np.allclose(first.embeddings(rows), found.embedding, atol=2e-2, rtol=1e-2)


def test_a_shard_goes_on_detector_by_detector(
    trained: tuple[Path, Path], judging: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is lost while the second detector works: what was done is kept, and the bytes are those of one go."""
    from segloop.detection import network_segmenter, prediction

    models = {"plain": trained[0], "judging": judging}
    undisturbed = predict(models, files, tmp_path / "undisturbed")
    detect, calls = network_segmenter.NetworkSegmenter.detect, []

    def lost(self: Any, images: Any, score: float) -> Any:
        calls.append(self.predicts_iou)
        if calls.count(True) == 3:
            import torch

            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return detect(self, images, score)

    monkeypatch.setattr(network_segmenter.NetworkSegmenter, "detect", lost)
    with pytest.raises(SegloopError, match="the GPU failed"):
        predict(models, files, tmp_path / "lost")
    folder = tmp_path / "lost"
    assert not (folder / "0.zarr").exists()
    assert {path.name for path in folder.glob(".0.zarr.*")} == {".0.zarr.plain.partial", ".0.zarr.judging.partial"}
    monkeypatch.undo()
    rest: list[str] = []
    stream = prediction.predict_stream

    def counted(segmenter: Any, images: Any, *arguments: Any) -> Any:
        for one in stream(segmenter, images, *arguments):
            rest.append(one.file)
            yield one

    monkeypatch.setattr(prediction, "predict_stream", counted)
    store = predict(models, files, folder)
    assert 1 <= len(rest) < len(files)
    assert not list(folder.glob(".0.zarr.*"))
    same = {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert same == {
        path.relative_to(undisturbed): path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()
    }


def test_an_image_that_cannot_be_read_is_skipped_for_all(
    trained: tuple[Path, Path], judging: Path, files: list[Path], tmp_path: Path
) -> None:
    store = predict({"plain": trained[0], "judging": judging}, [*files, tmp_path / "gone.png"], tmp_path / "some")
    assert PredictionShard.open(store).images[0].tolist() == [0, 10, 20, 30]
    assert len(read_json(tmp_path / "some" / "0.skipped.json")["skipped"]) == 1


def test_agreement_asks_each_detector_about_its_own(
    trained: tuple[Path, Path], judging: Path, files: list[Path], tmp_path: Path
) -> None:
    models = {"plain": trained[0], "judging": judging}
    store = predict(models, files, tmp_path / "both")
    index = index_of(store)

    def measure(models: dict[str, Path]) -> Any:
        measure_agreement(
            models=models,
            images=store.with_name("shard.parquet"),
            index=index,
            predictions=store,
            output=tmp_path / "agreement.npy",
            prediction=PredictionConfig(store_score=SCORE),
            distillation=DistillationConfig(flip=False, scales=[1.0]),
            device="cpu",
        )
        return np.load(tmp_path / "agreement.npy")

    # A copy without a change agrees with itself: every prediction finds itself again.
    assert np.allclose(measure(models), read_index(index).score, atol=1e-5)
    with pytest.raises(SegloopError, match="was not predicted with"):
        measure(dict(reversed(models.items())))


def test_two_backends_in_one_list(
    trained: tuple[Path, Path], files: list[Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A torchvision and a detectron2 model predict one shard."""
    other = train_squares(tmp_path / "d2", squares_detector("detectron2", tmp_path, request), steps=60)[0]
    models = {"torchvision": trained[0], "detectron2": other}
    shard = PredictionShard.open(predict(models, files, tmp_path / "both", embeddings=["mask_weighted"]))
    assert [one.name for one in shard.detectors] == ["torchvision", "detectron2"]
    alone = PredictionShard.open(predict({"one": other}, files, tmp_path / "one", embeddings=["mask_weighted"]))
    own = int(np.count_nonzero(shard.detector == 1))
    assert own + shard.duplicates_between_detectors[1] == len(alone) > 0
    assert alone.detectors[0].embedding_parts == {"box_head": 64, "mask_weighted": 512}
    assert alone.embeddings()[:, 64:].any(axis=1).all()
