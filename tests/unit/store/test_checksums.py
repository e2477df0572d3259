"""Whatever happens to a byte of a store, it is noticed."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.store.arrays import Layout, Store, StoreWriter, drop_arrays

LAYOUTS = {"plain": Layout(8, 16), "raw": Layout(8, 16, compressed=False)}


def make(path: Path) -> Path:
    with StoreWriter(path, "test", {"fact": 7}) as store:
        for name, layout in LAYOUTS.items():
            store.write(name, np.arange(40, dtype=np.float32), layout)
    return path


def read(path: Path) -> dict[str, Any]:
    store = Store(path, "test")
    return {name: store.read(name).tolist() for name in LAYOUTS} | {"fact": store.attributes["fact"]}


def files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("store") / "a.zarr")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_refused_when_it_is_read(store: Path, data: st.DataObject) -> None:
    wanted = read(store)
    file = data.draw(st.sampled_from(files(store)))
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(damaged)
    try:
        with pytest.raises(SegloopError, match=r"a\.zarr") as caught:
            assert read(store) == wanted
            Store(store).verify()
        assert any(word in str(caught.value) for word in ("Delete it", "Run the step", "delete it", "Give the right"))
    finally:
        file.write_bytes(whole)
    assert read(store) == wanted


@pytest.mark.parametrize("bit", [0, 5])
def test_every_byte_of_the_description_counts(store: Path, bit: int) -> None:
    file = store / "zarr.json"
    whole = file.read_bytes()
    try:
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(SegloopError, match=r"a\.zarr"):
                read(store)
    finally:
        file.write_bytes(whole)


def test_metadata_that_others_consolidate_is_no_damage(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr")
    wanted = read(path)
    with warnings.catch_warnings():
        # Zarr says that consolidated metadata is not in the specification yet.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)
    assert "consolidated_metadata" in read_json(path / "zarr.json")
    assert read(path) == wanted


def test_verify_names_the_array(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr")
    Store(path).verify()
    (chunk,) = (one for one in files(path / "raw") if one.name == "1")
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    # Rows that lie elsewhere can still be read.
    assert Store(path).read("raw", 0, 8).tolist() == list(range(8))
    with pytest.raises(SegloopError, match=r"a\.zarr is damaged \(array raw: .*Delete it"):
        Store(path).verify()


def test_a_store_of_the_version_before_is_read_without_checksums(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr")
    wanted = read(path)
    root = path / "zarr.json"
    metadata = read_json(root)
    assert metadata["attributes"]["schema_version"] == 2
    # A version number alone is no way around the checksums.
    metadata["attributes"]["schema_version"] = 1
    root.write_text(json.dumps(metadata))
    with pytest.raises(SegloopError, match="its attributes are not those that were written"):
        Store(path)
    del metadata["attributes"]["sha256"], metadata["attributes"]["metadata_sha256"]
    root.write_text(json.dumps(metadata))
    store = Store(path)
    assert read(path) == wanted and not store.checked
    drop_arrays(path, "test", ["raw"])
    assert not Store(path).checked and Store(path).read("plain").tolist() == wanted["plain"]


def test_what_is_left_after_dropping_is_under_checksums(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr")
    drop_arrays(path, "test", ["raw"])
    store = Store(path, "test")
    store.verify()
    assert store.checked and set(store.attributes["metadata_sha256"]) == {"plain/zarr.json"}
