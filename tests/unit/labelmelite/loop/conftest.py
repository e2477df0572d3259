"""An iteration that waits for answers, made by the real steps of the loop without a detector; and who knows it all."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from labelmelite.app import create_app
from labelmelite.clock import Clock
from labelmelite.images import as_root
from labelmelite.loop.iteration import Iteration, load_iteration
from labelmelite.loop.session import LoopSession
from labelmelite.loop.settings import LoopSettings
from labelmelite.settings import Settings
from labelmelite.store import Store
from segloop.annotation.driver import annotate_people
from segloop.annotation.verdicts import Verdicts, read_verdicts
from segloop.clustering.joining import join_trees
from segloop.clustering.linkage import link_partitions
from segloop.clustering.partition import partition_predictions
from segloop.clustering.reduction import reduce_embeddings
from segloop.collection.index import index_predictions
from segloop.config import ClusteringConfig, Config
from segloop.data import masks
from segloop.data.pool import SCHEMA
from segloop.runs import START
from segloop.store.predictions import PredictionShard, PredictionWriter

HEIGHT, WIDTH = 24, 32
IMAGES, SHARDS, EACH = 20, 2, 8
CATEGORIES = [1, 2]


def rectangle(x: int, y: int, width: int, height: int) -> masks.Rle:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + height, x : x + width] = True
    return masks.encode(mask)


def make_run(run: Path, seed: int = 0) -> None:
    """Write what a run has when it waits for answers about iteration 1."""
    random = np.random.default_rng(seed)
    folder, pool = run / "results" / "iter_1", run / "resources" / "pool" / "shards"
    pool.mkdir(parents=True)
    (run / "images").mkdir()
    stores = []
    for shard in range(SHARDS):
        ids = np.arange(IMAGES // SHARDS) * SHARDS + shard + 1
        names = [f"images/{number}.png" for number in ids]
        for name in names:
            Image.fromarray(random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(run / name)
        columns = [ids, names, np.full(len(ids), WIDTH, np.int32), np.full(len(ids), HEIGHT, np.int32)]
        pq.write_table(pa.table(columns, schema=SCHEMA), pool / f"{shard}.parquet")
        stores.append(folder / "predictions" / f"{shard}.zarr")
        with PredictionWriter(stores[-1], iteration=1, shard=shard, model_sha256="m", embedding_dim=8) as writer:
            for number in ids.tolist():
                writer.append(number, HEIGHT, WIDTH, _detections(random))
    config = ClusteringConfig()
    index, partitions = folder / "index.zarr", folder / "partitions.zarr"
    index_predictions(
        predictions=stores,
        earlier=[],
        earlier_verdicts=[],
        output=index,
        score=0.0,
        duplicates_iou=0.8,
        iteration=1,
    )
    partition_predictions(index=index, predictions=stores, output=partitions, config=config, seed=0, iteration=1)
    link_partitions(partitions=partitions, batch=0, output=folder / "0.zarr", config=config)
    join_trees(partitions=partitions, links=[folder / "0.zarr"], output=folder / "tree.zarr", config=config)
    reduce_embeddings(partitions=partitions, output=folder / "reduced.zarr", components=4, seed=0, threads=1)
    kinds = [{"id": kind, "name": f"kind {kind}", "definition": f"Of the kind {kind}."} for kind in CATEGORIES]
    (run / "resources" / "seed").mkdir()
    seed_set = {"info": {}, "images": [], "annotations": [], "categories": kinds}
    (run / "resources" / "seed" / "train.json").write_text(json.dumps(seed_set))
    (run / START).parent.mkdir()
    values = {"annotation": {"annotator": "people", "hourly_wage": 18.0, "t_iou": 0.8}, "pool": {"shards": SHARDS}}
    (run / START).write_text(json.dumps({"config": values}))


def _detections(random: np.random.Generator) -> Any:
    """Return predictions of one image: the good ones lie together, and score higher."""
    good = random.random(EACH) < 0.4
    box = np.column_stack([random.integers(0, 20, EACH), random.integers(0, 14, EACH)])
    size = np.column_stack([random.integers(2, 11, EACH), random.integers(2, 9, EACH)])
    middle = np.where(good[:, None], [4, 0, 1, 0, 0, 2, 0, 0], [0, 4, 0, 1, 0, 0, 2, 0])
    order = np.argsort(-(score := np.round(np.where(good, 0.6, 0.3) + 0.3 * random.random(EACH), 3)), kind="stable")
    return SimpleNamespace(
        score=score[order].astype(np.float32),
        category=random.choice(CATEGORIES, EACH).astype(np.int32)[order],
        box=np.column_stack([box, box + size])[order].astype(np.float32),
        masks=[rectangle(*box[row], *size[row]) for row in order.tolist()],
        embedding=(middle + random.normal(0, 0.6, (EACH, 8)))[order].astype(np.float32),
        predicted_iou=None,
    )


@pytest.fixture(scope="session")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iteration:
    """The run, read once; nobody writes into its folder."""
    run = tmp_path_factory.mktemp("waiting") / "run"
    run.mkdir()
    make_run(run)
    return load_iteration(run, 1)


def with_answers(waiting: Iteration, folder: Path, **annotation: Any) -> Iteration:
    """Return the iteration with its answers in a folder of its own, and other settings."""
    values = waiting.config.model_dump(mode="json")
    values["annotation"] |= {"policy": "thesis", "n": 3, "answers_root": str(folder / "answers")} | annotation
    return replace(waiting, config=Config.model_validate(values))


@dataclass
class Time:
    """A clock that tests move on."""

    seconds: float = 0.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: 1e9 + self.seconds, monotonic=lambda: self.seconds)


def knows(waiting: Iteration) -> dict[int, bool]:
    """Return the truth by prediction: what is good lies on its side of the embedding space."""
    found: dict[int, bool] = {}
    for shard in range(SHARDS):
        store = PredictionShard.open(waiting.folder / "predictions" / f"{shard}.zarr")
        embedding = store.embeddings().astype(np.float32)
        good = embedding[:, 0] > embedding[:, 1] + 1.5 * (embedding[:, 4] - 0.3)
        found |= dict(zip(store.prediction.tolist(), good.tolist(), strict=True))
    return found


@dataclass
class Served:
    """A session that can be killed and opened again, and people who answer its questions."""

    iteration: Iteration
    folder: Path
    settings: LoopSettings
    truth: dict[int, bool]
    time: Time = field(default_factory=Time)
    number: int = 0

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.store = Store(self.folder / "data", clock=self.time.clock())
        self.session = LoopSession(self.iteration, self.store, self.settings)

    def kill(self) -> None:
        """End everything without a word to anybody, and begin again."""
        self.session.thinking.close()
        self.store.close()
        self.open()

    def close(self) -> None:
        self.session.close()
        self.store.close()

    def task(self, annotator: str = "ann", kind: str = "questions", wanted: tuple[str, ...] = ()) -> Any:
        return self.session.next_task(annotator, kind, None, list(wanted))["task"]

    def purpose(self, item: dict[str, Any]) -> str:
        return self.session.book.item_tasks[item["id"]].items[item["id"]].purpose

    def prediction(self, item: dict[str, Any]) -> int:
        return self.session.book.item_tasks[item["id"]].items[item["id"]].prediction

    def truth_of(self, item: dict[str, Any]) -> str:
        return "yes" if self.truth[self.prediction(item)] else "no"

    def say(self, item: dict[str, Any], reply: str, **more: Any) -> dict[str, Any]:
        self.number += 1
        return {
            "client_no": self.number,
            "item": item["id"],
            "reply": reply,
            "reason": None,
            "seconds": 2.0,
            "default_used": False,
        } | more

    def send(self, annotator: str, task: dict[str, Any], *answers: dict[str, Any]) -> list[dict[str, Any]]:
        return self.session.answer(annotator, task["id"], "page", list(answers))

    def work(self, annotator: str, task: dict[str, Any], reply: Callable[[dict[str, Any]], str] | None = None) -> Any:
        """Answer a whole task, submit it, and wait until the policy has taken it in."""
        acks = self.send(annotator, task, *(self.say(item, (reply or self.truth_of)(item)) for item in task["items"]))
        assert all("seq" in ack for ack in acks), acks
        done = self.session.submit(annotator, task["id"], 100.0)
        assert self.session.wait()
        return done

    def finish(self, *annotators: str, reply: Callable[[dict[str, Any]], str] | None = None, most: int = 1000) -> None:
        """Let people answer in turn until the iteration is complete."""
        for _ in range(most):
            worked = False
            for annotator in annotators or ("ann",):
                task = self.task(annotator)
                if task is not None:
                    worked = True
                    self.work(annotator, task, reply)
            if self.session.complete:
                return
            assert worked or self.session.wait(), "nobody is asked, and nothing is complete"
        raise AssertionError("the questions never end")

    def replayed(self) -> Verdicts:
        """Return the verdicts that the rule of the loop reaches from the files."""
        replay(self.iteration, self.folder)
        return read_verdicts(self.folder / "verdicts.parquet")

    def verdicts(self) -> dict[int, int]:
        decision, world = self.session.thinking.reached.decision, self.iteration.world
        return dict(zip(world.prediction.tolist(), decision.verdict.tolist(), strict=True))


def replay(iteration: Iteration, folder: Path, **more: Any) -> None:
    files = iteration.folder
    edits = iteration.answers / "edits.jsonl"
    gold = iteration.answers_root / "gold.json"
    annotate_people(
        tree=files / "tree.zarr",
        index=files / "index.zarr",
        reduced=files / "reduced.zarr",
        recorded=iteration.answers / "answers.jsonl",
        answers=folder / "answers.parquet",
        verdicts=folder / "verdicts.parquet",
        certificates=folder / "certificates.json",
        annotators=folder / "annotators.json",
        config=iteration.config.annotation,
        iteration=iteration.number,
        seed=iteration.config.seed,
        gold=gold if gold.exists() else None,
        edits=edits if edits.exists() else None,
        edited=folder / "edited.json",
        **more,
    )


@pytest.fixture(scope="session")
def truth(waiting: Iteration) -> dict[int, bool]:
    return knows(waiting)


@pytest.fixture
def client(waiting: Iteration, store: Store, tmp_path: Path) -> Iterator[TestClient]:
    """A browser at a server of the iteration; nobody is signed in (instead of the server of a COCO set)."""
    audit = {"questions": 6, "precision": 0.5}
    iteration = with_answers(waiting, tmp_path, policy="thesis", start="top:6", gold=None, audit=audit)
    settings = Settings(data=tmp_path / "data", roots=tuple(as_root(str(root)) for root in iteration.roots))
    chosen = LoopSettings(least_seconds=0.0, questions=10)
    app = create_app(settings, store, lambda store, settings, pixels: LoopSession(iteration, store, chosen))
    with TestClient(app, base_url="http://127.0.0.1") as opened:
        yield opened


@pytest.fixture
def serve(waiting: Iteration, truth: dict[int, bool], tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Return a function that serves the iteration with some settings of the annotation and of the server."""
    opened: list[Served] = []

    def make(settings: dict[str, Any] | None = None, **annotation: Any) -> Served:
        folder = tmp_path / str(len(opened))
        chosen = {"least_seconds": 0.0, "questions": 10, "forecast": 0} | (settings or {})
        iteration = with_answers(waiting, folder, **annotation)
        opened.append(Served(iteration, folder, LoopSettings(**chosen), truth))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
