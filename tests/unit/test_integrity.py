import subprocess
from pathlib import Path

import pytest

from segloop import integrity
from segloop.errors import SegloopError
from segloop.files import atomic_file, read_json, write_json


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_PAUSE", 0.0)


def test_the_checksum_is_one_that_sha256sum_reads(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    checksum = integrity.checksum_path(tmp_path / "a.json")
    assert checksum.name == ".a.json.sha256"
    done = subprocess.run(["sha256sum", "-c", checksum.name], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "a.json: OK\n"
    assert integrity.is_whole(tmp_path / "a.json") is True


def test_every_flipped_bit_is_noticed(tmp_path: Path, no_pause: None) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 12})
    whole = path.read_bytes()
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(SegloopError, match=r"a\.json is damaged: .*Delete both and run again"):
            read_json(path)
    path.write_bytes(whole)
    assert read_json(path) == {"a": 12}


def test_a_damaged_checksum_is_noticed_too_and_an_empty_one_is_none(tmp_path: Path, no_pause: None) -> None:
    path = tmp_path / "a.json"
    write_json(path, {})
    checksum = integrity.checksum_path(path)
    checksum.write_text(checksum.read_text().translate(str.maketrans("0123", "1230")))
    assert integrity.is_whole(path) is False
    checksum.write_text("")
    assert integrity.is_whole(path) is None
    assert read_json(path) == {}


def test_a_file_of_other_hands_has_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    assert integrity.is_whole(path) is None and read_json(path) == [1]
    integrity.check(path)
    integrity.check(tmp_path / "missing")
    write_json(path, [2], sealed=False)
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_replacing_a_file_replaces_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in ("one", "two"):
        with atomic_file(path, sealed=True) as temporary:
            temporary.write_text(content)
        assert integrity.is_whole(path) is True
    with atomic_file(path) as temporary:
        temporary.write_text("three")
    assert integrity.is_whole(path) is None


def test_a_writer_that_fails_leaves_file_and_checksum_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert integrity.is_whole(path) is True and read_json(path) == [1]


def test_a_pair_that_another_process_is_just_replacing_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1])
    old = path.read_bytes()
    write_json(path, [2])
    new = path.read_bytes()
    path.write_bytes(old)
    monkeypatch.setattr(integrity.time, "sleep", lambda _: path.write_bytes(new))
    assert read_json(path) == [2]
