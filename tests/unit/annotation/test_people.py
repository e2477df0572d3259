import json
import logging

import numpy as np
import pytest

from segloop.annotation.answers import NO, NO_REASONS, NOT_PART, OTHER, PURPOSES, REASONS, YES
from segloop.annotation.people import (
    NAMES,
    forget_annotator,
    policy_answers,
    read_gold,
    read_names,
    read_records,
    write_name,
)
from segloop.errors import SegloopError

FINE = {
    "answer_id": "a",
    "prediction": 5,
    "mask_key": "00" * 32,
    "annotator": "p1",
    "purpose": "decide",
    "reply": "yes",
}


def log_of(tmp_path, *lines, end="\n"):
    path = tmp_path / "answers.jsonl"
    text = [line if isinstance(line, str) else json.dumps(FINE | line, ensure_ascii=False) for line in lines]
    path.write_bytes(("\n".join(text) + end).encode())
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[]", "line 2 is not a JSON object"),
        ("{}", "line 2 lacks answer_id, prediction"),
        ({"mask_key": "xyz"}, "line 2 is no answer record"),
        ({"mask_key": "00"}, "line 2 is no answer record"),
        ({"prediction": "many"}, "line 2 is no answer record"),
        ({"prediction": -1}, "line 2 is no answer record"),
        ({"seconds": "long"}, "line 2 is no answer record"),
        ({"reply": "maybe"}, "line 2: reply 'maybe'"),
        ({"purpose": "fun"}, "purpose 'fun' is unknown"),
        ({"reply": "no", "reason": "ugly"}, "'ugly' is no reason of the reply no; known: wrong_class"),
        ({"reason": "partial"}, "'partial' is no reason of the reply yes; known: none"),
        ({"seconds": -1.0}, r"seconds is -1\.0"),
        ('{"seconds": NaN, ' + json.dumps(FINE)[1:], "seconds is nan"),
        ("[" * 100_000, "line 2 is not valid JSON"),
    ],
)
def test_damaged_records_are_named_by_their_line(tmp_path, line, message):
    with pytest.raises(SegloopError, match=message):
        read_records(log_of(tmp_path, {}, line, {"answer_id": "b"}))


def test_a_missing_file_of_answers(tmp_path):
    with pytest.raises(SegloopError, match="cannot be read"):
        read_records(tmp_path / "answers.jsonl")


def test_reasons_are_those_of_the_reply():
    assert REASONS == {"yes": (), "no": NO_REASONS, "other": (NOT_PART,)}
    assert len(set(NO_REASONS)) == 4


@pytest.mark.parametrize("reply", ["no", "other"])
def test_known_reasons_are_kept(tmp_path, reply):
    lines = [{"answer_id": word, "reply": reply, "reason": word} for word in REASONS[reply]]
    assert [record["reason"] for record in read_records(log_of(tmp_path, *lines))] == list(REASONS[reply])


# --- the log as it was left -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 80, -1])
def test_a_log_cut_in_mid_line_loses_the_fragment_alone(tmp_path, caplog, cut):
    path = log_of(tmp_path, {}, {"answer_id": "b"})
    last = json.dumps(FINE | {"answer_id": "c", "text_version": "ü"}, ensure_ascii=False)
    content = path.read_bytes() + last.encode()[:cut]
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "segloop.annotation"):
        records = read_records(path)
    assert [record["answer_id"] for record in records] == ["a", "b"]
    assert "ends in the middle of line 3" in caplog.text
    assert path.read_bytes() == content


def test_a_character_cut_in_two_is_a_fragment_too(tmp_path, caplog):
    path = log_of(tmp_path, {})
    path.write_bytes(path.read_bytes() + b'{"annotator": "\xc3')
    with caplog.at_level(logging.WARNING, "segloop.annotation"):
        assert len(read_records(path)) == 1
    assert "line 2" in caplog.text


def test_brackets_without_end_are_an_error_with_their_line(tmp_path):
    path = log_of(tmp_path, {})
    path.write_bytes(path.read_bytes() + b"[" * 200_000)
    with pytest.raises(SegloopError, match="line 2 is not valid JSON"):
        read_records(path)


def test_a_whole_last_line_needs_no_newline(tmp_path, caplog):
    assert len(read_records(log_of(tmp_path, {}, {"answer_id": "b"}, end=""))) == 2
    assert read_records(log_of(tmp_path, "", "", end="")) == []
    assert caplog.text == ""


def test_a_fragment_with_answers_behind_it_is_an_error(tmp_path):
    with pytest.raises(SegloopError, match="line 2 is not valid JSON"):
        read_records(log_of(tmp_path, {}, '{"answer_id": "b', {"answer_id": "c"}))


def test_separators_within_text_end_no_line(tmp_path):
    (record,) = read_records(log_of(tmp_path, {"text_version": "one\u2028two\x85three"}))
    assert record["text_version"] == "one\u2028two\x85three"


