import os
from pathlib import Path

import pytest

from segloop.errors import SegloopError
from segloop.files import (
    atomic_directory,
    atomic_file,
    fingerprint,
    read_json,
    remove_leftovers,
    sha256_file,
    write_json,
)


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_file(path) as temporary:
        temporary.write_text("new")
        raise ValueError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    (path / "old").write_text("old")
    with atomic_directory(path) as temporary:
        (temporary / "new").write_text("new")
        assert (path / "old").exists()
    assert [entry.name for entry in path.iterdir()] == ["new"]


def test_a_failing_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    with pytest.raises(ValueError, match="stop"), atomic_directory(path):
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead, alive, foreign = tmp_path / ".a.tmp-999999999", tmp_path / f".a.tmp-{os.getppid()}", tmp_path / ".b.tmp-1"
    for folder in (dead, alive, foreign):
        folder.mkdir()
    remove_leftovers(tmp_path / "a")
    assert sorted(tmp_path.iterdir()) == sorted([alive, foreign])


def test_json_comes_back_and_nan_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ü": [1, None, 0.5]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None, 0.5]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None, 0.5]}


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")
    for number, content in enumerate((b'{"a": ', b"\xff\xfe")):
        path = tmp_path / f"bad{number}.json"
        path.write_bytes(content)
        with pytest.raises(SegloopError, match=rf"bad{number}\.json is not valid JSON"):
            read_json(path)


def test_the_hash_and_the_fingerprint_follow_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert fingerprint(path).endswith("missing")
    path.write_bytes(b"abc")
    before = fingerprint(path)
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abcd")
    assert fingerprint(path) != before
