from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from segloop.errors import SegloopError
from segloop.store.index import Index, read_index, read_index_attributes, read_index_columns, write_index


def index(n: int, predicted_iou: bool = False) -> Index:
    rng = np.random.default_rng(n)
    return Index(
        prediction=np.sort(rng.choice(1 << 40, n, replace=False).astype(np.uint64)) + np.uint64(1 << 60),
        image_id=rng.integers(0, 1 << 40, n),
        category=rng.integers(1, 9, n).astype(np.int32),
        score=rng.random(n, np.float32),
        box=rng.random((n, 4), np.float32),
        area=rng.integers(1, 1 << 40, n),
        predicted_iou=rng.random(n, np.float32) if predicted_iou else None,
        mask_key=rng.integers(0, 256, (n, 32)).astype(np.uint8),
        duplicate_of=rng.integers(0, 2, n).astype(np.uint64),
        inherited=rng.integers(-1, 2, n).astype(np.int8),
    )


@pytest.mark.parametrize("n", [0, 1, 1000])
@pytest.mark.parametrize("predicted_iou", [False, True])
def test_what_is_written_is_read(tmp_path: Path, n: int, predicted_iou: bool) -> None:
    written = index(n, predicted_iou)
    write_index(tmp_path / "index.zarr", written, {"iteration": 1, "score": 0.5})
    found = read_index(tmp_path / "index.zarr")
    for field in fields(written):
        a, b = getattr(written, field.name), getattr(found, field.name)
        if a is None:
            assert b is None
            continue
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    assert read_index_attributes(tmp_path / "index.zarr") == {"iteration": 1, "score": 0.5, "rows": n}


def test_single_columns(tmp_path: Path) -> None:
    write_index(tmp_path / "index.zarr", index(9), {})
    score, key = read_index_columns(tmp_path / "index.zarr", "score", "mask_key")
    assert np.array_equal(score, index(9).score)
    assert np.array_equal(key, index(9).mask_key)
    with pytest.raises(SegloopError, match="no column predicted_iou"):
        read_index_columns(tmp_path / "index.zarr", "predicted_iou")


def test_bad_columns_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ascend"):
        write_index(tmp_path / "index.zarr", replace(index(5), prediction=np.zeros(5, np.uint64)), {})
    with pytest.raises(ValueError, match="box"):
        write_index(tmp_path / "index.zarr", replace(index(5), box=np.zeros((5, 3), np.float32)), {})
    with pytest.raises(ValueError, match="area"):
        write_index(tmp_path / "index.zarr", replace(index(5), area=np.zeros(4, np.int64)), {})
    assert list(tmp_path.iterdir()) == []


def test_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"index\.zarr"):
        read_index(tmp_path / "index.zarr")
