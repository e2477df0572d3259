from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segloop.data import masks
from segloop.detection.segmenter import Detections, gpu_was_given, load_segmenter, resolve_device
from segloop.errors import SegloopError
from segloop.files import read_json, write_json


def image(trained: tuple[Path, Path], number: int = 0) -> np.ndarray:
    return np.asarray(Image.open(read_json(trained[1])["images"][number]["file_name"]))


def test_it_finds_what_it_has_learned(trained: tuple[Path, Path]) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    assert segmenter.embedding_dim == 64
    assert [category["id"] for category in segmenter.categories] == [3, 7]
    truth = [one for one in read_json(trained[1])["annotations"] if one["image_id"] == 1]
    (found,) = segmenter.predict([image(trained)], score=0.3)
    assert set(found.category.tolist()) == {3, 7}
    for one in truth:
        expected = masks.from_json(one["segmentation"])
        same = [
            rle for rle, category in zip(found.masks, found.category, strict=True) if category == one["category_id"]
        ]
        assert masks.iou(same, [expected]).max() > 0.6


def test_detections_keep_their_promises(trained: tuple[Path, Path]) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    (found,) = segmenter.predict([image(trained)[:50, :60]], score=0.0)
    count = len(found)
    assert 2 < count <= 20
    assert found.score.dtype == np.float32
    assert (np.diff(found.score) <= 0).all()
    assert found.category.dtype == np.int32
    assert found.box.dtype == np.float32
    assert found.box.shape == (count, 4)
    assert (found.box >= 0).all()
    assert (found.box <= [60, 50, 60, 50]).all()
    assert found.embedding.shape == (count, 64)
    assert found.embedding.dtype == np.float32
    assert found.predicted_iou is None
    assert all(rle["size"] == [50, 60] and masks.check(masks.to_json(rle), (50, 60)) == rle for rle in found.masks)
    assert (masks.area(found.masks) > 0).all()
    (few,) = segmenter.predict([image(trained)[:50, :60]], score=float(found.score[1]))
    assert few.score.tolist() == found.score[found.score > found.score[1]].tolist()


def test_an_image_does_not_depend_on_its_neighbours(trained: tuple[Path, Path]) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    images = [image(trained, 0), image(trained, 1), image(trained, 2)[:40], image(trained, 3)]
    together = segmenter.predict(images, score=0.1)
    alone = [segmenter.predict([one], score=0.1)[0] for one in images]
    assert [len(found) for found in together] == [len(found) for found in alone]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.score, other.score)
        assert np.array_equal(one.box, other.box)
        assert np.array_equal(one.embedding, other.embedding)
        assert one.masks == other.masks


def test_mixed_precision_finds_nearly_the_same(trained: tuple[Path, Path]) -> None:
    full = load_segmenter(trained[0], device="cpu", threads=1)
    mixed = load_segmenter(trained[0], device="cpu", threads=1, precision="bfloat16")
    (expected,), (found,) = (segmenter.predict([image(trained)], score=0.5) for segmenter in (full, mixed))
    assert len(found) == len(expected) > 0
    for column in (found.score, found.box, found.embedding):
        assert column.dtype == np.float32
    assert found.score.tolist() != expected.score.tolist()
    assert masks.iou(found.masks, expected.masks).max(axis=1).min() > 0.8


def test_scaling_does_not_move_masks(trained: tuple[Path, Path]) -> None:
    """A larger copy of an image has the same masks, larger: the network sees the same picture."""
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    large = np.asarray(Image.fromarray(image(trained)).resize((192, 192), Image.Resampling.NEAREST))
    (found,), (scaled,) = (segmenter.predict([one], score=0.5) for one in (image(trained), large))
    for category in (3, 7):
        # Detections come in the order of their scores: the first one of a category is its best.
        small, big = (one.masks[one.category.tolist().index(category)] for one in (found, scaled))
        grown = np.kron(masks.decode(small), np.ones((3, 3), bool))
        assert masks.iou([masks.encode(grown)], [big])[0, 0] > 0.8


def test_no_images_and_nothing_found(trained: tuple[Path, Path]) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    assert segmenter.predict([], score=0.5) == []
    (found,) = segmenter.predict([np.full((32, 32, 3), 120, np.uint8)], score=0.999)
    assert isinstance(found, Detections)
    assert len(found) == len(found.masks) == 0
    assert found.embedding.shape == (0, 64)


def test_an_incomplete_model_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="not a complete model"):
        load_segmenter(tmp_path, device="cpu", threads=1)
    description = read_json(trained[0] / "model.json")
    write_json(tmp_path / "model.json", description)
    with pytest.raises(SegloopError, match=r"weights\.pt do not exist"):
        load_segmenter(tmp_path, device="cpu", threads=1)
    (tmp_path / "weights.pt").write_bytes((trained[0] / "weights.pt").read_bytes())
    write_json(tmp_path / "model.json", {**description, "categories": description["categories"][:1]})
    with pytest.raises(SegloopError, match="do not fit"):
        load_segmenter(tmp_path, device="cpu", threads=1)
    write_json(tmp_path / "model.json", {**description, "schema_version": 99})
    with pytest.raises(SegloopError, match="schema version 99"):
        load_segmenter(tmp_path, device="cpu", threads=1)
    write_json(tmp_path / "model.json", {**description, "backend": "other"})
    with pytest.raises(SegloopError, match="backend 'other'"):
        load_segmenter(tmp_path, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("device", "requested", "available", "expected"),
    [
        ("auto", False, False, "cpu"),
        ("auto", False, True, "cuda"),
        ("auto", True, True, "cuda"),
        ("auto", True, False, None),
        ("cpu", True, True, "cpu"),
        ("cpu", True, False, "cpu"),
        ("cuda", False, True, "cuda"),
        ("cuda", False, False, None),
    ],
)
def test_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, requested: bool, available: bool, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    if expected is None:
        with pytest.raises(SegloopError, match="device: cpu"):
            resolve_device(device, requested)
    else:
        assert resolve_device(device, requested).type == expected


@pytest.mark.parametrize(("value", "given"), [(None, False), ("", False), ("-1", False), ("0", True), ("0,1", True)])
def test_a_given_gpu_shows_in_the_environment(monkeypatch: pytest.MonkeyPatch, value: str | None, given: bool) -> None:
    if value is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpu_was_given() is given
