"""One way of clustering, run and timed in a process of its own.

`measure` starts this file as a script for a method of `METHODS`. The script imports what the method needs, prints a
line, waits for one on its standard input, runs, and prints what it measured; the seconds are those between. Meanwhile
`measure` samples the memory of the process and of its children.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from clustering_data import Dataset

INTERVAL = 0.25
"""Seconds between two samples of memory. Each stops the process for a moment, the longer the more memory it has: at
0.02 s sampling took a quarter of a core. Single processes are exact all the same, by the kernel's own mark."""
NEIGHBOURS = 15

Heights = npt.NDArray[np.floating[Any]]
Run = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What a method works on."""

    data: Dataset
    output: Path
    """Folder for what it writes."""
    clustering: dict[str, Any]
    """Settings of this project; others have none of them."""


# --- the methods; each imports what it needs and returns what is timed ------------------------------------------------


def segloop(task: Task) -> Run:
    """Run this project, from the prediction shards to the tree on disk."""
    from segloop.clustering.building import cluster_predictions
    from segloop.config import ClusteringConfig

    config = ClusteringConfig.model_validate(task.clustering)

    def run() -> dict[str, Any]:
        cluster_predictions(
            index=task.data.index,
            predictions=task.data.predictions,
            output=task.output / "tree.zarr",
            config=config,
            seed=0,
        )
        return {}

    return run


def segloop_profiled(task: Task) -> Run:
    """Run this project with timers around its stages, in one process."""
    import clustering_profile

    inner = segloop(task)

    def run() -> dict[str, Any]:
        with clustering_profile.timers() as seconds:
            inner()
        return {"stages": seconds}

    return run


def floor(task: Task) -> Run:
    """Run what cannot be avoided: the bare products within partitions, and reading every byte once."""
    import clustering_profile

    sizes, dim = task.clustering["sizes"], task.clustering["dim"]
    return lambda: clustering_profile.floor(task.data, sizes, dim)


def fastcluster_vectors(task: Task) -> Run:
    """Run fastcluster as its documentation shows it, on the vectors."""
    import fastcluster

    return _saving(task, lambda: fastcluster.linkage(task.data.embeddings(), "average", "cosine")[:, 2])


def fastcluster_distances(task: Task) -> Run:
    """Run fastcluster's documented function on distances by matrix products."""
    import fastcluster

    distances = _distances(task)
    return _saving(task, lambda: fastcluster.linkage(distances(), "average")[:, 2])


def scipy_distances(task: Task) -> Run:
    """Run scipy on distances by matrix products."""
    from scipy.cluster.hierarchy import linkage

    distances = _distances(task)
    return _saving(task, lambda: linkage(distances(), "average")[:, 2])


def sklearn_full(task: Task) -> Run:
    """Run scikit-learn without constraints on the vectors."""
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(
        n_clusters=1, metric="cosine", linkage="average", compute_full_tree=True, compute_distances=True
    )
    return _saving(task, lambda: model.fit(task.data.embeddings()).distances_)


def sklearn_neighbours(task: Task) -> Run:
    """Run scikit-learn where only nearest neighbours may merge, by average linkage on the cosine distance."""
    return _sklearn_neighbours(task, "average", "cosine")


def sklearn_neighbours_ward(task: Task) -> Run:
    """Run scikit-learn where only nearest neighbours may merge, by Ward's linkage on unit rows: its fastest."""
    return _sklearn_neighbours(task, "ward", "euclidean")


def _sklearn_neighbours(task: Task, linkage: str, metric: str) -> Run:
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.neighbors import kneighbors_graph

    from segloop.clustering.distances import unit_rows

    def run() -> dict[str, Any]:
        unit = unit_rows(task.data.embeddings())
        graph = kneighbors_graph(unit, min(NEIGHBOURS, len(unit) - 1), metric="cosine", include_self=False)
        AgglomerativeClustering(
            n_clusters=1, metric=metric, linkage=linkage, connectivity=graph, compute_full_tree=True
        ).fit(unit)
        return {}

    return run


def genieclust(task: Task) -> Run:
    """Run Genie, another kind of hierarchy, on unit rows; its Euclidean minimum spanning tree is its fastest."""
    import genieclust

    from segloop.clustering.distances import unit_rows

    def run() -> dict[str, Any]:
        genieclust.Genie(n_clusters=1, metric="l2").fit(unit_rows(task.data.embeddings()))
        return {}

    return run


def _distances(task: Task) -> Callable[[], npt.NDArray[np.float64]]:
    from segloop.clustering.distances import condensed, unit_rows

    return lambda: condensed(unit_rows(task.data.embeddings()), "average")


def _saving(task: Task, heights: Callable[[], Heights]) -> Run:
    def run() -> dict[str, Any]:
        # The file is small beside what is timed; it is read to see whether the trees are the same.
        np.save(task.output / "heights.npy", heights())
        return {}

    return run


