import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.data import json_stream
from segloop.data.json_stream import JsonFile, loads
from segloop.errors import SegloopError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["{", '"}', "\\", "[,]", "a{b}"]
)
numbers = st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    texts | numbers | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def gathered(path: Path) -> Any:
    with JsonFile(path) as file:
        members = list(file.members())
        for member in members:
            assert file.read(member.start, member.length) == member.value
        if file.is_list:
            return [member.value for member in members]
        found: dict[str, Any] = {key: [] for key in file.lists}
        for member in members:
            if member.listed:
                found[member.key].append(member.value)
            else:
                found[member.key] = member.value
        return found


@settings(max_examples=200)
@given(
    st.dictionaries(texts, values, max_size=5) | st.lists(values, max_size=6), st.sampled_from([None, 1]), st.booleans()
)
def test_what_json_reads_is_read_in_parts_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, value: Any, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    for block in (1, 7, 1 << 22):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_stream, "_BLOCK", block)
            assert gathered(path) == value


def test_a_mark_at_the_beginning_and_blanks_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf \n{ "a" :\t[ 1 , {"b": "\xc3\xa4"} ]\r\n, "c": 1.5 } \n')
    assert gathered(path) == {"a": [1, {"b": "ä"}], "c": 1.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither an object nor a list"),
        (b"12", "neither an object nor a list"),
        (b'{"a": [1, 2', "ends in the middle|',' is missing|near byte"),
        (b'{"a": [1 2]}', "',' is missing"),
        (b'{"a": [{"b": 1} {"b": 2}]}', "',' is missing"),
        (b'{"a": [{"b": }]}', "near byte 7"),
        (b'{"a": [{"b": [1}]}]}', "near byte"),
        (b'{"a" [1]}', "':' is missing"),
        (b"{1: 2}", "a key is no text"),
        (b'{"a": 1, "a": 2}', "the key 'a' twice"),
        (b'{"a": 1}}', "more after its end"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "not valid JSON"),
        (b'{"a": 1' + b"0" * 10_000 + b"}", "not valid JSON"),
        (b"[,]", "not valid JSON"),
        (b"[1,]", "not valid JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(SegloopError, match=message):
        gathered(path)


def test_a_record_without_end_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_BLOCK", 1 << 10)
    monkeypatch.setattr(json_stream, "MAX_RECORD", 1 << 14)
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": "' + b"x" * (1 << 20))
    with pytest.raises(SegloopError, match="longer than 16384 bytes"):
        gathered(path)


def test_nan_and_halves_of_characters_pass_as_they_do_in_the_standard_library() -> None:
    assert str(loads(b'[NaN, -Infinity, "\\ud800"]')) == str([float("nan"), float("-inf"), "\ud800"])
    with pytest.raises(ValueError):
        loads(b"[nan]")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"none\.json does not exist"):
        JsonFile(tmp_path / "none.json")
    with pytest.raises(SegloopError, match="cannot be read"):
        JsonFile(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}]')
    with JsonFile(path) as file:
        (member,) = file.members()
        path.write_text("[          ")
        with pytest.raises(SegloopError, match="changed while it was read"):
            file.read(member.start, member.length)
