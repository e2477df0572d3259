import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmelite.loop.handover import append_lines


def record(name):
    return {"answer_id": name, "mask_key": bytes(32), "annotator": "ü\n"}


def line(name):
    plain = record(name) | {"mask_key": "00" * 32}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def test_lines_are_only_appended_each_once(tmp_path):
    path = tmp_path / "iter_1" / "answers.jsonl"
    assert append_lines(path, [], "answer_id") == 0 and path.read_bytes() == b""
    assert append_lines(path, [record("a"), record("b")], "answer_id") == 2
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    assert before == line("a") + line("b")
    assert append_lines(path, [record("b"), record("a")], "answer_id") == 0
    assert path.stat().st_mtime_ns == time, "a file that did not change must not make the run go back"
    assert append_lines(path, [record("b"), record("c")], "answer_id") == 1
    assert path.read_bytes() == before + line("c")
    assert [one.name for one in path.parent.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("given_before", [b"", line("x"), line("x") + b"\n" + line("y")])
def test_a_cut_line_moves_aside_and_nothing_else_changes(tmp_path, given_before):
    path = tmp_path / "answers.jsonl"
    cut = line("z")[:25]
    path.write_bytes(given_before + cut)
    assert append_lines(path, [record("a")], "answer_id") == 1
    assert path.read_bytes() == given_before + line("a")
    assert path.with_name("answers.jsonl.cut").read_bytes() == cut + b"\n"


def test_a_whole_last_line_without_its_end_stays(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(line("x") + line("y")[:-1])
    append_lines(path, [record("y"), record("a")], "answer_id")
    assert path.read_bytes() == line("x") + line("y") + line("a")


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=5), max_size=5))
def test_any_batches_in_any_order_stand_there_once(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("log") / "answers.jsonl"
    seen: list[str] = []
    for names in batches:
        names = list(dict.fromkeys(names))
        append_lines(path, [record(name) for name in names], "answer_id")
        seen += [name for name in names if name not in seen]
        assert path.read_bytes() == b"".join(line(name) for name in seen)
