import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segloop.annotation.probabilities import join_agreement, write_probabilities
from segloop.collection.index import index_predictions
from segloop.config import DistillationConfig, PredictionConfig
from segloop.data import masks
from segloop.data.pool import SCHEMA
from segloop.detection.agreement import (
    MIN_IOU,
    Transform,
    agreement,
    measure_agreement,
    mirrored,
    transforms_of,
)
from segloop.detection.prediction import predict_shard
from segloop.detection.segmenter import Detections, ImageArray, load_segmenter
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.ids import unpack_prediction_ids
from segloop.store.index import read_index
from segloop.store.predictions import PredictionShard, PredictionWriter


def found(*rows: tuple[int, float, np.ndarray]) -> Detections:
    """Return detections of (category, score, mask)."""
    return Detections(
        score=np.array([row[1] for row in rows], np.float32),
        category=np.array([row[0] for row in rows], np.int32),
        box=np.zeros((len(rows), 4), np.float32),
        masks=[masks.encode(row[2]) for row in rows],
        embedding=np.zeros((len(rows), 2), np.float32),
    )


def bar(first: int, last: int) -> np.ndarray:
    """Return a mask of one row of twenty pixels, from column `first` to before `last`."""
    mask = np.zeros((1, 20), bool)
    mask[0, first:last] = True
    return mask


def agree(own: Detections, *copies: Detections) -> list[float]:
    return agreement(own.score, own.category, own.masks, copies).tolist()


# --- mapping back -----------------------------------------------------------------------------------------------------


class Exact:
    """A detector that finds every pixel above 200, and notes at which scales it looked."""

    embedding_dim = 2
    categories: list[dict[str, object]] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.scales: list[float] = []

    def predict(self, images: list[ImageArray], *, score: float, scale: float = 1.0) -> list[Detections]:
        self.scales.append(scale)
        assert all(image.flags.c_contiguous for image in images)
        return [found((1, 0.9, image[:, :, 0] > 200)) for image in images]


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_a_mirrored_mask_is_the_mask_from_right_to_left(mask: np.ndarray) -> None:
    once = mirrored(masks.encode(mask))
    assert np.array_equal(masks.decode(once), mask[:, ::-1])
    assert once["size"] == list(mask.shape)
    assert mirrored(once) == masks.encode(mask)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)), st.booleans(), st.floats(0.1, 4))
