import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloop.ids import mask_key, prediction_ids, unpack_prediction_ids


@given(
    st.integers(1, 255), st.integers(0, (1 << 24) - 1), st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=9)
)
def test_packing_is_undone_and_keeps_the_order(iteration: int, shard: int, rows: list[int]) -> None:
    ids = prediction_ids(iteration, shard, np.array(sorted(rows), np.int64))
    assert ids.dtype == np.uint64
    assert (np.diff(ids.astype(object)) >= 0).all()
    iterations, shards, found = unpack_prediction_ids(ids)
    assert set(iterations.tolist()) == {iteration}
    assert set(shards.tolist()) == {shard}
    assert found.tolist() == sorted(rows)


def test_the_layout_is_eight_twenty_four_and_thirty_two_bits() -> None:
    assert prediction_ids(1, 2, 3).tolist() == [0x01000002_00000000, 0x01000002_00000001, 0x01000002_00000002]
    assert prediction_ids(255, (1 << 24) - 1, np.array([(1 << 32) - 1])).tolist() == [(1 << 64) - 1]
    assert len(prediction_ids(1, 0, 0)) == 0


def test_ids_of_an_earlier_iteration_or_shard_come_first() -> None:
    last = prediction_ids(1, (1 << 24) - 1, np.array([(1 << 32) - 1]))[0]
    assert last < prediction_ids(2, 0, 1)[0]
    assert prediction_ids(1, 0, np.array([(1 << 32) - 1]))[0] < prediction_ids(1, 1, 1)[0]


@pytest.mark.parametrize(
    ("iteration", "shard", "row"), [(0, 0, 0), (256, 0, 0), (1, -1, 0), (1, 1 << 24, 0), (1, 0, 1 << 32)]
)
def test_what_does_not_fit_is_refused(iteration: int, shard: int, row: int) -> None:
    with pytest.raises(ValueError, match=r"outside|fit"):
        prediction_ids(iteration, shard, np.array([row]))


def test_a_mask_key_is_the_sha_of_image_category_size_and_runs() -> None:
    expected = hashlib.sha256(b"7 2 3 4 0<").digest()
    assert mask_key(7, 2, (3, 4), b"0<") == expected
    others = [(8, 2, (3, 4), b"0<"), (7, 1, (3, 4), b"0<"), (7, 2, (4, 3), b"0<"), (7, 2, (3, 4), b"<")]
    assert len({mask_key(*other) for other in others} | {expected}) == 5
