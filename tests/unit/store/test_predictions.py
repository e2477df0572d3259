import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segloop.errors import SegloopError
from segloop.ids import unpack_prediction_ids
from segloop.store import predictions as module
from segloop.store.arrays import Layout
from segloop.store.predictions import PredictionShard, PredictionWriter

Make = Callable[..., Any]


def write(path: Path, per_image: list[Any], sizes: tuple[int, int] = (6, 8), **options: Any) -> None:
    settings = {"iteration": 2, "shard": 5, "model_sha256": "abc", "embedding_dim": 16} | options
    with PredictionWriter(path, **settings) as writer:
        for number, found in enumerate(per_image):
            # Descending ids: a shard keeps the order of its images, whatever their ids are.
            writer.append(900 - number, *sizes, found)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_is_written_is_read(tmp_path: Path, detections: Make) -> None:
    images = [detections(3, seed=1, iou=True), detections(0, iou=True), detections(4, seed=2, iou=True)]
    write(tmp_path / "5.zarr", images, has_predicted_iou=True)
    shard = PredictionShard.open(tmp_path / "5.zarr")
    assert len(shard) == 7
    assert (shard.iteration, shard.shard, shard.model_sha256, shard.embedding_dim) == (2, 5, "abc", 16)
    for name in ("score", "category", "box", "predicted_iou"):
        found, wanted = getattr(shard, name), np.concatenate([getattr(image, name) for image in images])
        assert found.dtype == wanted.dtype
        assert (found == wanted).all()
    assert shard.image_id.tolist() == [900] * 3 + [898] * 4
    assert [part.tolist() for part in shard.images] == [[900, 899, 898], [6] * 3, [8] * 3]
    assert shard.rles() == images[0].masks + images[2].masks


def test_row_of_embedding_is_row_of_prediction(tmp_path: Path, detections: Make) -> None:
    images = [detections(5, seed=seed) for seed in range(6)]
    write(tmp_path / "5.zarr", images)
    shard = PredictionShard.open(tmp_path / "5.zarr")
    expected = np.concatenate([image.embedding for image in images]).astype(np.float16)
    iteration, number, row = unpack_prediction_ids(shard.prediction)
    assert set(iteration) == {2}
    assert set(number) == {5}
    assert (shard.embeddings()[row] == expected).all()
    for rows in ([], [7], [29, 3, 3], [0, 29], list(range(4, 9)), [9, 8, 7, 6]):
        assert (shard.embeddings(np.array(rows, np.int64)) == expected[rows]).all()
        assert shard.rles(np.array(rows, np.int64)) == [shard.rles()[row] for row in rows]


