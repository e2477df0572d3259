"""Clustering: this project beside others, alone at a million, where its time goes, and what partitioning costs.

Four parts, each of which writes its own key of docs/benchmarks/clustering.json; page and figure are made from what is
there. Parts that were measured on another machine or with other versions are dropped.

Usage: python benchmarks/clustering.py [--only comparison large profile task] [--sizes 1000 ...] [--limit 180] ...
"""

import argparse
import hashlib
import importlib.metadata
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import clustering_methods
import clustering_page
import clustering_task
from clustering_data import Dataset, write_dataset
from clustering_methods import METHODS, Stopped
from common import OUTPUT, machine, publish
from segloop.files import read_json
from segloop.runs import versions
from segloop.store.tree import read_tree

COMPARED = ("scikit-learn", "genieclust")
SEED = 0
REPEAT_BELOW = 30.0
"""Seconds up to which a run is short enough to be repeated."""
NO_LIMIT = 4 * 3600.0


def main() -> None:
    """Measure the parts that are wanted; each is published when it is done."""
    options = _options()
    record = _kept() if set(options.only) != set(PARTS) else {}
    record = {"runs": [], "stopped": [], **record, "compared_with": _compared_with()}
    with tempfile.TemporaryDirectory(prefix="bench-clustering-", dir=options.scratch) as folder:
        for name, part in PARTS.items():
            if name in options.only:
                record["runs"] = [run for run in record["runs"] if not _measured_again(run, name, options)]
                begin = time.monotonic()
                part(record, Path(folder), options)
                # So that a page cannot pass off a trial with small sizes as the real thing.
                record[name]["arguments"] = shlex.join(sys.argv[1:])
                print(f"{name}: {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
                clustering_page.draw(record, OUTPUT / "clustering.png")
                publish("clustering", clustering_page.page(record), record)


def _measured_again(run: dict[str, Any], part: str, options: argparse.Namespace) -> bool:
    """Return whether a run is about to be replaced: methods are compared side by side within one size."""
    return bool(run["part"] == part and (part != "comparison" or run["n"] in options.sizes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000, 8000, 16_000, 20_000])
    parser.add_argument("--limit", type=float, default=180, help="seconds a run of the comparison may take")
    parser.add_argument("--repeats", type=int, default=3, help=f"runs of what takes under {REPEAT_BELOW:.0f} s")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--large-sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--m-max", type=int, default=8000, help="largest partition of the large trees")
    parser.add_argument("--repeat-large", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--profile-sizes", type=int, nargs="+", default=[8000, 20_000, 1_000_000])
    parser.add_argument("--task-size", type=int, default=20_000)
    parser.add_argument("--levels", default="DE", help="levels of the simulated worlds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=5, help="how often each tree's questions are drawn")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--scratch", type=Path, help="folder for data; a million embeddings take 8 GB in all")
    return parser.parse_args()


def _compared_with() -> dict[str, str]:
    try:
        return {name: importlib.metadata.version(name) for name in COMPARED}
    except importlib.metadata.PackageNotFoundError as error:
        raise SystemExit(f"error: {error.name} is missing: pip install -r envs/requirements-bench.txt") from None


def _kept() -> dict[str, Any]:
    """Return what earlier runs of this benchmark measured under the same conditions."""
    path = OUTPUT / "clustering.json"
    if not path.exists():
        return {}
    record: dict[str, Any] = read_json(path)
    same = {"machine": machine(), "versions": versions(), "compared_with": _compared_with()}
    if any(record.get(key) != value for key, value in same.items()):
        print(f"{path} was measured on another machine or with other versions: its other parts are dropped")
        return {}
    return {key: value for key, value in record.items() if key not in same}


# --- side by side -----------------------------------------------------------------------------------------------------


def comparison(record: dict[str, Any], folder: Path, options: argparse.Namespace) -> None:
    """Measure all methods on the same embeddings, taking turns."""
    record["comparison"] = {
        "dim": options.dim,
        "threads": THREADS,
        "limit": options.limit,
        "repeats": options.repeats,
        "repeat_below": REPEAT_BELOW,
    }
    record["stopped"] = [one for one in record["stopped"] if one["n"] not in options.sizes]
    running = list(options.methods)
    for n in sorted(options.sizes):
        with dataset(folder, n, options.dim) as data:
            again = list(running)
            for _ in range(options.repeats):
                again = [method for method in again if _compare_once(record, method, data, n, options.limit)]
        gone = {one["method"] for one in record["stopped"]}
        running = [method for method in running if method not in gone]


THREADS = 2


def _compare_once(record: dict[str, Any], method: str, data: Dataset, n: int, limit: float) -> bool:
    """Measure a method once; return whether it should be measured again."""
    clustering = {"scope": "category", "n_exact": max(n, 2), "m_max": max(n, 2), "threads": THREADS}
    with _output(data) as output:
        run = clustering_methods.measure(
            method, data, output, limit=limit, threads=THREADS, clustering=clustering if method == "segloop" else {}
        )
        if isinstance(run, Stopped):
            record["stopped"].append({"method": method, "n": n, "reason": run.reason})
            print(f"{method}, N = {n:,}: {run.reason}", flush=True)
            return False
        run |= {"height_difference": _height_difference(method, data, output)}
    _note(record, {"part": "comparison", "method": method, "n": n, "dim": record["comparison"]["dim"], **run})
    return bool(run["seconds"] < REPEAT_BELOW)


def _height_difference(method: str, data: Dataset, output: Path) -> float | None:
    """Return how far the sorted heights lie from this project's, None for other trees than average linkage's."""
    own, other = data.folder / "heights.npy", output / "heights.npy"
    if method == "segloop":
        np.save(own, np.sort(read_tree(output / "tree.zarr").height))
    if not own.exists() or not other.exists():
        return None
    return float(np.max(np.abs(np.sort(np.load(other)) - np.load(own)), initial=0.0))


# --- alone at a million -----------------------------------------------------------------------------------------------


def large(record: dict[str, Any], folder: Path, options: argparse.Namespace) -> None:
    """Measure two-level trees of this project, twice where that is wanted."""
    workers = 2
    record["large"] = {"dim": options.dim, "m_max": options.m_max, "threads": 1, "workers": workers}
    clustering = {"n_exact": options.m_max, "m_max": options.m_max, "threads": 1, "workers": workers}
    for n in sorted(options.large_sizes):
        with dataset(folder, n, options.dim) as data:
            for _ in range(2 if options.repeat_large else 1):
                with _output(data) as output:
                    run = _required("segloop", data, output, threads=1, clustering=clustering)
                    run |= _described(data, output / "tree.zarr")
                _note(record, {"part": "large", "method": clustering_page.TWO_LEVEL, "n": n, "dim": options.dim, **run})


def _described(data: Dataset, path: Path) -> dict[str, Any]:
    tree = read_tree(path)
    return {
        "embeddings_mb": _bytes(data.folder / "predictions") / 1e6,
        "tree_mb": _bytes(path) / 1e6,
        "tree_sha256": _hash(path),
        "partitions": len(tree.part_root),
        "largest": int(np.diff(tree.part_offset.astype(np.int64)).max(initial=0)),
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _hash(folder: Path) -> str:
    """Return the SHA-256 over names and bytes of all files of a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found.update(f"{path.relative_to(folder)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


# --- where the time goes ----------------------------------------------------------------------------------------------


def profile(record: dict[str, Any], folder: Path, options: argparse.Namespace) -> None:
    """Time the stages in one process, and the floor for the same partitions."""
    cases = []
    for n in sorted(options.profile_sizes):
        exact = n <= 40_000
        limit = max(n, 2) if exact else options.m_max
        clustering = {"n_exact": limit, "m_max": limit, "threads": 1, "workers": 1}
        with dataset(folder, n, options.dim) as data, _output(data) as output:
            run = _required("segloop, profiled", data, output, threads=1, clustering=clustering)
            sizes = np.diff(read_tree(output / "tree.zarr").part_offset.astype(np.int64)).tolist()
            work = {"sizes": sizes, "dim": options.dim}
            floor = _required("floor", data, output, threads=1, clustering=work)
        cases.append({"n": n, "partitions": len(sizes), **run, "floor": floor})
        print(f"profile, N = {n:,}: {run['seconds']:.1f} s", flush=True)
    record["profile"] = {"threads": 1, "cases": cases}


# --- what partitioning costs ------------------------------------------------------------------------------------------


def task(record: dict[str, Any], folder: Path, options: argparse.Namespace) -> None:
    """Ask the policy's questions over exact and two-level trees."""
    record["task"] = clustering_task.measure(options.task_size, options.levels, options.seeds, options.draws)


# --- shared -----------------------------------------------------------------------------------------------------------


@contextmanager
def dataset(folder: Path, n: int, dim: int) -> Iterator[Dataset]:
    """Write n embeddings, and remove them at the end of the block."""
    place = folder / f"{n}"
    try:
        yield write_dataset(place, n, dim, SEED)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _output(data: Dataset) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="output-", dir=data.folder) as output:
        yield Path(output)


def _required(method: str, data: Dataset, output: Path, *, threads: int, clustering: dict[str, Any]) -> dict[str, Any]:
    run = clustering_methods.measure(method, data, output, limit=NO_LIMIT, threads=threads, clustering=clustering)
    if isinstance(run, Stopped):
        raise SystemExit(f"error: {method} on {data.folder}: {run.reason}")
    return run


def _note(record: dict[str, Any], run: dict[str, Any]) -> None:
    record["runs"].append(run)
    print(f"{run['method']}, N = {run['n']:,}: {run['seconds']:.2f} s, {run['peak_mb']:.0f} MB", flush=True)


PARTS: dict[str, Callable[[dict[str, Any], Path, argparse.Namespace], None]] = {
    "comparison": comparison,
    "large": large,
    "profile": profile,
    "task": task,
}


if __name__ == "__main__":
    main()
