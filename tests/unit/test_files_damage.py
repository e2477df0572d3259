"""What a killed writer, an odd name or a damaged file must not do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segloop import files
from segloop.errors import SegloopError
from segloop.files import atomic_directory, atomic_file, parse_yaml, read_json, read_yaml, write_json

KILLED = """
import os, signal, sys
from segloop import files
path = files.Path(sys.argv[2])
with getattr(files, sys.argv[1])(path) as temporary:
    target = temporary / "part" if temporary.is_dir() else temporary
    target.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("writer", ["atomic_file", "atomic_directory"])
def test_a_killed_writer_leaves_nothing_that_lasts(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "a[1].json"
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, writer, str(path)], env=environment, check=False)
    assert done.returncode == -9
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".")
    with getattr(files, writer)(path) as temporary:
        (temporary / "part" if temporary.is_dir() else temporary).write_text("whole")
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_folder_is_never_seen_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store"
    path.mkdir()
    (path / "old").touch()
    removed = []
    monkeypatch.setattr(files.shutil, "rmtree", lambda folder, **_: removed.append(Path(folder)))
    with atomic_directory(path) as temporary:
        (temporary / "new").touch()
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert path not in removed
    assert [(folder / "old").exists() for folder in removed] == [True]


def test_a_folder_takes_the_place_of_a_file_and_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with atomic_directory(tmp_path / name) as temporary:
            (temporary / "new").touch()
        assert [entry.name for entry in (tmp_path / name).iterdir()] == ["new"]
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "target/kept").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link", "target"]


def test_a_file_that_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_json(tmp_path / "a.json", ["\ud800"])
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "b") as temporary:
        temporary.touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"{", b"[" * 200_000, b"1" * 5000, b'{"a": 1}x', b'"\xff"', b"\xff\xfe[\0]\0"],
)
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(SegloopError, match=r"a\.json is not valid JSON"):
        read_json(path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="cannot be read"):
        read_json(tmp_path)


BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: &a [*a]",
        "a: !!python/object/apply:os.system ['true']",
        "a: !!python/name:os.system",
        "a: 2020-13-45",
        "a: 0b_",
        f"a: {'9' * 5000}",
        "? [a, b]\n: 1",
        "\tb: 1",
        "a: " + "[" * 5000,
        "a: \0",
    ],
)
def test_what_is_no_plain_yaml_is_named_and_executes_nothing(text: str) -> None:
    with pytest.raises(SegloopError, match="the file is not valid YAML"):
        parse_yaml(text, "the file")


def test_yaml_whose_aliases_stand_for_billions_of_values_is_refused() -> None:
    with pytest.raises(SegloopError, match="stands for more than 1,000,000 values"):
        parse_yaml(BOMB, "the file")
    shared = parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a", "the file")
    assert shared == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}


def test_yaml_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    for path, reason in (
        (tmp_path, "cannot be read"),
        (tmp_path / "a.yaml", "cannot be read"),
        (tmp_path / "b", "exist"),
    ):
        with pytest.raises(SegloopError, match=f"the configuration .*{reason}"):
            read_yaml(path, "the configuration")
