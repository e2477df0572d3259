"""Zarr folders that are whole or absent: the one place that knows how arrays lie on disk.

A store is a Zarr 3 group of arrays that share nothing but the folder. Arrays are chunked and sharded, so that even
millions of rows make few files. The attributes of the group list every file with its size: Zarr reads a missing
chunk as zeros without a word, so that a store from which a file was lost would otherwise be believed.

Every byte is under a checksum, so that a store that was damaged is never believed: chunks and the index of a shard by
their CRC32C when they are read, the metadata of an array by its SHA-256 when the array is opened, and the attributes by
theirs when the store is. `Store.verify` reads everything.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from segloop.errors import SegloopError
from segloop.files import atomic_directory, read_json, sha256_file, write_json

SCHEMA_VERSION = 2
UNCHECKED_VERSION = 1
"""The version before: the same layout, whose only checksums are those inside compressed chunks."""
DROPPED = "dropped"
"""Attribute: arrays that a store had, and that were dropped to save space."""

# Plain columns: chunks of half a megabyte compress well, and 46 million rows still make only a few files.
_CHUNK_ROWS, _SHARD_ROWS = 1 << 16, 1 << 22


class ArrayWriter:
    """One array that grows: rows are buffered and leave in whole shards, so that no shard is ever rewritten.

    An array whose length (`rows`) is known beforehand is made with it: making one longer writes its metadata again.
    """

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        dtype: npt.DTypeLike,
        row: tuple[int, ...],
        layout: "Layout",
        rows: int = 0,
    ):
        self._done, self._rows = 0, rows
        self._dtype = np.dtype(dtype)
        self._row = row
        self._layout = layout
        self._pending: list[npt.NDArray[Any]] = []
        self._pending_rows = 0
        self._array: Any = group.create_array(
            name,
            shape=(rows, *row),
            chunks=(layout.chunk_rows, *row),
            shards=(layout.shard_rows, *row),
            dtype=self._dtype,
            compressors=[*([ZstdCodec(level=3)] if layout.compressed else []), Crc32cCodec()],
            fill_value=0,
        )

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add rows; they are copied, so that the caller may reuse the array."""
        rows = np.array(rows, dtype=self._dtype, ndmin=1)
        if rows.shape[1:] != self._row:
            raise ValueError(f"rows of shape {rows.shape[1:]} do not fit an array of rows {self._row}")
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows >= self._layout.shard_rows:
            self._flush(self._pending_rows // self._layout.shard_rows * self._layout.shard_rows)

    def close(self) -> None:
        """Write what is still buffered."""
        self._flush(self._pending_rows)

    def _flush(self, count: int) -> None:
        if not count:
            return
        rows = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending)
        end = self._done + count
        if end > self._rows:
            self._array.resize((end, *self._row))
        self._array[self._done : end] = rows[:count]
        self._done = end
        self._pending = [rows[count:]] if count < len(rows) else []
        self._pending_rows = len(rows) - count


class Layout:
    """How the rows of an array are cut into chunks (the unit of reading) and shards (the unit of writing: files)."""

    def __init__(self, chunk_rows: int = _CHUNK_ROWS, shard_rows: int = _SHARD_ROWS, compressed: bool = True):
        self.chunk_rows = chunk_rows
        self.shard_rows = math.ceil(shard_rows / chunk_rows) * chunk_rows
        self.compressed = compressed


PLAIN = Layout()


def fitted(rows: int, layout: Layout) -> Layout:
    """Return `layout` without the padding that a short array would get: a chunk is never longer than the array."""
    return Layout(min(layout.chunk_rows, max(rows, 1)), min(layout.shard_rows, max(rows, 1)), layout.compressed)


@dataclass(frozen=True)
class NewArray:
    """An array that joins a store which exists already: its rows come in pieces."""

    name: str
    dtype: npt.DTypeLike
    row: tuple[int, ...]
    layout: Layout
    rows: Iterable[npt.NDArray[Any]]


