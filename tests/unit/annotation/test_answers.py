import numpy as np
import pyarrow as pa
import pytest

from segloop.annotation.answers import ANSWER_SCHEMA, NO, OTHER, YES, Answers, answer_id, read_answers, write_answers
from segloop.errors import SegloopError


def record(**given):
    values = {
        "schema": 1,
        "answer_id": "a",
        "prediction": 2**63 + 5,
        "mask_key": bytes(range(32)),
        "annotator": "ann",
        "purpose": "decide",
        "reply": "yes",
        "t_iou": 0.8,
        "seconds": 1.5,
        "counted_at": [4, 7],
    }
    return values | given


def table_of(*records):
    return pa.Table.from_pylist(list(records), schema=ANSWER_SCHEMA)


def test_answers_come_back_as_written(tmp_path):
    table = table_of(record(), record(reply="no", node=3, draw=1, batch=0), record(reply="other", purpose="audit"))
    write_answers(tmp_path / "answers.parquet", table)
    assert read_answers(tmp_path / "answers.parquet").equals(table)


def test_same_answers_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_answers(tmp_path / name, table_of(record(), record(reply="no")))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_policies_see_numbers():
    answers = Answers.from_table(table_of(record(), record(reply="no", node=3), record(reply="other", purpose="gold")))
    assert answers.reply.tolist() == [YES, NO, OTHER]
    assert answers.node.tolist() == [-1, 3, -1]
    assert answers.purpose.tolist() == [0, 0, 4]
    assert answers.prediction.tolist() == [2**63 + 5] * 3


def test_no_answers_at_all(tmp_path):
    write_answers(tmp_path / "answers.parquet", table_of())
    assert len(Answers.from_table(read_answers(tmp_path / "answers.parquet"))) == 0
    assert len(Answers.join([])) == 0


@pytest.mark.parametrize(("column", "word"), [("reply", "maybe"), ("purpose", "fun")])
def test_unknown_words_are_named(column, word):
    with pytest.raises(SegloopError, match=f"{column} '{word}'"):
        Answers.from_table(table_of(record(**{column: word})))


def test_join_keeps_the_order():
    one = Answers.from_table(table_of(record(reply="no")))
    two = Answers.from_table(table_of(record(reply="yes"), record(reply="no")))
    assert Answers.join([one, two]).reply.tolist() == [NO, YES, NO]


def test_answer_ids_differ_in_whatever_differs():
    key = bytes(32)
    ids = [
        answer_id(key, "a", "decide", 1),
        answer_id(key, "b", "decide", 1),
        answer_id(key, "a", "audit", 1),
        answer_id(key, "a", "decide", 2),
        answer_id(key, "a", "decide", 1, 1),
        answer_id(bytes(31) + b"x", "a", "decide", 1),
    ]
    assert len(set(ids)) == len(ids)
    assert answer_id(key, "a", "decide", 1) == ids[0]
    assert all(len(name) == 32 for name in ids)


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    with pytest.raises(SegloopError, match="does not exist"):
        read_answers(tmp_path / "none.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SegloopError, match=r"broken\.parquet is not a readable"):
        read_answers(tmp_path / "broken.parquet")
    old = table_of(record()).drop_columns(["counted_at"])
    pa.parquet.write_table(old, tmp_path / "old.parquet")
    with pytest.raises(SegloopError, match=r"old\.parquet .*counted_at"):
        read_answers(tmp_path / "old.parquet")


def test_columns_of_another_type_are_refused(tmp_path):
    table = table_of(record())
    place = table.schema.get_field_index("seconds")
    pa.parquet.write_table(table.set_column(place, "seconds", pa.array(["1"])), tmp_path / "typed.parquet")
    with pytest.raises(SegloopError, match="other types"):
        read_answers(tmp_path / "typed.parquet")


def test_long_columns_come_back(tmp_path):
    many = table_of(*[record(answer_id=str(number)) for number in range(1000)])
    write_answers(tmp_path / "answers.parquet", many)
    assert np.array_equal(read_answers(tmp_path / "answers.parquet").column("answer_id"), many.column("answer_id"))