def test_what_a_copy_shows_comes_back_to_its_place(mask: np.ndarray, flip: bool, scale: float) -> None:
    """The mask of a detector that errs nowhere is, mapped back, that of the image, to the pixel."""
    image = np.repeat(np.where(mask, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)
    segmenter = Exact()
    (back,) = Transform(flip, scale).predict(segmenter, [image], 0.5)
    assert np.array_equal(masks.decode(back.masks[0]), mask)
    assert segmenter.scales == [scale]


@pytest.mark.parametrize("transform", [Transform(flip=True), Transform(scale=0.75), Transform(scale=1.25)])
def test_a_trained_detector_finds_its_objects_in_copies(trained: tuple[Path, Path], transform: Transform) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    for record in read_json(trained[1])["images"][:2]:
        image = np.asarray(Image.open(record["file_name"]))
        ((one,), (other,)) = (way.predict(segmenter, [image], 0.5) for way in (Transform(), transform))
        assert all(rle["size"] == [64, 64] for rle in other.masks)
        iou = masks.iou(one.masks, other.masks) * (one.category[:, None] == other.category[None])
        # Were masks not mapped back, mirrored squares would lie elsewhere.
        best = [int(np.flatnonzero(one.category == kind)[0]) for kind in (3, 7)]
        assert (iou.max(axis=1)[best] > 0.5).all()


def test_the_copies_are_those_of_the_configuration() -> None:
    both = transforms_of(DistillationConfig(flip=True, scales=[0.5, 2.0]))
    assert both == [Transform(flip=True), Transform(scale=0.5), Transform(scale=2.0)]
    assert transforms_of(DistillationConfig(flip=False, scales=[])) == []


# --- matching ---------------------------------------------------------------------------------------------------------


def test_agreement_is_the_mean_of_the_scores() -> None:
    own = found((1, 0.9, bar(0, 10)))
    assert agree(own) == pytest.approx([0.9])
    assert agree(own, found((1, 0.6, bar(0, 9)))) == pytest.approx([0.75])
    assert agree(own, found((1, 0.6, bar(0, 9))), found()) == pytest.approx([0.5])


def test_another_category_is_no_match() -> None:
    assert agree(found((1, 0.8, bar(0, 10))), found((2, 0.8, bar(0, 10)))) == pytest.approx([0.4])


@pytest.mark.parametrize(("last", "matches"), [(10, True), (9, False)])
def test_half_an_overlap_is_a_match(last: int, matches: bool) -> None:
    own, copy = found((1, 0.8, bar(0, 20))), found((1, 0.4, bar(0, last)))
    assert masks.iou(own.masks, copy.masks)[0, 0] == pytest.approx(last / 20)
    assert MIN_IOU == 0.5
    assert agree(own, copy) == pytest.approx([0.6 if matches else 0.4])


def test_a_found_mask_serves_one_prediction_the_better_scored_first() -> None:
    own = found((1, 0.5, bar(0, 10)), (1, 0.9, bar(0, 9)))
    assert agree(own, found((1, 0.7, bar(0, 10)))) == pytest.approx([0.25, 0.8])
    # The second one is left for the prediction that came too late, although it overlaps less.
    assert agree(own, found((1, 0.7, bar(0, 9)), (1, 0.3, bar(0, 8)))) == pytest.approx([0.4, 0.8])


def test_no_predictions_have_no_agreement() -> None:
    assert agree(found(), found((1, 0.7, bar(0, 10)))) == []


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_the_order_of_predictions_changes_nothing(order: list[int], other: list[int]) -> None:
    rows = [(1, 0.9, bar(0, 8)), (1, 0.7, bar(1, 9)), (2, 0.8, bar(2, 10)), (2, 0.6, bar(12, 20))]
    copy = found(*(rows[number] for number in other))
    expected = agree(found(*rows), found(*rows))
    assert expected == pytest.approx([0.9, 0.7, 0.8, 0.6])
    assert agree(found(*(rows[number] for number in order)), copy) == pytest.approx([expected[n] for n in order])


# --- files ------------------------------------------------------------------------------------------------------------

Predicted = dict[str, Path]


def shard_table(path: Path, files: list[Path], first_id: int) -> Path:
    rows = [
        {"image_id": first_id + number, "file_name": str(file), "width": 0, "height": 0}
        for number, file in enumerate(files)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    return path


@pytest.fixture(scope="module")
def predicted(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    """Predict two shards, one of them with a blank image between others, and index the better predictions."""
    folder = tmp_path_factory.mktemp("predicted")
    Image.fromarray(np.full((40, 64, 3), 120, np.uint8)).save(folder / "blank.png")
    known = [Path(image["file_name"]) for image in read_json(trained[1])["images"]]
    shards = [[known[0], folder / "blank.png", known[1]], [known[2], known[3]]]
    for number, files in enumerate(shards):
        predict_shard(
            models={"detector": trained[0]},
            images=shard_table(folder / f"{number}.parquet", files, 10 * number + 1),
            shard=number,
            iteration=1,
            output=folder / f"{number}.zarr",
            skipped=folder / f"{number}.skipped.json",
            prediction=PredictionConfig(store_score=0.05),
            device="cpu",
            max_skipped=0.0,
        )
    index_predictions(
        predictions=[folder / "0.zarr", folder / "1.zarr"],
        earlier=[],
        earlier_verdicts=[],
        output=folder / "index.zarr",
        score=0.3,
        duplicates_iou=0.8,
        iteration=1,
    )
    return {"folder": folder, "model": trained[0], "index": folder / "index.zarr"}


@pytest.fixture
def measure(predicted: Predicted, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that measures one shard; it takes other files than the fixture's by name."""

    def run(shard: int = 0, flip: bool = True, scales: tuple[float, ...] = (1.25,), **changed: Any) -> Path:
        output = tmp_path / f"{shard}.npy"
        files: dict[str, Any] = {
            "models": {"detector": predicted["model"]},
            "images": predicted["folder"] / f"{shard}.parquet",
            "index": predicted["index"],
            "predictions": predicted["folder"] / f"{shard}.zarr",
        }
        measure_agreement(
            **(files | changed),
            output=output,
            prediction=PredictionConfig(store_score=0.05, batch_size=2),
            distillation=DistillationConfig(flip=flip, scales=list(scales)),
            device="cpu",
        )
        return output

    return run


def test_each_indexed_prediction_gets_the_agreement_of_its_image(
    predicted: Predicted, measure: Callable[..., Path], tmp_path: Path
) -> None:
    join_agreement(parts=[measure(0), measure(1)], index=predicted["index"], output=tmp_path / "all.npy")
    values = np.load(tmp_path / "all.npy")
    index = read_index(predicted["index"])
    assert values.dtype == np.float32 and len(values) == len(index) >= 8
    segmenter = load_segmenter(predicted["model"], device="cpu", threads=1)
    _, shard_of, row_of = unpack_prediction_ids(index.prediction)
    assert set(shard_of.tolist()) == {0, 1}
    names = {1: "1.png", 3: "2.png", 11: "3.png", 12: "4.png"}
    shards = [PredictionShard.open(predicted["folder"] / f"{number}.zarr") for number in range(2)]
    # The index leaves predictions out, so that places in the index and in the store differ.
    assert sum(map(len, shards)) > len(index)
    files = {Path(image["file_name"]).name: image["file_name"] for image in read_json_of(predicted)}
    for image_id in np.unique(index.image_id).tolist():
        image = np.asarray(Image.open(files[names[image_id]]))
        copies = [way.predict(segmenter, [image], 0.05)[0] for way in (Transform(flip=True), Transform(scale=1.25))]
        rows = np.flatnonzero(index.image_id == image_id)
        rles = [shards[shard_of[row]].rles(row_of[[row]])[0] for row in rows]
        expected = agreement(index.score[rows], index.category[rows], rles, copies)
        assert values[rows] == pytest.approx(expected, abs=1e-4)
    # What the detector has learned it finds again.
    assert np.median(values) > 0.5


def read_json_of(predicted: Predicted) -> list[dict[str, str]]:
    images: list[dict[str, str]] = read_json(predicted["model"].parent / "train.json")["images"]
    return images


def test_without_copies_agreement_is_the_score(predicted: Predicted, measure: Callable[..., Path]) -> None:
    values = np.load(measure(1, flip=False, scales=()))
    index = read_index(predicted["index"])
    _, shard_of, _ = unpack_prediction_ids(index.prediction)
    assert np.array_equal(values, index.score[shard_of == 1])


def test_measuring_again_gives_the_same_bytes(measure: Callable[..., Path]) -> None:
    assert measure().read_bytes() == measure().read_bytes()


def test_predictions_of_another_model_are_refused(
    predicted: Predicted, measure: Callable[..., Path], tmp_path: Path
) -> None:
    other = tmp_path / "model"
    other.mkdir()
    for file in predicted["model"].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    description = (other / "model.json").read_text()
    sha = PredictionShard.open(predicted["folder"] / "0.zarr").model_sha256
    write_json(other / "model.json", json.loads(description.replace(sha, sha[::-1])))
    with pytest.raises(SegloopError, match=r"0\.zarr was not predicted with .*model.*predict_shard again"):
        measure(models={"detector": other})
    assert not (tmp_path / "0.npy").exists()


def test_a_changed_image_is_named(
    predicted: Predicted, measure: Callable[..., Path], trained: tuple[Path, Path], tmp_path: Path
) -> None:
    known = [Path(image["file_name"]) for image in read_json(trained[1])["images"]]
    Image.new("RGB", (30, 30)).save(tmp_path / "smaller.png")
    files = [known[0], predicted["folder"] / "blank.png", tmp_path / "smaller.png"]
    with pytest.raises(SegloopError, match=r"smaller\.png has another size than when it was predicted"):
        measure(images=shard_table(tmp_path / "changed.parquet", files, 1))
    with pytest.raises(SegloopError, match=r"gone\.png"):
        measure(images=shard_table(tmp_path / "gone.parquet", [*files[:2], tmp_path / "gone.png"], 1))
    with pytest.raises(SegloopError, match=r"has an image 1, .*other\.parquet has not"):
        measure(images=shard_table(tmp_path / "other.parquet", files, 100))


def test_parts_that_do_not_fit_the_index_are_refused(
    predicted: Predicted, measure: Callable[..., Path], tmp_path: Path
) -> None:
    first, second = measure(0), measure(1)
    write_probabilities(second, np.load(second)[1:])
    with pytest.raises(SegloopError, match=r"1\.npy holds float32 of shape"):
        join_agreement(parts=[first, second], index=predicted["index"], output=tmp_path / "all.npy")
    with pytest.raises(SegloopError, match=r"none\.npy does not exist"):
        join_agreement(parts=[first, tmp_path / "none.npy"], index=predicted["index"], output=tmp_path / "all.npy")
    assert not (tmp_path / "all.npy").exists()


def test_an_iteration_without_predictions(tmp_path: Path) -> None:
    with PredictionWriter(tmp_path / "0.zarr", iteration=1, shard=0, model_sha256="", embedding_dim=2):
        pass
    index_predictions(
        predictions=[tmp_path / "0.zarr"],
        earlier=[],
        earlier_verdicts=[],
        output=tmp_path / "index.zarr",
        score=0.3,
        duplicates_iou=0.8,
        iteration=1,
    )
    np.save(tmp_path / "0.npy", np.zeros(0, np.float32))
    join_agreement(parts=[tmp_path / "0.npy"], index=tmp_path / "index.zarr", output=tmp_path / "all.npy")
    values = np.load(tmp_path / "all.npy")
    assert values.dtype == np.float32 and values.shape == (0,)
