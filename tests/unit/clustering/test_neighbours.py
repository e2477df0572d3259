from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segloop.clustering import neighbours as module
from segloop.clustering.neighbours import approximate_neighbours, exact_neighbours, neighbours
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


# --- many queries ---


@pytest.fixture
def large(rows: Rows, store: Any) -> Callable[..., tuple[npt.NDArray[np.float32], Path, npt.NDArray[np.uint64]]]:
    """More rows than the exact search is for, and queries among them."""

    def make(dim: int = 24, n: int = 6000) -> Any:
        embeddings = (rows(n, dim, centres=60) + np.float32(0.01)).astype(np.float16)
        path, prediction = store(embeddings)
        return embeddings[:300].astype(np.float32), path, prediction[:300]

    return make


@pytest.mark.parametrize("dim", [24, 160], ids=["as they are", "reduced to 128"])
def test_the_index_finds_nearly_all_and_their_cosines_are_exact(large: Any, dim: int) -> None:
    queries, path, own = large(dim)
    exact, cosines = exact_neighbours(queries, path, 10, own)
    found, near = approximate_neighbours(queries, path, 10, own, seed=0)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert recall >= 0.95
    alike = (exact == found).all(axis=1)
    assert alike.mean() > 0.5
    assert np.allclose(near[alike], cosines[alike], atol=1e-6)
    assert (np.diff(near, axis=1) <= 0).all()
    assert not (found == own[:, None]).any()


def test_the_index_gives_the_same_bytes_whatever_the_slab(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, path, own = large()
    first = approximate_neighbours(queries, path, 5, own, seed=3)
    again = approximate_neighbours(queries, path, 5, own, seed=3)
    for name, size in (("_SLAB", 1000), ("_PAIRS", 7000), ("_PRODUCTS", 64)):
        monkeypatch.setattr(module, name, size)
    sliced = approximate_neighbours(queries, path, 5, own, seed=3)
    assert [part.tobytes() for part in again] == [part.tobytes() for part in first]
    assert np.array_equal(sliced[0], first[0])
    assert np.allclose(sliced[1], first[1], atol=1e-6)


def test_a_query_to_which_the_index_proposes_too_few_is_searched_exactly(large: Any) -> None:
    queries, path, own = large()
    # One list of some twenty rows holds no 200 neighbours.
    found, _ = approximate_neighbours(queries[:5], path, 200, own[:5], seed=0, probes=1)
    assert np.array_equal(found, exact_neighbours(queries[:5], path, 200, own[:5])[0])


def test_ties_in_the_index_are_in_the_order_of_the_store(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEW_ROWS", 10)
    path, _ = store(np.ones((60, 4), np.float16))
    query = np.ones((2, 4), np.float32)
    assert np.array_equal(
        approximate_neighbours(query, path, 7, seed=0, probes=1000)[0], exact_neighbours(query, path, 7)[0]
    )


def test_few_rows_are_searched_exactly_and_padded(store: Any) -> None:
    path, prediction = store(np.eye(3, dtype=np.float16))
    ids, cosines = approximate_neighbours(np.ones((1, 3), np.float32), path, 5, prediction[1:2], seed=0)
    assert set(ids[0, :2]) == {prediction[0], prediction[2]}
    assert (ids[0, 2:] == 0).all()
    assert np.isneginf(cosines[0, 2:]).all()


def test_an_index_over_fewer_rows_than_wanted_is_padded(
    rows: Rows, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FEW_ROWS", 0)
    path, prediction = store(rows(40, 8) + np.float32(0.01))
    ids, cosines = approximate_neighbours(np.ones((1, 8), np.float32), path, 50, prediction[1:2], seed=0)
    assert set(ids[0, :39]) == set(np.delete(prediction, 1))
    assert (ids[0, 39:] == 0).all()
    assert np.isneginf(cosines[0, 39:]).all()


def test_no_queries_to_the_index(large: Any) -> None:
    _, path, _ = large()
    assert approximate_neighbours(np.empty((0, 24), np.float32), path, 2, seed=0)[0].shape == (0, 2)


def test_bad_queries_to_the_index_are_refused(store: Any) -> None:
    path, _ = store(np.ones((3, 4), np.float16))
    with pytest.raises(SegloopError, match="width 4"):
        approximate_neighbours(np.ones((1, 5), np.float32), path, 2, seed=0)
    with pytest.raises(SegloopError, match="Choose another query"):
        approximate_neighbours(np.zeros((1, 4), np.float32), path, 2, seed=0)
    with pytest.raises(SegloopError, match="is not a Zarr store"):
        approximate_neighbours(np.ones((1, 4), np.float32), path / "none", 2, seed=0)


def test_the_number_of_queries_decides_which_search(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, path, own = large()
    called = []
    monkeypatch.setattr(module, "exact_neighbours", lambda *_: called.append("exact"))
    monkeypatch.setattr(module, "approximate_neighbours", lambda *_, seed: called.append(f"index {seed}"))
    monkeypatch.setattr(module, "_FEW_QUERIES", 300)
    neighbours(queries, path, 2, own, seed=4)
    neighbours(np.concatenate([queries, queries]), path, 2, seed=4)
    assert called == ["exact", "index 4"]
