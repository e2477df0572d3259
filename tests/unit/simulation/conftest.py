"""Small worlds whose truth is known: clusters that are nearly all good or nearly all bad."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segloop.annotation.oracle import MATCH_SCHEMA
from segloop.annotation.tables import write_table
from segloop.files import write_json
from segloop.simulation.replay import Curve, Result
from segloop.simulation.worlds import KnownWorld, world_of_arrays
from segloop.store.index import Index, write_index
from segloop.store.reduced import Reduced, write_reduced
from segloop.store.tree import write_tree

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays_of(n: int = 400, seed: int = 0) -> Arrays:
    """Return the arrays of a world file: eight clusters in two categories, every other one good."""
    random = np.random.default_rng(seed)
    centre = np.random.default_rng(77).standard_normal((8, 12))
    cluster = random.integers(0, 8, n)
    good = (cluster % 2 == 0) ^ (random.random(n) < 0.04)
    embedding = centre[cluster] + 0.3 * random.standard_normal((n, 12))
    return {
        "embedding": embedding.astype(np.float32),
        "category": (cluster // 4).astype(np.uint16),
        "score": np.clip(0.5 + 0.2 * (good - 0.5) + 0.15 * random.standard_normal(n), 0.01, 0.99).astype(np.float32),
        "good": good,
        "iou": np.where(good, 0.9, 0.75).astype(np.float32),
    }


@pytest.fixture
def make_arrays() -> Callable[..., Arrays]:
    return arrays_of


@pytest.fixture(scope="session")
def known() -> KnownWorld:
    arrays = arrays_of()
    return world_of_arrays(arrays, arrays["good"], "clumps")


@pytest.fixture
def world_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a world file, some arrays replaced or (None) left out."""

    def write(**changes: Any) -> Path:
        arrays = {key: value for key, value in (arrays_of() | changes).items() if value is not None}
        np.savez(tmp_path / "clumps.npz", **arrays)
        return tmp_path / "clumps.npz"

    return write


@pytest.fixture
def run_directory(tmp_path: Path, known: KnownWorld) -> Path:
    """A finished run of one iteration, as far as a replay reads it."""
    folder = tmp_path / "run" / "results" / "iter_1"
    world = known.world
    assert world.tree is not None and world.embedding is not None
    order = world.by_prediction
    n = len(world)
    index = Index(
        prediction=world.prediction[order],
        image_id=world.image_id[order],
        category=world.category[order],
        score=world.score[order],
        box=np.zeros((n, 4), np.float32),
        area=np.ones(n, np.int64),
        predicted_iou=None,
        mask_key=np.random.default_rng(0).integers(0, 256, (n, 32)).astype(np.uint8),
        duplicate_of=np.zeros(n, np.uint64),
        inherited=np.zeros(n, np.int8),
    )
    write_index(folder / "index.zarr", index, {})
    write_tree(folder / "tree.zarr", world.tree)
    write_reduced(folder / "reduced.zarr", Reduced(world.tree.row_id, world.embedding, {}))
    iou = np.where(known.good[order], 0.9, 0.3).astype(np.float32)
    columns = {
        "prediction": index.prediction,
        "iou": iou,
        "truth_id": np.ones(n, np.int64),
        "matched_iou": iou,
        "matched_id": np.ones(n, np.int64),
    }
    table = pa.table(columns, schema=MATCH_SCHEMA.with_metadata({"t_iou": repr(0.8)}))
    write_table(folder / "truth_match.parquet", table)
    rows = [
        {"iteration": 0, "ap": 0.2, "questions": None, "masks_per_question": None, "truth_recall": None},
        {
            "iteration": 1,
            "ap": 0.25,
            "questions": 400,
            "collected": 200,
            "masks_per_question": 0.5,
            "truth_recall": 0.4,
        },
    ]
    write_json(
        tmp_path / "run" / "results" / "summary.json",
        {"iterations": rows, "control": None, "upper_bound": {"ap": 0.3, "ap50": 0.5}, "stop_reason": "iterations"},
    )
    return tmp_path / "run"


def result_of(policy: str = "certified", **changes: Any) -> Result:
    """Return a result of 100 questions, made up; its curve ends where it does unless one is given."""
    values: dict[str, Any] = {
        "world": "w",
        "n": 1000,
        "seed": 0,
        "policy": policy,
        "settings": {},
        "questions": 100,
        "accepted": 300,
        "correct": 280,
        "confirmed": 60,
        "good": 500,
        "certified": 0.91,
        "certified_count": 300,
        "seconds": 140.0,
        "slowest": 0.1,
    } | changes
    if "curve" not in values:
        end = [[values[name]] for name in ("questions", "accepted", "correct", "confirmed")]
        values["curve"] = Curve(*np.array(end, np.int64))
    return Result(**values)


@pytest.fixture
def make_result() -> Callable[..., Result]:
    return result_of
