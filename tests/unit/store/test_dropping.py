"""Stores from which something was dropped: whole at every moment, and honest about what is gone."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.store import arrays, partitions
from segloop.store import predictions as module
from segloop.store.arrays import Layout, Store
from segloop.store.predictions import (
    PredictionShard,
    PredictionWriter,
    drop_embeddings,
    drop_low_scores,
    rows_of,
)

Make = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, detections: Make) -> Path:
    path = tmp_path / "5.zarr"
    with PredictionWriter(path, iteration=2, shard=5, model_sha256="abc", embedding_dim=16) as writer:
        for number in range(8):
            writer.append(900 - number, 6, 8, detections(9, seed=number))
    (path / ".snakemake_timestamp").touch()
    os.utime(path / ".snakemake_timestamp", (1_000_000_000, 1_000_000_000))
    return path


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_embeddings_go_and_the_rest_stays(store: Path) -> None:
    before, rles, score = size(store), PredictionShard.open(store).rles(), PredictionShard.open(store).score
    drop_embeddings(store)
    shard = PredictionShard.open(store)
    assert shard.rles() == rles
    assert (shard.score == score).all()
    assert (len(shard), shard.embedding_dim, rows_of(store)) == (72, 16, 72)
    assert not shard.has_embeddings
    assert size(store) < before - 72 * 16 * 2
    with pytest.raises(SegloopError, match=r"no longer holds embedding: .*`retention`"):
        shard.embeddings(np.array([1]))
    assert (store / ".snakemake_timestamp").stat().st_mtime == 1_000_000_000


def test_what_is_read_while_it_is_dropped_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = PredictionShard.open(store)
    whole = Store.array

    def dropped_in_between(self: Store, name: str) -> Any:
        array = whole(self, name)
        # Without its chunks an array is zeros.
        shutil.rmtree(store / name, ignore_errors=True)
        return array

    monkeypatch.setattr(Store, "array", dropped_in_between)
    for read in (lambda: shard.embeddings(np.array([1])), shard.rles):
        with pytest.raises(SegloopError, match=r"5.zarr lost \w+ while it was read: `retention` dropped it"):
            read()


def test_no_reader_meets_half_an_array(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def killed(folder: Path, **_: bool) -> None:
        seen.append(folder.name)

    monkeypatch.setattr(arrays.shutil, "rmtree", killed)
    drop_embeddings(store)
    assert not (store / "embedding").exists() and ".embedding.dropped" in seen
    monkeypatch.undo()
    drop_embeddings(store)
    assert not (store / ".embedding.dropped").exists()
    assert not any(name.startswith(".") for name in Store(store).attributes["files"])


@pytest.mark.parametrize("score", [0.0, 0.5, 0.97, 1.0])
def test_low_scores_lose_masks_and_embeddings_and_keep_their_rows(store: Path, score: float) -> None:
    whole = PredictionShard.open(store)
    rles, embeddings, scores = whole.rles(), whole.embeddings(), whole.score
    low, high = np.flatnonzero(scores <= np.float32(score)), np.flatnonzero(scores > np.float32(score))
    drop_low_scores(store, score)
    shard = PredictionShard.open(store)
    assert (shard.score == scores).all()
    assert shard.rles(high) == [rles[row] for row in high]
    assert shard.rles(high[::-1]) == [rles[row] for row in high[::-1]]
    assert (shard.embeddings(high) == embeddings[high]).all()
    assert (shard.embeddings(high[::3]) == embeddings[high[::3]]).all()
    if len(low):
        for read in (shard.rles, shard.embeddings):
            with pytest.raises(SegloopError, match=r"retention\.low_scores"):
                read(low[:1])
            with pytest.raises(SegloopError, match=r"retention\.low_scores"):
                read()


def test_both_in_any_order_and_again_and_again(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    subprocess.run(["cp", "-a", str(store), str(other)], check=True)
    drop_low_scores(store, 0.5)
    drop_embeddings(store)
    drop_embeddings(other)
    drop_low_scores(other, 0.5)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (store, other)]
    assert names[0] == names[1]
    shards = [PredictionShard.open(path) for path in (store, other)]
    high = np.flatnonzero(shards[0].score > 0.5)
    assert shards[0].rles(high) == shards[1].rles(high)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    drop_low_scores(store, 0.5)
    drop_embeddings(store)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_many_pieces_are_the_same(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PredictionShard.open(store)
    high = np.flatnonzero(whole.score > 0.3)
    rles, embeddings = whole.rles(high), whole.embeddings(high)
    for name in ("_EMBEDDINGS", "_COLUMN", "_BYTES"):
        monkeypatch.setattr(module, name, Layout(4, 8))
    drop_low_scores(store, 0.3)
    assert PredictionShard.open(store).rles(high) == rles
    assert (PredictionShard.open(store).embeddings(high) == embeddings).all()


@pytest.mark.parametrize("call", range(1, 8))
def test_killed_at_any_moment_it_is_whole_and_the_next_call_completes_it(store: Path, call: int) -> None:
    """The process is ended at its n-th call of a function that changes what lies on the disk."""
    whole = PredictionShard.open(store)
    high = np.flatnonzero(whole.score > 0.5)
    rles, embeddings = whole.rles(high), whole.embeddings(high)
    program = """
        import os, sys
        from pathlib import Path
        from segloop.store import arrays
        from segloop.store.predictions import drop_low_scores
        left = int(sys.argv[2])
        def dying(function):
            def call(*arguments, **options):
                global left
                left -= 1
                if not left:
                    os._exit(9)
                return function(*arguments, **options)
            return call
        arrays.shutil.rmtree = dying(arrays.shutil.rmtree)
        arrays.write_json = dying(arrays.write_json)
        arrays._add = dying(arrays._add)
        drop_low_scores(Path(sys.argv[1]), 0.5)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(store), str(call)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "scripts")}
    assert subprocess.run(command, env=environment, check=False).returncode in (0, 9)
    for _ in range(2):
        shard = PredictionShard.open(store)
        assert shard.rles(high) == rles
        assert (shard.embeddings(high) == embeddings).all()
        drop_low_scores(store, 0.5)
    assert not (store / "rle_counts").exists()
    assert not (store / "embedding").exists()


def test_partitions_lose_their_embeddings_alone(tmp_path: Path) -> None:
    path = tmp_path / "partitions.zarr"
    rows = np.arange(12, dtype=np.int64)
    partitions.write_partitions(
        path,
        blocks=[(rows, np.ones((12, 4), np.float16))],
        dim=4,
        row_id=rows.astype(np.uint64),
        norm=np.ones(12, np.float32),
        part_offset=np.array([0, 12]),
        part_category=np.array([3], np.int32),
        null_id=np.empty(0, np.uint64),
        attributes={"identity": "x"},
    )
    partitions.drop_embeddings(path)
    partitions.drop_embeddings(path)
    found = partitions.Partitions(path)
    assert found.rows == 12
    assert found.attributes == {"identity": "x"}
    assert found.row_id.tolist() == rows.tolist()
    with pytest.raises(SegloopError, match="no longer holds embeddings"):
        found.embeddings(0, 1)


def test_a_damaged_store_is_not_touched(store: Path) -> None:
    (store / "score" / "zarr.json").unlink()
    with pytest.raises(SegloopError, match="is incomplete"):
        drop_low_scores(store, 0.5)
    assert (store / "rle_counts").exists()
    assert arrays.DROPPED not in read_json(store / "zarr.json")["attributes"]
    with pytest.raises(SegloopError, match="not a Zarr store"):
        Store(store / "nothing", module.KIND)
