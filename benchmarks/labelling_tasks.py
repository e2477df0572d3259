"""An iteration served to one fast annotator: how long a new task, an answer and the policy take."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelmelite.loop.iteration import Iteration
from labelmelite.loop.session import LoopSession
from labelmelite.loop.settings import LoopSettings
from labelmelite.store import Store
from segloop.config import Config
from segloop.data import masks
from segloop.data.pool import SCHEMA
from segloop.ids import prediction_ids
from segloop.simulation.worlds import KnownWorld, world_of_arrays
from segloop.store.index import Index
from segloop.store.predictions import PredictionWriter
from simulated_world import simulate as simulated_world

RUNS: Final = ((9_000, "certified"), (9_000, "per_mask"), (411_530, "certified"), (411_530, "per_mask"))
_IMAGE, _EACH = (480, 640), 20
_TASKS: Final = 60


def measure() -> dict[str, Any]:
    """Answer some tasks of each run and return its times, in milliseconds."""
    worlds: dict[int, KnownWorld] = {}
    runs = []
    for n, policy in RUNS:
        if n not in worlds:
            arrays = vars(simulated_world("D", n=n, per_subcluster=80 if n < 100_000 else 400, seed=0))
            worlds[n] = world_of_arrays(arrays, arrays["good"], "D", seed=0)
        with tempfile.TemporaryDirectory() as folder, served(worlds[n], policy, Path(folder)) as session:
            runs.append({"masks": n, "policy": policy} | _work(session, worlds[n]))
    return {"runs": runs}


@contextmanager
def served(known: KnownWorld, policy: str, run: Path) -> Iterator[LoopSession]:
    """Yield a session on simulated masks; its images do not exist."""
    store = Store(run / "server")
    session = LoopSession(simulated_iteration(known, policy, run), store, LoopSettings(least_seconds=0.0, forecast=0))
    try:
        yield session
    finally:
        session.close()
        store.close()


def simulated_iteration(known: KnownWorld, policy: str, run: Path) -> Iteration:
    """Write the predictions of simulated masks, 20 an image, and return the iteration that asks about them."""
    count = len(known.world)
    # The order of ids stays, so that the world stays what it is.
    ids = prediction_ids(1, 0, count)
    world = replace(known.world, prediction=ids[known.world.prediction.astype(np.int64) - 1])
    _write_predictions(run, count)
    place = np.searchsorted(ids, world.prediction)
    category, score = np.empty(count, np.int32), np.empty(count, np.float32)
    category[place], score[place] = world.category, world.score
    index = Index(
        prediction=ids,
        image_id=np.arange(count) // _EACH + 1,
        category=category,
        score=score,
        box=np.zeros((count, 4), np.float32),
        area=np.ones(count, np.int64),
        predicted_iou=None,
        mask_key=np.random.default_rng(0).integers(0, 256, (count, 32), np.uint8),
        duplicate_of=np.zeros(count, np.uint64),
        inherited=np.zeros(count, np.int8),
    )
    config = Config.model_validate({"annotation": {"annotator": "people", "policy": policy}})
    assert world.tree is not None
    empty: Any = None
    return Iteration(run, 1, config, index, world.tree, empty, world, {}, {}, [])


def _write_predictions(run: Path, count: int) -> None:
    """Write a store of as many masks, 20 an image, in one shard."""
    mask = np.zeros(_IMAGE, np.bool_)
    mask[100:220, 200:380] = True
    rle = masks.encode(mask)
    images = np.arange(1, (count + _EACH - 1) // _EACH + 1)
    path = run / "results" / "iter_1" / "predictions" / "0.zarr"
    with PredictionWriter(path, iteration=1, shard=0, model_sha256="", embedding_dim=1) as writer:
        for image in images.tolist():
            own = min(_EACH, count - (image - 1) * _EACH)
            found: Any = SimpleNamespace(
                score=np.ones(own, np.float32),
                category=np.ones(own, np.int32),
                box=np.zeros((own, 4), np.float32),
                masks=[rle] * own,
                embedding=np.ones((own, 1), np.float32),
                predicted_iou=None,
            )
            writer.append(image, *_IMAGE, found)
    pool = run / "resources" / "pool" / "shards"
    pool.mkdir(parents=True)
    sizes = [np.full(len(images), side, np.int32) for side in (_IMAGE[1], _IMAGE[0])]
    pq.write_table(pa.table([images, [f"{n}.jpg" for n in images], *sizes], schema=SCHEMA), pool / "0.parquet")


def _work(session: LoopSession, known: KnownWorld) -> dict[str, Any]:
    good = dict(zip(session.iteration.world.prediction.tolist(), known.good.tolist(), strict=True))
    dealt, answered, thought = [], [], []
    number = 0
    for _ in range(_TASKS):
        begin = time.perf_counter()
        task = session.next_task("a", "questions", None, [])["task"]
        dealt.append(time.perf_counter() - begin)
        if task is None:
            break
        items = session.book.tasks[task["id"]].items
        for item in task["items"]:
            number += 1
            reply = "yes" if good[items[item["id"]].prediction] else "no"
            begin = time.perf_counter()
            session.answer("a", task["id"], "c", [{"client_no": number, "item": item["id"], "reply": reply}])
            answered.append(time.perf_counter() - begin)
        session.submit("a", task["id"], 1e6)
        begin = time.perf_counter()
        session.wait()
        thought.append(time.perf_counter() - begin)
    times = {"task": dealt, "answer": answered, "policy": thought}
    return {
        "answers": number,
        **{f"{name}_ms": [1e3 * float(np.quantile(all_, q)) for q in (0.5, 0.95, 1)] for name, all_ in times.items()},
    }


def lines(record: dict[str, Any]) -> list[str]:
    """Return what the page says."""
    found = [
        "",
        "## A task of the loop",
        "",
        f"One annotator who answers {_TASKS} tasks of an iteration (simulated masks of level D) without a pause, in",
        "the server's process: until a new task is there, until an answer is acknowledged, and until the policy has",
        "decided again after a task. Milliseconds: median, 95th percentile, longest.",
        "",
        "| masks | policy | answers | new task | answer | policy |",
        "|---|---|---|---|---|---|",
    ]
    for run in record["runs"]:
        times = [", ".join(f"{value:.0f}" for value in run[f"{name}_ms"]) for name in ("task", "answer", "policy")]
        found.append(f"| {run['masks']:,} | {run['policy']} | {run['answers']} | {' | '.join(times)} |")
    return found
