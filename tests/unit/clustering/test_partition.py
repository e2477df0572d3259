import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segloop.clustering import embeddings as embeddings_module
from segloop.clustering import partition as module
from segloop.clustering.distances import unit_rows
from segloop.clustering.embeddings import ArraySource, ShardSource
from segloop.clustering.partition import partition, partition_predictions, spherical_kmeans
from segloop.clustering.planning import Limits
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.partitions import Partitions

Rows = Callable[..., npt.NDArray[np.float32]]


def parts_of(
    embeddings: npt.NDArray[Any], category: npt.NDArray[Any] | None = None, n_exact: int = 40_000, m_max: int = 20_000
) -> Any:
    labels = np.ones(len(embeddings), np.int32) if category is None else category.astype(np.int32)
    return partition(ArraySource(embeddings), labels, Limits(n_exact, m_max), 0)


def sizes_of(parts: Any) -> list[int]:
    return np.diff(parts.offsets()).tolist()


def test_small_categories_are_one_partition_each(rows: Rows) -> None:
    category = np.array([7, 3, 3, 9, 7, 3])
    parts = parts_of(rows(6, 4) + np.float32(0.1), category)
    assert parts.part_category.tolist() == [3, 7, 9]
    assert parts.part.tolist() == [1, 0, 0, 2, 1, 0]
    assert parts.leaves().tolist() == [1, 2, 5, 0, 4, 3]
    assert parts.offsets().tolist() == [0, 3, 5, 6]


def test_exactly_n_exact_is_still_exact(rows: Rows) -> None:
    embeddings = rows(101, 8) + np.float32(0.1)
    assert sizes_of(parts_of(embeddings[:100], n_exact=100, m_max=50)) == [100]
    assert len(sizes_of(parts_of(embeddings, n_exact=100, m_max=50))) > 1


def test_large_category_is_cut_and_small_one_is_not(rows: Rows) -> None:
    category = np.where(np.arange(3000) < 200, 1, 2)
    parts = parts_of(rows(3000, 16) + np.float32(0.01), category, n_exact=400, m_max=300)
    sizes = sizes_of(parts)
    assert sizes[0] == 200
    assert max(sizes) <= 300
    # A part may stay small when no sibling has room, but most are joined: below 75 rows is the exception.
    assert sum(size < 75 for size in sizes) <= 1
    assert sum(sizes) == 3000
    assert parts.part_category.tolist() == [1] + [2] * (len(sizes) - 1)
    assert (parts.part_category[parts.part] == category).all()


@pytest.mark.parametrize(("n_exact", "largest"), [(500, 500), (100, 100)])
def test_global_scope_mixes_categories(rows: Rows, iteration: Any, tmp_path: Path, n_exact: int, largest: int) -> None:
    made = iteration(rows(500, 16) + np.float32(0.01), np.random.default_rng(0).integers(1, 5, 500))
    config = ClusteringConfig(scope="global", n_exact=n_exact, m_max=100)
    partition_predictions(index=made.index, predictions=made.shards, output=tmp_path / "p.zarr", config=config, seed=0)
    source = Partitions(tmp_path / "p.zarr")
    assert set(source.part_category) == {0}
    assert source.rows == 500
    assert (max(np.diff(source.part_offset)) == 500) == (n_exact == 500)
    assert max(np.diff(source.part_offset)) <= largest


def test_parts_are_tighter_than_chance(rows: Rows) -> None:
    unit = unit_rows(rows(2000, 32, centres=8) + np.float32(0.01))
    parts = parts_of(unit, n_exact=500, m_max=500)
    own = np.mean([np.linalg.norm(unit[parts.part == p].mean(axis=0)) for p in range(len(sizes_of(parts)))])
    assert own > np.linalg.norm(unit.mean(axis=0)) + 0.05


def test_equal_rows_are_cut_in_order(caplog: pytest.LogCaptureFixture) -> None:
    parts = parts_of(np.ones((1000, 8), np.float32), n_exact=100, m_max=60)
    assert sum(sizes_of(parts)) == 1000
    assert max(sizes_of(parts)) <= 60
    assert "alike" in caplog.text