class StoreWriter:
    """Writes a store under a temporary name; the clean end of the `with` block gives it its own."""

    def __init__(self, path: str | Path, kind: str, attributes: dict[str, Any]):
        self._path = Path(path)
        self._kind = kind
        self.attributes = dict(attributes)
        self._columns: list[ArrayWriter] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = self._stack.enter_context(atomic_directory(self._path))
        self._group = zarr.create_group(self.folder, zarr_format=3)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def create(
        self, name: str, dtype: npt.DTypeLike, row: tuple[int, ...] = (), layout: Layout = PLAIN, rows: int = 0
    ) -> ArrayWriter:
        """Return a new array that grows by `append`, of at least `rows` rows at the end; the store closes it."""
        column = ArrayWriter(self._group, name, dtype, row, layout, rows)
        self._columns.append(column)
        return column

    def write(self, name: str, rows: npt.NDArray[Any], layout: Layout = PLAIN) -> None:
        """Write a whole array at once."""
        layout = fitted(len(rows), layout)
        column = self.create(name, rows.dtype, rows.shape[1:], layout, len(rows))
        for start in range(0, len(rows), layout.shard_rows):
            column.append(rows[start : start + layout.shard_rows])
        column.close()

    def _finish(self) -> None:
        for column in self._columns:
            column.close()
        own = {"kind": self._kind, "schema_version": SCHEMA_VERSION}
        self._group.attrs.put(_sealed(own | self.attributes, self.folder, _sizes(self.folder)))


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent != folder)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}


def _sealed(attributes: dict[str, Any], folder: Path, files: dict[str, int]) -> dict[str, Any]:
    """Return attributes with the list of files, the hashes of the arrays' metadata, and a hash of all of it."""
    metadata = {name: sha256_file(folder / name) for name in files if name.endswith("/zarr.json")}
    attributes = attributes | {"files": files, "metadata_sha256": metadata}
    return attributes | {"sha256": _digest(attributes)}