METHODS: dict[str, Callable[[Task], Run]] = {
    "segloop": segloop,
    "fastcluster, vectors": fastcluster_vectors,
    "fastcluster, distances": fastcluster_distances,
    "scipy, distances": scipy_distances,
    "scikit-learn, full": sklearn_full,
    "scikit-learn, 15 neighbours": sklearn_neighbours,
    "scikit-learn, 15 neighbours, ward": sklearn_neighbours_ward,
    "genieclust": genieclust,
}
OTHERS: dict[str, Callable[[Task], Run]] = {"segloop, profiled": segloop_profiled, "floor": floor}

MEANING = {
    "segloop": "this project, exact average linkage, from Zarr shards to the tree on disk",
    "fastcluster, vectors": '`fastcluster.linkage(X, "average", "cosine")`',
    "fastcluster, distances": '`fastcluster.linkage(y, "average")`, y made by this project\'s float32 products',
    "scipy, distances": '`scipy.cluster.hierarchy.linkage(y, "average")`, the same y',
    "scikit-learn, full": '`AgglomerativeClustering(metric="cosine", linkage="average")`, the full tree',
    "scikit-learn, 15 neighbours": "the same, merges only along the graph of 15 nearest neighbours: another tree",
    "scikit-learn, 15 neighbours, ward": "Ward's linkage along that graph, the fastest it offers: another tree",
    "genieclust": "`Genie` on unit rows, Euclidean: another kind of tree",
}


# --- the parent's side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stopped:
    """Why a run has no result."""

    reason: str


def measure(
    method: str, data: Dataset, output: Path, *, limit: float, threads: int, clustering: dict[str, Any]
) -> dict[str, Any] | Stopped:
    """Run a method in a fresh process.

    Parameters
    ----------
    method
        A key of `METHODS` or `OTHERS`.
    output
        Folder for what it writes; it has to exist.
    limit
        Seconds after which the run is stopped.
    threads
        Threads of numerical libraries.
    clustering
        Settings of this project.

    Returns
    -------
    seconds; peak_mb above the interpreter with its imports; base_mb, that interpreter; total_mb, both together; and
    what the method adds. Megabytes are 10^6 bytes, summed over the process and its children, pages that they share
    counted once.
    """
    command = [sys.executable, str(Path(__file__).resolve()), method, str(data.folder), str(output)]
    command += ["--clustering", json.dumps(clustering)]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            answer = _watch(process, limit)
        finally:
            # A session of its own: its worker processes go with it.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if answer is None:
            return Stopped(f"over {limit:.0f} s")
        if not answer:
            complaints.seek(0)
            return Stopped(f"failed: {(complaints.read().strip().splitlines() or ['without a word'])[-1][:300]}")
        return answer


def _watch(process: "subprocess.Popen[str]", limit: float) -> dict[str, Any] | None:
    """Return what the process measured, nothing if it failed, None if it ran into the limit."""
    assert process.stdin is not None and process.stdout is not None
    ready = process.stdout.readline()
    if not ready:
        return {}
    base, base_resident = _memory(process.pid), json.loads(ready)["resident"]
    peak, begin = base, time.perf_counter()
    process.stdin.write("go\n")
    process.stdin.flush()
    while process.poll() is None:
        if time.perf_counter() - begin > limit:
            return None
        time.sleep(INTERVAL)
        peak = max(peak, _memory(process.pid))
    lines = process.stdout.read().strip().splitlines()
    if process.returncode or not lines:
        return {}
    answer: dict[str, Any] = json.loads(lines[-1])
    # The kernel's own mark of the first process sees what happened between two samples.
    peak = max(peak, base + answer.pop("peak_resident") - base_resident)
    return answer | {"peak_mb": (peak - base) / 1e6, "base_mb": base / 1e6, "total_mb": peak / 1e6}


def _memory(process: int) -> int:
    """Return bytes of a process and its children; pages that several hold are divided among them (PSS)."""
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(process)
        for one in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss
    return total


# --- the child's side -------------------------------------------------------------------------------------------------


def _resident(key: str) -> int:
    """Return a line of the kernel's account of this process in bytes: VmRSS now, VmHWM at the highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


@contextlib.contextmanager
def _only_messages_of_errors() -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr):
        yield


def main() -> None:
    """Import, report, wait, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=[*METHODS, *OTHERS])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--clustering", type=json.loads, default={})
    options = parser.parse_args()
    task = Task(Dataset(options.data), options.output, options.clustering)
    with _only_messages_of_errors():
        run = (METHODS | OTHERS)[options.method](task)
    print(json.dumps({"resident": _resident("VmRSS")}), flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    with _only_messages_of_errors():
        result = run()
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak_resident": _resident("VmHWM"), **result}))


if __name__ == "__main__":
    main()