def test_stubborn_parts_are_cut_after_some_rounds(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_ROUNDS", 1)
    # Nearly all rows are equal: the first round leaves one part with almost everything.
    embeddings = np.concatenate([np.ones((900, 8), np.float32), rows(10, 8) + np.float32(0.01)])
    parts = parts_of(embeddings, n_exact=100, m_max=60)
    assert sum(sizes_of(parts)) == 910
    assert max(sizes_of(parts)) <= 60
    assert "in the order of their rows" in caplog.text


def test_fewer_rows_than_centroids() -> None:
    centroids = spherical_kmeans(np.eye(3, dtype=np.float32), 10, 0)
    assert centroids.shape == (3, 3)
    assert sizes_of(parts_of(np.eye(5, dtype=np.float32), n_exact=2, m_max=2)) != []


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    parts = parts_of(np.ones((n, 4), np.float32))
    assert sizes_of(parts) == [1] * n
    assert parts.leaves().tolist() == list(range(n))


def test_rows_without_direction_have_no_partition() -> None:
    embeddings = np.ones((6, 4), np.float16)
    embeddings[1], embeddings[2, 0], embeddings[3, 0] = 0, np.nan, np.inf
    parts = parts_of(embeddings)
    assert parts.part.tolist() == [0, -1, -1, -1, 0, 0]
    assert sizes_of(parts_of(embeddings[1:4])) == []


def test_few_usable_rows_among_many_without_direction(rows: Rows) -> None:
    embeddings = np.zeros((20_000, 8), np.float32)
    embeddings[::160] = rows(125, 8) + np.float32(0.01)
    parts = parts_of(embeddings, n_exact=50, m_max=50)
    assert sum(sizes_of(parts)) == 125
    assert max(sizes_of(parts)) <= 50


def test_same_seed_same_parts_and_block_size_does_not_matter(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = rows(3000, 16) + np.float32(0.01)
    config = Limits(400, 200)
    labels = np.ones(3000, np.int32)
    first = partition(ArraySource(embeddings), labels, config, 5)
    assert np.array_equal(first.part, partition(ArraySource(embeddings), labels, config, 5).part)
    assert not np.array_equal(first.part, partition(ArraySource(embeddings), labels, config, 6).part)
    monkeypatch.setattr(embeddings_module, "BLOCK", 700)
    assert np.array_equal(first.part, partition(ArraySource(embeddings), labels, config, 5).part)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_store_holds_every_embedding_where_it_belongs(rows: Rows, iteration: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    embeddings, category = rows(1000, 16).astype(np.float16), rng.integers(1, 4, 1000)
    embeddings[[5, 500]] = 0
    embeddings[700, 3] = np.nan
    keep, duplicate = rng.random(1000) < 0.8, rng.random(1000) < 0.1
    keep[[5, 500, 700]], duplicate[[5, 500, 700]] = True, False
    made = iteration(embeddings, category, shards=4, keep=keep, duplicate=duplicate)
    config = ClusteringConfig(n_exact=200, m_max=100)
    for name in ("a.zarr", "b.zarr"):
        partition_predictions(
            index=made.index, predictions=made.shards[::-1], output=tmp_path / name, config=config, seed=3
        )
    assert digest(tmp_path / "a.zarr") == digest(tmp_path / "b.zarr")
    source = Partitions(tmp_path / "a.zarr")
    assert source.null_id.tolist() == made.prediction[[5, 500, 700]].tolist()
    wanted = keep & ~duplicate
    wanted[[5, 500, 700]] = False
    row_id = source.row_id
    assert np.array_equal(np.sort(row_id), made.prediction[wanted])
    place = np.searchsorted(made.prediction, row_id)
    assert np.array_equal(source.embeddings(0, source.rows), embeddings[place])
    assert np.allclose(source.lengths(0, source.rows), np.linalg.norm(embeddings[place].astype(np.float64), axis=1))
    for part in range(len(source)):
        own = slice(int(source.part_offset[part]), int(source.part_offset[part + 1]))
        assert (np.diff(row_id[own].astype(np.int64)) > 0).all()
        assert set(category[place[own]]) == {source.part_category[part]}
    assert source.attributes["embedding_dim"] == 16
    assert source.attributes["seed"] == 3


def test_on_disk_equals_in_memory(rows: Rows, iteration: Any) -> None:
    embeddings, category = rows(900, 16).astype(np.float16), np.ones(900, np.int32)
    made = iteration(embeddings, category)
    config = Limits(200, 100)
    from_disk = partition(ShardSource(made.prediction, made.shards, made.index), category, config, 0)
    assert np.array_equal(from_disk.part, partition(ArraySource(embeddings), category, config, 0).part)


def test_nothing_to_cluster(iteration: Any, tmp_path: Path) -> None:
    made = iteration(np.ones((4, 8), np.float32), np.ones(4, np.int32), keep=np.zeros(4, bool))
    partition_predictions(
        index=made.index, predictions=made.shards, output=tmp_path / "p.zarr", config=ClusteringConfig(), seed=0
    )
    source = Partitions(tmp_path / "p.zarr")
    assert (source.rows, len(source), source.dim) == (0, 0, 8)


def test_missing_shard_and_mixed_widths_are_named(iteration: Any, tmp_path: Path) -> None:
    made = iteration(np.ones((9, 8), np.float32), np.ones(9, np.int32))
    options = {"index": made.index, "output": tmp_path / "p.zarr", "config": ClusteringConfig(), "seed": 0}
    with pytest.raises(SegloopError, match=r"shard 1 of iteration 1"):
        partition_predictions(predictions=[made.shards[0], made.shards[2]], **options)
    odd = tmp_path / "odd"
    odd.mkdir()
    made.shards[1].rename(odd / "1.zarr")
    iteration(np.ones((9, 5), np.float32), np.ones(9, np.int32))
    with pytest.raises(SegloopError, match=r"odd/1\.zarr have width 8.*0\.zarr have 5"):
        partition_predictions(predictions=[made.shards[0], odd / "1.zarr"], **options)
    assert not (tmp_path / "p.zarr").exists()
