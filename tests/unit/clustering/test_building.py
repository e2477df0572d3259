import hashlib
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segloop.clustering import building as building_module
from segloop.clustering import linkage as linkage_module
from segloop.clustering import partition as partition_module
from segloop.clustering.building import build_tree, cluster_predictions
from segloop.clustering.joining import join_trees
from segloop.clustering.linkage import link_partitions
from segloop.clustering.numerics import memory_limit
from segloop.clustering.partition import partition_predictions
from segloop.config import ClusteringConfig
from segloop.errors import SegloopError
from segloop.store.tree import read_tree, validate

Rows = Callable[..., npt.NDArray[np.float32]]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def made(rows: Rows, iteration: Any) -> Any:
    category = np.random.default_rng(1).integers(1, 5, 1500)
    return iteration(rows(1500, 16) + np.float32(0.01), category)


def cluster(made: Any, output: Path, **config: Any) -> None:
    cluster_predictions(
        index=made.index, predictions=made.shards, output=output, config=ClusteringConfig(**config), seed=0
    )


def test_no_way_of_working_changes_a_byte(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linkage_module, "_TASK_SECONDS", 0.002)
    limits = {"n_exact": 100, "m_max": 60}
    cluster(made, tmp_path / "one.zarr", **limits)
    cluster(made, tmp_path / "two.zarr", workers=2, **limits)
    monkeypatch.setattr(building_module, "IN_MEMORY", 1499)
    cluster(made, tmp_path / "three.zarr", batches=3, **limits)
    monkeypatch.setattr(partition_module, "IN_MEMORY", 1499)
    cluster(made, tmp_path / "four.zarr", **limits)
    one = digest(tmp_path / "one.zarr")
    assert one
    assert [one] * 3 == [digest(tmp_path / f"{name}.zarr") for name in ("two", "three", "four")]
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_scratch_keeps_what_lies_between(made: Any, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    cluster_predictions(
        index=made.index,
        predictions=made.shards,
        output=tmp_path / "tree.zarr",
        config=ClusteringConfig(batches=2),
        seed=0,
        scratch=scratch,
    )
    assert sorted(path.name for path in scratch.iterdir()) == ["links", "partitions.zarr"]
    assert sorted(path.name for path in (scratch / "links").iterdir()) == ["0.zarr", "1.zarr"]


@pytest.mark.parametrize("linkage", ["average", "ward", "complete"])
def test_on_disk_equals_in_memory(rows: Rows, iteration: Any, tmp_path: Path, linkage: str) -> None:
    embeddings = (rows(700, 16) + np.float32(0.01)).astype(np.float16)
    category = np.random.default_rng(1).integers(1, 4, 700)
    made = iteration(embeddings, category)
    config = ClusteringConfig(linkage=linkage, n_exact=100, m_max=60, pca=8)
    cluster_predictions(index=made.index, predictions=made.shards, output=tmp_path / "t.zarr", config=config, seed=0)
    tree, expected = read_tree(tmp_path / "t.zarr"), build_tree(embeddings, category, made.prediction, config, 0)
    validate(tree)
    for name in ("left", "right", "height", "start", "size", "order", "row_id", "part_offset"):
        assert np.array_equal(getattr(tree, name), getattr(expected, name))
    assert tree.attributes["pca"]["components"] == 8
    assert tree.attributes["embedding"] == "box_head"


@pytest.mark.parametrize("odd", ["equal", "one_each", "nulls", "single"])
def test_odd_data_give_a_valid_tree(rows: Rows, iteration: Any, tmp_path: Path, odd: str) -> None:
    embeddings, category = rows(60, 8) + np.float32(0.1), np.ones(60, np.int32)
    if odd == "equal":
        embeddings[:] = 1
    elif odd == "one_each":
        category = np.arange(1, 61, dtype=np.int32)
    elif odd == "nulls":
        embeddings[:] = 0
    else:
        embeddings, category = embeddings[:1], category[:1]
    made = iteration(embeddings, category, shards=1)
    config = ClusteringConfig(n_exact=10, m_max=10, linkage="ward")
    cluster_predictions(index=made.index, predictions=made.shards, output=tmp_path / "t.zarr", config=config, seed=0)
    tree = read_tree(tmp_path / "t.zarr")
    validate(tree)
    assert tree.n + len(tree.null_id) == len(embeddings)
    assert tree.n == (0 if odd == "nulls" else len(embeddings))


def largest_file(store: Path) -> Path:
    return max((path for path in store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_truncated_store_is_named(made: Any, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    options = {"index": made.index, "predictions": made.shards, "config": ClusteringConfig(), "seed": 0}
    cluster_predictions(**options, output=tmp_path / "t.zarr", scratch=scratch)
    links, partitions = scratch / "links" / "0.zarr", scratch / "partitions.zarr"
    join = {"partitions": partitions, "links": [links], "output": tmp_path / "j.zarr", "config": ClusteringConfig()}
    link = {"partitions": partitions, "batch": 0, "output": tmp_path / "l.zarr", "config": ClusteringConfig()}
    steps: list[tuple[Path, Callable[[], None]]] = [
        (links, lambda: join_trees(**join)),
        (partitions, lambda: link_partitions(**link)),
        (made.shards[1], lambda: cluster_predictions(**options, output=tmp_path / "again.zarr")),
    ]
    for store, step in steps:
        file = largest_file(store)
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(SegloopError, match=rf"{store.name} is incomplete: .* Delete the store"):
            step()
    assert not {"j.zarr", "l.zarr", "again.zarr"} & {path.name for path in tmp_path.iterdir()}


def test_memory_that_the_system_refuses_is_named(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClusteringConfig()
    partitions = tmp_path / "partitions.zarr"
    partition_predictions(index=made.index, predictions=made.shards, output=partitions, config=config, seed=0)
    monkeypatch.setattr(linkage_module, "memory_limit", lambda: 200_000_000)
    with pytest.raises(SegloopError, match=r"this job may use 200 MB.*clustering\.memory_mb to 200"):
        link_partitions(partitions=partitions, batch=0, output=tmp_path / "l.zarr", config=config)
    monkeypatch.undo()

    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(linkage_module, "partition_tree", no_memory)
    with pytest.raises(SegloopError, match=r"Partition 0 of .*partitions\.zarr has \d+ predictions and needs about"):
        link_partitions(partitions=partitions, batch=0, output=tmp_path / "l.zarr", config=config)
    assert not (tmp_path / "l.zarr").exists()


def test_limits_of_the_operating_system_are_seen(tmp_path: Path) -> None:
    own = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()[-1].rpartition(":")[2].strip("/")
    folder = tmp_path / own
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    unlimited = resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert (memory_limit(tmp_path) is None) == unlimited
    (folder / "memory.max").write_text("123456\n", encoding="ascii")
    assert memory_limit(tmp_path) == 123456
    script = (
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (5 << 30, 5 << 30)); import segloop.clustering.numerics as n"
    )
    command = [sys.executable, "-c", f"{script}; print(n.memory_limit())"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0 < int(answer.stdout) <= 5 << 30
