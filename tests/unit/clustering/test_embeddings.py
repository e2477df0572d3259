from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from segloop.clustering import embeddings as module
from segloop.clustering.distances import unit_rows
from segloop.clustering.embeddings import ArraySource, FileSource, ShardSource, prepare, principal_axes
from segloop.clustering.partition import partition_predictions
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.partitions import Partitions

Rows = Callable[..., npt.NDArray[np.float32]]
NONE: dict[str, Any] = {}


def everything(source: Any) -> npt.NDArray[Any]:
    return np.asarray(source.read(np.arange(len(source))))


def test_nothing_configured_changes_nothing(rows: Rows) -> None:
    base = ArraySource(rows(20, 8))
    source, record = prepare(base, NONE, ClusteringConfig(), 0)
    assert source is base
    assert record == {"base_dim": 8, "pca": None, "extra_columns": []}


@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_those_of_the_covariance(rows: Rows, whiten: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 64)
    raw = rows(500, 12) + np.float32(0.01)
    mean, axes, share = principal_axes(ArraySource(raw), 5, whiten, 0)
    unit = unit_rows(raw).astype(np.float64)
    variance = np.sort(np.linalg.eigvalsh(np.cov(unit.T, bias=True)))[::-1]
    projected = (unit - mean) @ axes
    assert np.allclose(mean, unit.mean(axis=0), atol=1e-6)
    assert np.allclose(np.cov(projected.T, bias=True), np.diag(np.ones(5) if whiten else variance[:5]), atol=1e-4)
    assert share == pytest.approx(variance[:5].sum() / variance.sum(), abs=1e-4)
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(5)] > 0).all()


def test_all_components_keep_the_distances_of_centred_rows(rows: Rows) -> None:
    raw = rows(100, 6) + np.float32(0.01)
    source, record = prepare(ArraySource(raw), NONE, ClusteringConfig(pca=6), 0)
    unit = unit_rows(raw)
    centred = unit_rows(unit - unit.mean(axis=0))
    found = everything(source).astype(np.float32)
    assert np.allclose(found @ found.T, centred @ centred.T, atol=3e-3)
    assert record["pca"] == {"components": 6, "whiten": False, "variance": pytest.approx(1.0, abs=1e-5)}


def test_components_are_learned_from_a_sample_by_seed(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PCA_ROWS", 50)
    source = ArraySource(rows(400, 8) + np.float32(0.01))
    first = principal_axes(source, 3, False, 1)
    assert np.array_equal(first[1], principal_axes(source, 3, False, 1)[1])
    assert not np.array_equal(first[1], principal_axes(source, 3, False, 2)[1])


def test_equal_rows_have_no_components(caplog: pytest.LogCaptureFixture) -> None:
    base = ArraySource(np.ones((30, 4), np.float32))
    source, record = prepare(base, NONE, ClusteringConfig(pca=2), 0)
    assert record["pca"] is None
    assert (everything(source) == np.float16(0.5)).all()
    assert "alike" in caplog.text


def test_extra_columns_stand_beside_unit_rows(rows: Rows) -> None:
    raw, score = rows(50, 4) + np.float32(0.1), np.linspace(0, 1, 50, dtype=np.float32)
    config = ClusteringConfig(extra_columns=["score"], extra_weight=0.5)
    source, record = prepare(ArraySource(raw * 7), {"score": score, "size": np.ones(50)}, config, 0)
    found = everything(source).astype(np.float64)
    assert found.shape == (50, 6)
    assert np.allclose(np.linalg.norm(found[:, :4], axis=1), 1, atol=1e-3)
    assert np.allclose(found[:, 4], 0.5 * (score - score.mean()) / score.std(), atol=1e-3)
    # A column without spread says nothing.
    assert not found[:, 5].any()
    assert record["extra_columns"] == ["score", "size"]
    assert record["extra_weight"] == 0.5


def test_rows_without_direction_stay_zero(rows: Rows) -> None:
    raw = rows(40, 6) + np.float32(0.1)
    raw[3], raw[5, 0] = 0, np.nan
    config = ClusteringConfig(pca=3, extra_columns=["score"])
    found = everything(prepare(ArraySource(raw), {"score": np.arange(40.0)}, config, 0)[0])
    assert np.flatnonzero(~found.any(axis=1)).tolist() == [3, 5]
    assert np.isfinite(found).all()


def test_bad_wishes_are_refused(rows: Rows) -> None:
    base = ArraySource(rows(10, 4))
    with pytest.raises(SegloopError, match=r"clustering\.pca is 5, .* only 4 dimensions"):
        prepare(base, NONE, ClusteringConfig(pca=5), 0)
    with pytest.raises(SegloopError, match="score is not finite"):
        prepare(base, {"score": np.full(10, np.nan)}, ClusteringConfig(), 0)


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_embeddings_of_ones_own(rows: Rows, iteration: Any, tmp_path: Path, kind: str) -> None:
    own = rows(90, 5).astype(np.float32) + np.float32(0.1)
    keep = np.arange(90) % 3 > 0
    made = iteration(rows(90, 16), np.ones(90, np.int32), duplicate=~keep)
    file = tmp_path / f"own_1.{kind}"
    if kind == "npy":
        np.save(file, own)
    else:
        zarr.create_array(file, data=own)
    config = ClusteringConfig(embedding_file=str(tmp_path / ("own_{iteration}." + kind)))
    output = tmp_path / "p.zarr"
    partition_predictions(index=made.index, predictions=made.shards, output=output, config=config, seed=0, iteration=1)
    source = Partitions(output)
    assert np.array_equal(source.embeddings(0, source.rows), own[keep].astype(np.float16))
    assert source.attributes["embedding"] == f"file:{config.embedding_file}"
    assert source.attributes["embedding_dim"] == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (np.ones((9, 4), np.float32), r"float32 of shape \(9, 4\); the index has 10 predictions"),
        (np.ones(10, np.float32), r"shape \(10,\)"),
        (np.ones((10, 4), np.int32), "int32 of shape"),
        (b"nonsense", "neither .npy nor a Zarr array"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "own.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(SegloopError, match=message) as caught:
        FileSource(path, np.arange(10), 10)
    assert "own.npy" in str(caught.value)


def test_parts_of_the_stored_embedding(rows: Rows, iteration: Any) -> None:
    stored = rows(30, 12).astype(np.float16)
    made = iteration(stored, np.ones(30, np.int32), parts={"box_head": 8, "mask_iou_head": 4})
    box = ShardSource(made.prediction, made.shards, made.index)
    assert np.array_equal(everything(box), stored[:, :8])
    both = ShardSource(made.prediction, made.shards, made.index, ("box_head", "mask_iou_head"))
    assert np.array_equal(everything(both), stored)


def test_missing_head_is_named(rows: Rows, iteration: Any) -> None:
    made = iteration(rows(5, 4), np.ones(5, np.int32))
    with pytest.raises(SegloopError, match=r"0\.zarr holds no embedding of mask_iou_head, only of box_head"):
        ShardSource(made.prediction, made.shards, made.index, ("box_head", "mask_iou_head"))
