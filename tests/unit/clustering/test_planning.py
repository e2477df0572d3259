import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloop.clustering import planning
from segloop.clustering.partition import partition_predictions
from segloop.clustering.planning import Limits, announce, expected_partitions, limits, link_bytes
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.index import read_index_attributes
from segloop.store.partitions import Partitions


def test_memory_is_below_five_bytes_a_pair_beside_the_interpreter() -> None:
    assert 4 * 20_000**2 < link_bytes(20_000, 1024) - link_bytes(0, 1024) < 5 * 20_000**2


@given(st.integers(400, 100_000), st.integers(1, 4096))
def test_limits_are_the_largest_that_fit(memory_mb: int, dim: int) -> None:
    config = ClusteringConfig(memory_mb=memory_mb, n_exact=10**9, m_max=10**9)
    found = limits(config, dim)
    assert link_bytes(found.m_max, dim) <= memory_mb * 1e6 < link_bytes(found.m_max + 1, dim)


def test_defaults_fit_into_the_default_memory(caplog: pytest.LogCaptureFixture) -> None:
    assert limits(ClusteringConfig(), 2048) == Limits(40_000, 20_000)
    assert not caplog.text


def test_lowered_limits_are_said_and_too_little_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    config = ClusteringConfig(memory_mb=1000)
    found = limits(config, 1024)
    assert found.n_exact == found.m_max < 20_000
    # Nothing is said where limits are only looked up, as planning does for every job.
    assert not caplog.text
    announce(np.array([10]), 1024, config, found)
    assert f"n_exact is {found.n_exact} instead of 40000" in caplog.text
    with pytest.raises(SegloopError, match="too little for embeddings of width 99999999"):
        limits(ClusteringConfig(memory_mb=400), 99_999_999)


def test_a_category_that_memory_does_not_allow_is_cut(
    iteration: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = np.random.default_rng(0).random((6000, 4), np.float32)
    made, config = iteration(rows, np.ones(6000, np.int32)), ClusteringConfig(memory_mb=400)
    output = tmp_path / "p.zarr"
    partition_predictions(index=made.index, predictions=made.shards, output=output, config=config, seed=0)
    source, fits = Partitions(output), limits(config, 4).m_max
    assert 1 < len(source) < 6
    assert int(np.diff(source.part_offset).max()) <= fits == source.attributes["m_max"] < 6000
    assert "larger categories are split further" in caplog.text


def test_expected_partitions_follow_the_rule() -> None:
    sizes = expected_partitions(np.array([1, 100, 101, 1000]), Limits(100, 50))
    assert sizes.tolist() == [1, 100] + [26] * 4 + [34] * 30


def test_a_run_says_what_it_expects(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announce(np.array([100_000, 500]), 1024, ClusteringConfig(batches=4), Limits(40_000, 20_000))
    assert "100500 predictions of 2 categories: expecting about 9 partitions of up to 12500 predictions" in caplog.text
    assert "206 MB of sorted embeddings" in caplog.text
    assert "in each of 4 link processes" in caplog.text


def test_requests_follow_what_is_there(iteration: Any, tmp_path: Path) -> None:
    config = ClusteringConfig(batches=2, n_exact=100, m_max=100)
    missing = str(tmp_path / "missing.zarr")
    made = iteration(np.random.default_rng(0).random((900, 16), np.float32), np.ones(900, np.int32))
    partitions = tmp_path / "p.zarr"
    partition_predictions(index=made.index, predictions=made.shards, output=partitions, config=config, seed=0)
    assert read_index_attributes(made.index)["rows"] == 900
    for ask in (planning.request_to_partition, planning.request_to_join):
        path = made.index if ask is planning.request_to_partition else partitions
        known, unknown = ask(str(path), config), ask(missing, config)
        assert 0 < known.mem_mb <= unknown.mem_mb
        assert 10 < known.runtime <= unknown.runtime
    wide = ClusteringConfig(batches=2)
    assert planning.request_to_link(missing, 0, wide).mem_mb > 4 * 40_000**2 / 1e6
    assert planning.request_to_link(str(partitions), 1, config).mem_mb < 1000
    two = planning.link_request(np.array([20_000, 20_000]), 1024, 2)
    assert two.mem_mb > 1.9 * (planning.link_request(np.array([20_000, 20_000]), 1024, 1).mem_mb - 400)