def test_many_flushes_change_nothing(tmp_path: Path, detections: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [detections(7, seed=seed) for seed in range(9)]
    write(tmp_path / "whole.zarr", images)
    for name in ("_EMBEDDINGS", "_COLUMN", "_BYTES"):
        monkeypatch.setattr(module, name, Layout(4, 16))
    write(tmp_path / "pieces.zarr", images)
    whole, pieces = PredictionShard.open(tmp_path / "whole.zarr"), PredictionShard.open(tmp_path / "pieces.zarr")
    assert (whole.embeddings() == pieces.embeddings()).all()
    assert whole.rles() == pieces.rles()
    assert (whole.score == pieces.score).all()


def test_same_input_gives_same_bytes_in_few_files(tmp_path: Path, detections: Make) -> None:
    images = [detections(20, seed=seed, iou=True) for seed in range(30)]
    for name in ("a.zarr", "b.zarr"):
        write(tmp_path / name, images, has_predicted_iou=True)
    assert digest(tmp_path / "a.zarr") == digest(tmp_path / "b.zarr")
    assert len(digest(tmp_path / "a.zarr")) <= 40


def test_shard_without_images_or_predictions(tmp_path: Path, detections: Make) -> None:
    write(tmp_path / "none.zarr", [])
    write(tmp_path / "empty.zarr", [detections(0)])
    for name, images in (("none.zarr", 0), ("empty.zarr", 1)):
        shard = PredictionShard.open(tmp_path / name)
        assert len(shard) == len(shard.score) == len(shard.prediction) == len(shard.rles()) == 0
        assert shard.embeddings().shape == (0, 16)
        assert shard.box.shape == (0, 4)
        assert len(shard.images[0]) == images
        assert shard.predicted_iou is None


def test_error_while_writing_leaves_nothing(tmp_path: Path, detections: Make) -> None:
    with (
        pytest.raises(RuntimeError, match="model broke"),
        PredictionWriter(tmp_path / "5.zarr", iteration=1, shard=5, model_sha256="", embedding_dim=16) as writer,
    ):
        writer.append(1, 6, 8, detections(3))
        raise RuntimeError("model broke")
    assert list(tmp_path.iterdir()) == []


def test_killed_writer_leaves_no_store_and_the_next_one_cleans_up(tmp_path: Path, detections: Make) -> None:
    program = """
        import os, signal, sys
        from segloop.store.predictions import PredictionWriter
        with PredictionWriter(sys.argv[1], iteration=1, shard=5, model_sha256="", embedding_dim=16):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    path = tmp_path / "5.zarr"
    environment = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], env=environment, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(SegloopError, match=r"5\.zarr"):
        PredictionShard.open(path)
    write(path, [detections(2)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["5.zarr"]


@pytest.mark.parametrize("harm", ["remove", "truncate"])
def test_store_that_lost_bytes_is_refused(tmp_path: Path, detections: Make, harm: str) -> None:
    path = tmp_path / "5.zarr"
    write(path, [detections(3)])
    victim = next(file for file in (path / "score" / "c").rglob("*") if file.is_file())
    if harm == "remove":
        victim.unlink()
    else:
        os.truncate(victim, victim.stat().st_size - 1)
    with pytest.raises(SegloopError, match=r"5\.zarr is incomplete: score"):
        PredictionShard.open(path)


def test_flipped_bytes_are_noticed(tmp_path: Path, detections: Make) -> None:
    path = tmp_path / "5.zarr"
    write(path, [detections(30)])
    victim = next(file for file in (path / "score" / "c").rglob("*") if file.is_file())
    data = bytearray(victim.read_bytes())
    data[20] ^= 255
    victim.write_bytes(data)
    with pytest.raises(SegloopError, match=r"5\.zarr is damaged"):
        PredictionShard.open(path).score  # noqa: B018


def test_missing_and_foreign_stores_are_named(tmp_path: Path, detections: Make) -> None:
    with pytest.raises(SegloopError, match=r"nowhere\.zarr is not a Zarr store"):
        PredictionShard.open(tmp_path / "nowhere.zarr")
    path = tmp_path / "5.zarr"
    write(path, [detections(1)])
    root = path / "zarr.json"
    text = root.read_text()
    root.write_text(text.replace('"schema_version": 2', '"schema_version": 99'))
    with pytest.raises(SegloopError, match=r"5\.zarr has schema version 99"):
        PredictionShard.open(path)
    root.write_text(text.replace('"kind": "predictions"', '"kind": "index"'))
    with pytest.raises(SegloopError, match=r"5\.zarr holds index"):
        PredictionShard.open(path)
    root.write_text("{")
    with pytest.raises(SegloopError, match=r"5\.zarr is damaged"):
        PredictionShard.open(path)


def test_detections_that_do_not_fit_are_refused(tmp_path: Path, detections: Make) -> None:
    def attempt(*images: Any, **options: Any) -> None:
        write(tmp_path / "5.zarr", list(images), **options)

    with pytest.raises(SegloopError, match=r"image 900 .* width 9"):
        attempt(detections(2, dim=9))
    with pytest.raises(SegloopError, match=r"image 900 .* another size"):
        attempt(detections(2, size=(8, 6)))
    with pytest.raises(SegloopError, match=r"image 900 .* different lengths"):
        attempt(detections(2), has_predicted_iou=True)
    with (
        pytest.raises(SegloopError, match=r"image 7 .* twice"),
        PredictionWriter(tmp_path / "5.zarr", iteration=1, shard=1, model_sha256="", embedding_dim=16) as writer,
    ):
        writer.append(7, 6, 8, detections(1))
        writer.append(7, 6, 8, detections(1))
    with pytest.raises(ValueError, match="iteration 0"):
        attempt(detections(1), iteration=0)


def test_rows_outside_the_shard_are_refused(tmp_path: Path, detections: Make) -> None:
    write(tmp_path / "5.zarr", [detections(3)])
    shard = PredictionShard.open(tmp_path / "5.zarr")
    for read in (shard.embeddings, shard.rles):
        with pytest.raises(SegloopError, match="has 3 rows, but row 3"):
            read(np.array([0, 3]))


def test_values_beyond_float16_become_infinite_without_a_warning(tmp_path: Path, detections: Make) -> None:
    found = detections(1)
    found.embedding[0, 0] = 1e6
    write(tmp_path / "5.zarr", [found])
    assert np.isinf(PredictionShard.open(tmp_path / "5.zarr").embeddings()[0, 0])
