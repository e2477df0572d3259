"""Exact comparison of two runs (contract 5 of the architecture)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from segloop.errors import SegloopError
from segloop.files import sha256_file

MEASURED: Final = frozenset(
    {
        "seconds",
        "time",
        "versions",
        "gpu_hours",
        "cpu_hours",
        "machine",
        "machine_dollars",
        "total_dollars",
        "configuration_sha256",
    }
)
"""Keys and columns that may differ between two runs: they hold what was measured with a clock, or what is installed."""

FOLDERS: Final = ("resources", "results")
"""The folders of a run that are compared."""

SKIPPED_FOLDERS: Final = frozenset({"figures", "logs", "benchmarks", "report"})
SKIPPED_FILES: Final = frozenset({"run.json", "config.yaml", "requirements.lock", "card.md"})
SKIPPED_SUFFIXES: Final = frozenset({".tsv", ".log", ".html"})


def differences(a: Path, b: Path) -> list[str]:
    """Compare two run directories.

    Files and stores below `results` and `resources` must be the same in number and name. JSON files are compared by
    value and Parquet files by column, both without what `MEASURED` names; Zarr stores by attribute and chunk by chunk;
    weights (`.pt`) tensor by tensor; everything else byte by byte. Logs, benchmarks, figures and the record of the run
    (its configuration and software) are left out.

    Returns
    -------
    One line a difference, sorted by file; none if the runs agree.

    Raises
    ------
    SegloopError
        If a directory holds no results, or a file cannot be read.
    """
    found_a, found_b = _parts(a), _parts(b)
    lines = [f"{name}: only in {a}" for name in sorted(found_a.keys() - found_b.keys())]
    lines += [f"{name}: only in {b}" for name in sorted(found_b.keys() - found_a.keys())]
    for name in sorted(found_a.keys() & found_b.keys()):
        compare = _comparison(found_a[name])
        try:
            lines += [f"{name}: {line}" for line in compare(found_a[name], found_b[name])]
        except SegloopError:
            raise
        except Exception as error:
            raise SegloopError(
                f"{name} cannot be compared ({type(error).__name__}: {error}). Is it damaged?"
            ) from error
    return lines


def _parts(run: Path) -> dict[str, Path]:
    """Return what a run consists of by relative name; a Zarr store is one part."""
    if not (run / "results").is_dir():
        raise SegloopError(f"{run} holds no results/: it is no run directory, or the run has not begun.")
    found = {}
    stack = [run / folder for folder in FOLDERS if (run / folder).is_dir()]
    while stack:
        for path in stack.pop().iterdir():
            if path.name.startswith(".") or path.suffix in SKIPPED_SUFFIXES or path.name in SKIPPED_FILES:
                continue
            if path.is_dir() and path.suffix != ".zarr":
                if path.name not in SKIPPED_FOLDERS:
                    stack.append(path)
            else:
                found[path.relative_to(run).as_posix()] = path
    return found


def _comparison(path: Path) -> Callable[[Path, Path], list[str]]:
    known = {".json": _json, ".parquet": _parquet, ".zarr": _zarr, ".pt": _tensors}
    return known.get(path.suffix, _bytes)


def _bytes(a: Path, b: Path) -> list[str]:
    same = a.stat().st_size == b.stat().st_size and sha256_file(a) == sha256_file(b)
    return [] if same else ["the bytes differ"]


def _json(a: Path, b: Path) -> list[str]:
    left, right = (json.loads(path.read_text(encoding="utf-8")) for path in (a, b))
    return _first(_json_differences(left, right, ""))


def _first(lines: Iterator[str], most: int = 5) -> list[str]:
    shown = [line for _, line in zip(range(most), lines, strict=False)]
    return [*shown, "and more"] if next(lines, None) is not None else shown


def _json_differences(a: Any, b: Any, where: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted((a.keys() | b.keys()) - MEASURED):
            name = f"{where}.{key}" if where else key
            if key not in a or key not in b:
                yield f"{name} is in one of the two only"
            else:
                yield from _json_differences(a[key], b[key], name)
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{where or 'the list'} has {len(a)} and {len(b)} entries"
        for number, (left, right) in enumerate(zip(a, b, strict=False)):
            yield from _json_differences(left, right, f"{where}[{number}]")
    elif type(a) is not type(b) or a != b:
        yield f"{where or 'the value'} is {_short(a)} and {_short(b)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _parquet(a: Path, b: Path) -> list[str]:
    left, right = (pq.read_table(path) for path in (a, b))
    if not left.schema.equals(right.schema, check_metadata=True):
        return ["the columns, or what the file says about them, differ"]
    if len(left) != len(right):
        return [f"{len(left)} and {len(right)} rows"]
    names = [name for name in left.schema.names if name not in MEASURED]
    return [f"column {name} differs" for name in names if not _same_column(left.column(name), right.column(name))]


def _same_column(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    if pa.types.is_floating(a.type):
        # Arrow holds NaN unequal to itself; here it is a value like any other, and so is the sign of zero.
        bits = [(column.is_null().to_numpy(), column.fill_null(0.0).to_numpy()) for column in (a, b)]
        return all(left.tobytes() == right.tobytes() for left, right in zip(*bits, strict=True))
    return bool(a.equals(b))


def _zarr(a: Path, b: Path) -> list[str]:
    # The same software writes the same values as the same chunks, so that files are compared without opening a store.
    left, right = _files(a), _files(b)
    lines = [f"{name} is in one of the two only" for name in sorted(left ^ right)]
    for name in sorted(left & right):
        compare = _json if name.endswith(".json") else _bytes
        lines += [f"{name}: {line}" for line in compare(a / name, b / name)]
    return lines


def _files(store: Path) -> set[str]:
    # Snakemake leaves a time stamp of its own in folders that are outputs.
    files = (path for path in store.rglob("*") if path.is_file() and path.name != ".snakemake_timestamp")
    return {path.relative_to(store).as_posix() for path in files}


def _tensors(a: Path, b: Path) -> list[str]:
    # Imported here: everything else in this module works without a second's wait for torch.
    import torch

    left, right = (torch.load(path, map_location="cpu", weights_only=True) for path in (a, b))
    lines = [f"tensor {name} is in one of the two only" for name in sorted(left.keys() ^ right.keys())]
    for name in sorted(left.keys() & right.keys()):
        one, other = left[name], right[name]
        if one.dtype != other.dtype or one.shape != other.shape:
            lines.append(f"tensor {name}: {one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)}")
        elif not torch.equal(_raw(torch, one), _raw(torch, other)):
            lines.append(f"tensor {name}: the values differ")
    return lines


def _raw(torch: Any, tensor: Any) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
