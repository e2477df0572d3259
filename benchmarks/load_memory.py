"""Part of `load.py`: clustering and prediction in a process whose addresses are limited, as `ulimit -v` limits them."""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

ROWS, WIDTH = 25_000, 256
CLUSTERING: Final = ((800, 1000), (1600, 1800), (4000, 4000), (4000, 1500))
"""`clustering.memory_mb`, and megabytes of addresses that the process may take beyond its libraries."""
PREDICTION: Final = (400, 800, 1600)
"""Megabytes of addresses beyond the libraries and the loaded network."""
IMAGES: Final = 40


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what each limit led to."""
    from predict import draw_scenes, train

    clustering = [
        _apart(_cluster, folder, configured, given) | {"configured_mb": configured, "given_mb": given}
        for configured, given in CLUSTERING
    ]
    scenes, model = draw_scenes(folder, IMAGES), train(folder, steps=60)
    prediction = [
        _apart(_predict, folder / str(given), given, scenes, model) | {"given_mb": given} for given in PREDICTION
    ]
    for one in (*clustering, *prediction):
        one["outcome"] = one["outcome"].replace(f"{folder}/", "")
    return {"clustering": clustering, "prediction": prediction}


def _apart(work: Any, *arguments: Any) -> dict[str, Any]:
    """Run work in a process of its own; a process that dies without a word is an outcome as well."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(writer, work, arguments))
    process.start()
    writer.close()
    try:
        found: dict[str, Any] = reader.recv()
    except EOFError:
        found = {"outcome": "WRONG: the process died without a word"}
    process.join()
    return found | {"status": process.exitcode}


def _send(writer: Any, work: Any, arguments: tuple[Any, ...]) -> None:
    writer.send(work(*arguments))


def _limit(megabytes: int) -> None:
    """Allow this process so many more megabytes of addresses than it has now."""
    allowed = _kilobytes("VmSize") * 1024 + megabytes * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (allowed, resource.RLIM_INFINITY))


def _kilobytes(name: str) -> int:
    return int(Path("/proc/self/status").read_text(encoding="ascii").partition(f"{name}:")[2].split()[0])


def _outcome(work: Any, given: int) -> dict[str, Any]:
    """Do work under a limit and return what came of it, how long it took and how much memory it held."""
    from segloop.errors import SegloopError

    before = _kilobytes("VmRSS")
    _limit(given)
    begun = time.perf_counter()
    try:
        outcome = work()
    except SegloopError as error:
        outcome = f"refused: {error}"
    except Exception as error:
        outcome = f"WRONG: {type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    peak = (_kilobytes("VmHWM") - before) // 1000
    return {"outcome": outcome, "seconds": round(time.perf_counter() - begun, 1), "more_mb": peak}


def _cluster(folder: Path, configured: int, given: int) -> dict[str, Any]:
    """Cluster one category of `ROWS` predictions."""
    from segloop.clustering.building import cluster_predictions
    from segloop.config import ClusteringConfig
    from segloop.store.tree import read_tree

    place = folder / f"cluster-{configured}-{given}"
    index, shard = _stores(place)
    config = ClusteringConfig(memory_mb=configured)
    tree = place / "tree.zarr"

    def work() -> str:
        cluster_predictions(
            index=index, predictions=[shard], output=tree, config=config, seed=0, scratch=place / "scratch"
        )
        return "done"

    found = _outcome(work, given)
    if found["outcome"] == "done":
        found["leaves"] = len(read_tree(tree).row_id)
    return found


def _stores(folder: Path) -> tuple[Path, Path]:
    """Write an index and predictions of one category: rows around some centres."""
    from types import SimpleNamespace

    from segloop.collection.index import index_predictions
    from segloop.data import masks
    from segloop.store.predictions import PredictionWriter

    random = np.random.default_rng(0)
    centres = random.standard_normal((200, WIDTH)).astype(np.float32)
    rles = []
    for place in range(100):
        mask = np.zeros((40, 60), bool)
        mask[place // 10 * 4 : place // 10 * 4 + 3, place % 10 * 6 : place % 10 * 6 + 5] = True
        rles.append(masks.encode(mask))
    shard = folder / "0.zarr"
    with PredictionWriter(shard, iteration=1, shard=0, model_sha256="", embedding_dim=WIDTH) as writer:
        for image in range(ROWS // 100):
            rows = centres[random.integers(0, 200, 100)] + 0.5 * random.standard_normal((100, WIDTH)).astype(np.float32)
            found: Any = SimpleNamespace(
                score=np.linspace(1, 0.5, 100, dtype=np.float32),
                category=np.ones(100, np.int32),
                box=np.tile(np.array([0, 0, 5, 3], np.float32), (100, 1)),
                masks=rles,
                embedding=rows,
                predicted_iou=None,
            )
            writer.append(image + 1, 40, 60, found)
    index_predictions(
        predictions=[shard],
        earlier=[],
        earlier_verdicts=[],
        output=folder / "index.zarr",
        score=0.0,
        duplicates_iou=0.8,
        iteration=1,
    )
    return folder / "index.zarr", shard


def _predict(folder: Path, given: int, scenes: Path, model: Path) -> dict[str, Any]:
    """Predict a shard of drawn scenes with a tiny network."""
    import torch

    from predict import writer
    from segloop.config import PredictionConfig
    from segloop.detection.network_segmenter import NetworkSegmenter
    from segloop.detection.pipeline import predict_stream
    from segloop.detection.segmenter import load_segmenter

    torch.set_num_threads(1)
    segmenter = load_segmenter(model, device="cpu", threads=1)
    assert isinstance(segmenter, NetworkSegmenter)
    files = list(enumerate(str(path) for path in sorted(scenes.iterdir())))
    folder.mkdir(parents=True)
    prediction = PredictionConfig()

    def work() -> str:
        count = 0
        with writer(segmenter, folder / "0.zarr") as store:
            for one in predict_stream(segmenter, files, prediction, prediction.store_score):
                if isinstance(one.outcome, str):
                    return f"refused: {one.outcome}"
                store.append(one.image_id, one.height, one.width, one.outcome)
                count += 1
        return f"done: {count} images"

    return _outcome(work, given)


def lines(record: dict[str, Any]) -> list[str]:
    """Return the part of the page about memory."""
    found = [
        "## Memory",
        "",
        "Each line is a process of its own whose addresses are limited (`RLIMIT_AS`, as by `ulimit -v`) to what its",
        f"libraries and its input take, and `given` more. Load average at the end: {record['load_average']}.",
        "",
        f"Clustering one category of {ROWS:,} predictions of width {WIDTH}:",
        "",
        "| `clustering.memory_mb` | given | outcome | memory beyond the libraries | seconds |",
        "|---:|---:|---|---:|---:|",
    ]
    for one in record["clustering"]:
        rest = f"{one.get('more_mb', '–')} MB | {one.get('seconds', '–')}"
        found.append(f"| {one['configured_mb']} | {one['given_mb']} MB | {one['outcome']} | {rest} |")
    found += [
        "",
        f"Predicting {IMAGES} drawn scenes with the tiny network on a CPU:",
        "",
        "| given | outcome | memory beyond the libraries | seconds |",
        "|---:|---|---:|---:|",
    ]
    for one in record["prediction"]:
        rest = f"{one.get('more_mb', '–')} MB | {one.get('seconds', '–')}"
        found.append(f"| {one['given_mb']} MB | {one['outcome']} | {rest} |")
    return [*found, ""]
