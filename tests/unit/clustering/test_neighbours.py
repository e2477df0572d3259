from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segloop.clustering import neighbours as module
from segloop.clustering.neighbours import exact_neighbours
from segloop.clustering.partition import partition_predictions
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError

Rows = Callable[..., npt.NDArray[np.float32]]


@pytest.fixture
def store(iteration: Any, tmp_path: Path) -> Callable[..., tuple[Path, npt.NDArray[np.uint64]]]:
    def make(embeddings: npt.NDArray[Any]) -> tuple[Path, npt.NDArray[np.uint64]]:
        category = np.random.default_rng(0).integers(1, 4, len(embeddings))
        made = iteration(embeddings, category)
        path = tmp_path / "partitions.zarr"
        partition_predictions(index=made.index, predictions=made.shards, output=path, config=ClusteringConfig(), seed=0)
        return path, made.prediction

    return make


@pytest.mark.parametrize("slab", [7, 100, 100_000])
def test_equals_a_full_sort(rows: Rows, store: Any, monkeypatch: pytest.MonkeyPatch, slab: int) -> None:
    monkeypatch.setattr(module, "_SLAB", slab)
    monkeypatch.setattr(module, "_QUERIES", 3)
    embeddings = (rows(300, 16) + np.float32(0.01)).astype(np.float16)
    path, prediction = store(embeddings)
    queries = embeddings[:8].astype(np.float32) * 3
    ids, cosines = exact_neighbours(queries, path, 5, prediction[:8])
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = unit[:8] @ unit.T
    expected[np.arange(8), np.arange(8)] = -np.inf
    best = np.sort(expected, axis=1)[:, ::-1][:, :5]
    assert np.allclose(cosines, best, atol=1e-6)
    place = np.searchsorted(prediction, ids)
    assert np.allclose(np.take_along_axis(expected, place, axis=1), best, atol=1e-6)


def test_a_query_finds_itself_unless_it_is_left_out(rows: Rows, store: Any) -> None:
    embeddings = (rows(50, 16) + np.float32(0.01)).astype(np.float16)
    path, prediction = store(embeddings)
    queries = embeddings.astype(np.float32)
    assert np.array_equal(exact_neighbours(queries, path, 1)[0][:, 0], prediction)
    ids, _ = exact_neighbours(queries, path, 49, prediction)
    assert not (ids == prediction[:, None]).any()
    assert (ids != 0).all()


def test_negative_cosines_are_ordered(store: Any) -> None:
    path, _ = store(np.array([[-1, 0], [-1, 1], [0, -1], [1, 0]], np.float16))
    _, cosines = exact_neighbours(np.array([[1, 0]], np.float32), path, 4)
    assert np.allclose(cosines, [[1, 0, -np.sqrt(0.5), -1]], atol=1e-3)


def test_ties_are_in_the_order_of_the_store_whatever_the_slab(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, prediction = store(np.ones((40, 4), np.float16))
    expected, _ = exact_neighbours(np.ones((1, 4), np.float32), path, 7)
    assert set(expected[0]) <= set(prediction)
    monkeypatch.setattr(module, "_SLAB", 3)
    assert np.array_equal(expected, exact_neighbours(np.ones((1, 4), np.float32), path, 7)[0])


def test_too_few_rows_are_padded(store: Any) -> None:
    path, prediction = store(np.eye(3, dtype=np.float16))
    ids, cosines = exact_neighbours(np.ones((1, 3), np.float32), path, 5, prediction[1:2])
    assert (ids[0, 2:] == 0).all()
    assert np.isneginf(cosines[0, 2:]).all()
    assert set(ids[0, :2]) == {prediction[0], prediction[2]}


def test_no_queries_and_no_rows(store: Any) -> None:
    path, _ = store(np.zeros((3, 4), np.float16))
    assert exact_neighbours(np.empty((0, 4), np.float32), path, 2)[0].shape == (0, 2)
    assert exact_neighbours(np.ones((1, 4), np.float32), path, 2)[0].tolist() == [[0, 0]]


def test_bad_queries_are_refused(store: Any) -> None:
    path, _ = store(np.ones((3, 4), np.float16))
    with pytest.raises(SegloopError, match="width 4"):
        exact_neighbours(np.ones((1, 5), np.float32), path, 2)
    for bad in (0, np.nan):
        with pytest.raises(SegloopError, match="Choose another query"):
            exact_neighbours(np.full((1, 4), bad, np.float32), path, 2)
