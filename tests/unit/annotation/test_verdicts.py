import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.annotation.verdicts import REASONS, VERDICT_SCHEMA, Verdicts, read_verdicts, write_verdicts
from segloop.errors import SegloopError

IDS = ("1:all", "1:rest")


def verdicts_of(rows):
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), ()]
    dtypes = (np.uint64, np.int8, np.int8, np.int64, np.int16)
    return Verdicts(*(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)), IDS)


ROW = st.tuples(
    st.integers(0, 2**64 - 1),
    st.integers(-1, 1),
    st.integers(0, len(REASONS) - 1),
    st.integers(-1, 2**40),
    st.integers(-1, len(IDS) - 1),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(ROW, max_size=30, unique_by=lambda row: row[0]))
def test_verdicts_come_back_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("v") / "verdicts.parquet"
    verdicts = verdicts_of(sorted(rows))
    write_verdicts(path, verdicts)
    back = read_verdicts(path)
    for name in ("prediction", "verdict", "reason", "node"):
        assert np.array_equal(getattr(back, name), getattr(verdicts, name)), name
        assert getattr(back, name).dtype == getattr(verdicts, name).dtype
    assert [named(back, place) for place in range(len(rows))] == [named(verdicts, place) for place in range(len(rows))]


def named(verdicts, place):
    """Return the name of a certificate; their order in the file is that of their first mask."""
    certificate = int(verdicts.certificate[place])
    return None if certificate < 0 else verdicts.certificate_ids[certificate]


def test_words_stand_on_disk(tmp_path):
    write_verdicts(tmp_path / "v", verdicts_of([(1, 1, 2, 9, 1), (2, -1, 1, -1, -1), (3, 0, 0, -1, -1)]))
    assert pq.read_table(tmp_path / "v").to_pylist() == [
        {"prediction": 1, "verdict": "accepted", "reason": "cluster", "node": 9, "certificate_id": "1:rest"},
        {"prediction": 2, "verdict": "rejected", "reason": "answered", "node": None, "certificate_id": None},
        {"prediction": 3, "verdict": "undecided", "reason": None, "node": None, "certificate_id": None},
    ]


def test_order_is_ascending_and_ids_are_unique(tmp_path):
    for ids in ([2, 1], [1, 1]):
        with pytest.raises(ValueError, match="ascending"):
            write_verdicts(tmp_path / "v", verdicts_of([(number, 1, 1, -1, -1) for number in ids]))


def test_unknown_verdicts_are_named(tmp_path):
    row = {"prediction": 1, "verdict": "perhaps", "reason": None, "node": None, "certificate_id": None}
    pq.write_table(pa.Table.from_pylist([row], schema=VERDICT_SCHEMA), tmp_path / "v")
    with pytest.raises(SegloopError, match="verdict 'perhaps'"):
        read_verdicts(tmp_path / "v")
