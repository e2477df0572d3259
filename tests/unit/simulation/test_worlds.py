import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segloop.errors import SegloopError
from segloop.simulation.worlds import KnownWorld, last_known_iteration, world_of_arrays, world_of_file, world_of_run
from segloop.store.tree import validate

MakeFile = Callable[..., Path]


def test_rows_stand_in_the_order_of_the_leaves_with_their_own_columns(
    world_file: MakeFile, make_arrays: Callable[..., Any]
) -> None:
    arrays = make_arrays()
    pred_iou = np.linspace(0, 1, 400, dtype=np.float32)
    found = world_of_file(world_file(pred_iou=pred_iou, image_id=np.arange(400) * 3))
    world = found.world
    assert world.tree is not None and world.embedding is not None and world.predicted_iou is not None
    validate(world.tree)
    rows = world.prediction.astype(np.int64) - 1
    assert np.array_equal(np.sort(rows), np.arange(400)) and not np.array_equal(rows, np.arange(400))
    assert np.array_equal(world.prediction, world.tree.row_id)
    assert np.array_equal(world.score, arrays["score"][rows])
    assert np.array_equal(world.category, arrays["category"][rows])
    assert np.array_equal(world.predicted_iou, pred_iou[rows])
    assert np.array_equal(world.image_id, rows * 3)
    assert np.array_equal(found.good, arrays["good"][rows])
    assert found.name == "clumps" and world.embedding.shape == (400, 12)
    # Components keep the angles between masks of one cluster small.
    same = arrays["embedding"][rows]
    near = np.argmax(same[1:] @ same[0])
    assert np.linalg.norm((world.embedding[1 + near] - world.embedding[0]).astype(np.float32)) < 0.7


def test_equal_arrays_give_equal_worlds(make_arrays: Callable[..., Any]) -> None:
    one, two = (world_of_arrays(make_arrays(), make_arrays()["good"], "w") for _ in range(2))
    assert one.world.tree is not None and two.world.tree is not None
    assert np.array_equal(one.world.prediction, two.world.prediction)
    assert np.array_equal(one.world.tree.height, two.world.tree.height)
    assert np.array_equal(one.world.embedding, two.world.embedding)


def test_truth_is_the_array_or_the_iou_above_a_threshold(world_file: MakeFile) -> None:
    path = world_file()
    known = world_of_file(path)
    assert 0.3 < known.good.mean() < 0.7
    assert np.array_equal(world_of_file(path, t_iou=0.8).good, known.good)
    assert world_of_file(path, t_iou=0.7).good.all()
    # The bound itself is not above it, in the precision of the file.
    assert np.array_equal(world_of_file(path, t_iou=0.75).good, known.good)
    assert not world_of_file(path, t_iou=0.9).good.any()
    assert np.array_equal(world_of_file(world_file(good=None), t_iou=0.8).good, known.good)


def test_a_probability_is_given_to_the_policies_that_read_one(world_file: MakeFile) -> None:
    probability = np.linspace(0, 1, 400, dtype=np.float32)
    found = world_of_file(world_file(probability=probability))
    assert np.array_equal(found.probability["verifier"], probability[found.world.prediction.astype(np.int64) - 1])
    assert world_of_file(world_file()).probability == {}


def test_predictions_without_an_embedding_are_outside_the_tree(
    world_file: MakeFile, make_arrays: Callable[..., Any]
) -> None:
    embedding = make_arrays()["embedding"]
    embedding[5], embedding[9] = 0, np.nan
    found = world_of_file(world_file(embedding=embedding))
    assert len(found) == 400 and found.world.leaves == 398
    assert found.world.prediction[398:].tolist() == [6, 10]
    assert found.world.embedding is not None and not found.world.embedding[398:].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": None}, "no array 'embedding'"),
        ({"good": None, "iou": None}, "no array 'good'. Add it"),
        ({"good": None}, "no array 'good'. Give --t-iou"),
        ({"score": np.full(400, 0.5)[:399].astype(np.float32)}, "it must be"),
        ({"score": np.full(400, 1.5, np.float32)}, "'score' holds 1.5 in row 0"),
        ({"score": np.full(400, np.nan, np.float32)}, "'score' holds nan in row 0"),
        ({"category": np.zeros(400, np.float32)}, "'category' holds float32"),
        ({"good": np.full(400, 2)}, "'good' holds int64"),
        ({"pred_iou": np.full(400, -0.1, np.float32)}, "'pred_iou' holds -0.1"),
        ({"embedding": np.zeros(400, np.float32)}, "'embedding' holds float32 of shape (400,)"),
        ({"score": np.zeros(0, np.float32)}, "'score' is empty"),
    ],
)
def test_a_damaged_file_is_named_with_its_array(world_file: MakeFile, changes: dict[str, Any], message: str) -> None:
    path = world_file(**changes)
    with pytest.raises(SegloopError, match=re.escape(message)) as found:
        world_of_file(path)
    assert str(path) in str(found.value)


@pytest.mark.parametrize("content", [b"", b"PK nothing", b"text", None])
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SegloopError, match=re.escape(str(path))):
        world_of_file(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(SegloopError, match=r"no \.npz file"):
        world_of_file(tmp_path / "one.npy")


def test_a_run_is_read_with_its_truth(run_directory: Path, known: KnownWorld) -> None:
    found = world_of_run(run_directory, t_iou=0.8, matching="any")
    assert np.array_equal(found.good, known.good)
    assert np.array_equal(found.world.prediction, known.world.prediction)
    assert np.array_equal(found.world.embedding, known.world.embedding)
    assert found.name == "run, iteration 1"
    assert world_of_run(run_directory, 1, t_iou=0.2, matching="any").good.all()


def test_a_run_without_known_truth_is_refused(run_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="no iteration with known truth"):
        last_known_iteration(tmp_path)
    with pytest.raises(SegloopError, match="iteration 3 was not predicted yet"):
        world_of_run(run_directory, 3, t_iou=0.8, matching="any")