def _digest(attributes: dict[str, Any]) -> str:
    rest = {key: value for key, value in attributes.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


_BESIDE_ATTRIBUTES: Final = {"zarr_format": 3, "node_type": "group"}
"""What the description of a store says besides its attributes."""


class Store:
    """A store that exists and is whole; arrays are read when they are asked for.

    Parameters
    ----------
    kind
        What it must hold; None: anything.

    Raises
    ------
    SegloopError
        If the store is missing, truncated, of another kind or of another schema version; the message names it.
    """

    def __init__(self, path: str | Path, kind: str | None = None):
        self.path = Path(path)
        self._trusted: set[str] = set()
        if not (self.path / "zarr.json").is_file():
            raise SegloopError(f"{self.path} is not a Zarr store. Run the step that makes it again.")
        try:
            self._group = zarr.open_group(self.path, mode="r", zarr_format=3)
            self.attributes: dict[str, Any] = self._group.attrs.asdict()
            description = read_json(self.path / "zarr.json")
        except Exception as error:
            raise self._damaged(error) from None
        # Zarr does without these where it is told the format. Others may add to them, as consolidated metadata does.
        if any(description.get(key) != value for key, value in _BESIDE_ATTRIBUTES.items()):
            raise self._damaged("zarr.json is not as it was written")
        self._check(kind)

    def _check(self, kind: str | None) -> None:
        found, version = self.attributes.get("kind"), self.attributes.get("schema_version")
        if found is None:
            raise self._damaged("it does not say what it holds")
        if kind is not None and found != kind:
            raise SegloopError(f"{self.path} holds {found}, not {kind}. Give the right store.")
        if version not in (SCHEMA_VERSION, UNCHECKED_VERSION):
            raise SegloopError(
                f"{self.path} has schema version {version}; this segloop reads versions up to {SCHEMA_VERSION}. "
                "Use the segloop that wrote it, or delete it and run the step again."
            )
        # A store of the version before has none, so that a damaged version number is no way around it.
        if self.attributes.get("sha256") != (_digest(self.attributes) if self.checked else None):
            raise self._damaged("its attributes are not those that were written")
        listed = self.attributes.get("files")
        if not isinstance(listed, dict):
            raise self._damaged("it does not list its files")
        for name, size in listed.items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != size:
                raise SegloopError(
                    f"{self.path} is incomplete: {name} is missing or not {size} bytes long. "
                    "Delete the store and run the step that makes it again."
                )

    @property
    def checked(self) -> bool:
        """Whether every byte of the store is under a checksum; one of the version before says nothing of some."""
        return bool(self.attributes["schema_version"] == SCHEMA_VERSION)

    def _damaged(self, error: Exception | str) -> SegloopError:
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return SegloopError(f"{self.path} is damaged ({reason}). Delete it and run the step that makes it again.")

    def _guarded(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:
            raise self._damaged(error) from error

    def array(self, name: str) -> Any:
        """Return the Zarr array `name`."""
        if name in self.attributes.get(DROPPED, ()):
            raise SegloopError(
                f"{self.path} no longer holds {name}: it was dropped, as `retention` in the configuration says. To "
                "have it again, delete the store and run the step that makes it."
            )
        self._check_metadata(name)
        return self._guarded(lambda: self._group[name])

    def _check_metadata(self, name: str) -> None:
        file = f"{name}/zarr.json"
        wanted = self.attributes.get("metadata_sha256", {}).get(file)
        if name not in self._trusted and wanted is not None and sha256_file(self.path / file) != wanted:
            raise self._damaged(f"{file} is not as it was written")
        self._trusted.add(name)

    def verify(self) -> None:
        """Read every chunk of every array, so that all checksums are compared.

        Raises
        ------
        SegloopError
            If anything is damaged; the message names the store and the array.
        """
        for file in self.attributes["files"]:
            name, _, rest = file.partition("/")
            if rest != "zarr.json":
                continue
            array = self.array(name)
            step = max(1, (array.shards or array.chunks)[0])
            for start in range(0, array.shape[0], step):
                try:
                    array[start : start + step]
                except Exception as error:
                    raise self._damaged(f"array {name}: {type(error).__name__}: {error}") from error

    def holds(self, name: str) -> bool:
        """Tell whether the store has an array `name`."""
        return f"{name}/zarr.json" in self.attributes["files"]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array without reading it."""
        return tuple(self.array(name).shape)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return rows start..stop of an array."""
        array = self.array(name)
        rows = np.asarray(self._guarded(lambda: array[start : array.shape[0] if stop is None else stop]))
        self._check_still_there(name)
        return rows

    def read_rows(self, name: str, rows: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
        """Return the given rows of an array, in the given order; only chunks that hold one of them are read."""
        array = self.array(name)
        if not len(rows):
            return np.empty((0, *array.shape[1:]), array.dtype)
        found = np.asarray(self._guarded(lambda: array.oindex[np.asarray(rows, np.int64)]))
        self._check_still_there(name)
        return found

    def _check_still_there(self, name: str) -> None:
        """Refuse what was read while another process dropped the array: missing chunks are read as zeros."""
        if not (self.path / name / "zarr.json").exists():
            raise SegloopError(f"{self.path} lost {name} while it was read: `retention` dropped it, or it was deleted.")


def read_attributes(path: str | Path, kind: str) -> dict[str, Any]:
    """Return what the writer of a store recorded about it, without the list of files."""
    return public(Store(path, kind).attributes)


def public(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes without those that the store keeps for itself."""
    own = ("kind", "schema_version", "files", "metadata_sha256", "sha256", DROPPED)
    return {key: value for key, value in attributes.items() if key not in own}


def drop_arrays(path: str | Path, kind: str, names: Iterable[str], added: Iterable[NewArray] = ()) -> None:
    """Remove arrays of a complete store for good, and add those that take their place.

    The store is whole at every moment, also when this is killed: what its list of files does not name does not belong
    to it. Repeating the call completes what was cut off. Its time stamp stays, so that no step runs again.

    Parameters
    ----------
    names
        Arrays to drop; those that are gone already are no error.
    added
        Arrays to add, consumed one by one; those that are there already are left alone.

    Raises
    ------
    SegloopError
        If the store is missing, damaged or of another kind.
    """
    store = Store(path, kind)
    for leftover in store.path.glob(".*.dropped"):
        shutil.rmtree(leftover)
    for array in added:
        if not store.holds(array.name):
            shutil.rmtree(store.path / array.name, ignore_errors=True)
            _add(store.path, array)
    dropped = sorted({*store.attributes.get(DROPPED, ()), *names})
    files = {name: size for name, size in _sizes(store.path).items() if name.partition("/")[0] not in dropped}
    metadata = read_json(store.path / "zarr.json")
    attributes = metadata["attributes"] | {DROPPED: dropped}
    metadata["attributes"] = _sealed(attributes, store.path, files) if store.checked else attributes | {"files": files}
    write_json(store.path / "zarr.json", metadata, sealed=False)
    for name in dropped:
        if (store.path / name).exists():
            # At once, because whoever reads an array with half of its chunks gets zeros.
            hidden = store.path / f".{name}.dropped"
            (store.path / name).rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)


def _add(path: Path, array: NewArray) -> None:
    group = zarr.open_group(path, mode="r+", zarr_format=3)
    writer = ArrayWriter(group, array.name, array.dtype, array.row, array.layout)
    for rows in array.rows:
        writer.append(rows)
    writer.close()