def test_a_batch_imported_twice_counts_once(tmp_path):
    batch = [{}, {"answer_id": "b", "reply": "no", "seconds": 1.25}]
    records = read_records(log_of(tmp_path, *batch, *batch))
    assert [record["answer_id"] for record in records] == ["a", "b"]


def test_two_answers_with_one_id_are_an_error(tmp_path):
    with pytest.raises(SegloopError, match=r"line 3 holds another answer with the id a of line 1"):
        read_records(log_of(tmp_path, {}, {"answer_id": "b"}, {"reply": "no"}))


# --- several annotators -----------------------------------------------------------------------------------------------


def seen(make_tree, make_world, answers, votes=1):
    """Return what a policy sees of answers about the first rows: (row, annotator, purpose, reply)."""
    world = make_world(make_tree([1] * 6))
    records = [
        {"prediction": int(world.prediction[row]), "annotator": who, "purpose": purpose, "reply": reply, "node": None}
        for row, who, purpose, reply in answers
    ]
    log = policy_answers(records, np.array([row for row, *_ in answers], np.int64), world, votes)
    return list(zip(world.rows_of(log.prediction).tolist(), log.reply.tolist(), log.purpose.tolist(), strict=True))


def test_contradicting_answers_decide_nothing(make_tree, make_world):
    answers = [(0, "p", "decide", "yes"), (1, "p", "decide", "yes"), (0, "q", "decide", "no")]
    assert seen(make_tree, make_world, answers) == [(1, YES, 0), (0, OTHER, 0)]


def test_the_majority_counts_and_a_correction_replaces_ones_own_answer(make_tree, make_world):
    three = [(0, who, "decide", reply) for who, reply in (("p", "yes"), ("q", "no"), ("r", "no"))]
    assert seen(make_tree, make_world, three) == [(0, NO, 0)]
    assert seen(make_tree, make_world, [*three, (0, "q", "decide", "yes")]) == [(0, YES, 0)]
    assert seen(make_tree, make_world, [(0, "p", "decide", "no"), (0, "p", "decide", "yes")]) == [(0, YES, 0)]


def test_a_question_of_an_audit_is_open_until_enough_people_have_answered(make_tree, make_world):
    two = [(0, "p", "audit", "yes"), (0, "p", "audit", "yes"), (0, "q", "audit", "yes"), (1, "q", "decide", "no")]
    assert seen(make_tree, make_world, two, votes=3) == [(1, NO, 0)]
    audit = PURPOSES.index("audit")
    assert seen(make_tree, make_world, [*two, (0, "r", "audit", "no")], votes=3) == [(1, NO, 0), (0, YES, audit)]


def test_answers_that_measure_annotators_are_not_seen(make_tree, make_world):
    answers = [(0, "p", "gold", "yes"), (1, "p", "repeat", "no"), (2, "p", "pilot", "no")]
    assert seen(make_tree, make_world, answers) == [(2, NO, PURPOSES.index("pilot"))]
    assert seen(make_tree, make_world, []) == []


# --- gold and names ---------------------------------------------------------------------------------------------------


def test_gold_masks_by_key(tmp_path):
    path = tmp_path / "gold.json"
    path.write_text(json.dumps({"00" * 32: "yes", "ff" * 32: "no"}))
    assert read_gold(path) == {bytes(32): True, b"\xff" * 32: False}
    assert read_gold(None) == {}


@pytest.mark.parametrize(
    "content", [["a"], {"xyz": "yes"}, {"00" * 32: "other"}, {"00" * 32: 1}, {"00": "yes"}, {"00" * 32: ["no"]}]
)
def test_damaged_gold_is_named(tmp_path, content):
    path = tmp_path / "gold.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SegloopError, match=r"gold\.json"):
        read_gold(path)


def test_a_person_is_forgotten_without_touching_answers(tmp_path):
    log = log_of(tmp_path, {"annotator": "p1"}, {"answer_id": "b", "annotator": "p2"})
    before = log.read_bytes()
    write_name(tmp_path, "p1", "Ada Example")
    write_name(tmp_path, "p2", "Ben Example")
    forget_annotator(tmp_path, "p1")
    assert read_names(tmp_path) == {"p2": "Ben Example"}
    assert "Ada" not in "".join(path.read_text() for path in tmp_path.iterdir())
    assert log.read_bytes() == before
    with pytest.raises(SegloopError, match="no annotator 'p1'"):
        forget_annotator(tmp_path, "p1")


def test_a_table_of_names_that_is_none(tmp_path):
    assert read_names(tmp_path) == {}
    (tmp_path / NAMES).write_text('{"p1": 7}')
    with pytest.raises(SegloopError, match="does not map ids to names"):
        read_names(tmp_path)
