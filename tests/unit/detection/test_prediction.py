import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segloop.config import PredictionConfig
from segloop.detection import model_files
from segloop.detection.prediction import predict_shard
from segloop.detection.segmenter import load_segmenter
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.store.predictions import PredictionShard


def write_shard(path: Path, files: list[Path]) -> Path:
    columns = {
        "image_id": pa.array([10 * number for number in range(len(files))], pa.int64()),
        "file_name": pa.array([str(file) for file in files], pa.string()),
        "width": pa.array([0] * len(files), pa.int32()),
        "height": pa.array([0] * len(files), pa.int32()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def predict(
    trained: tuple[Path, Path], files: list[Path], folder: Path, max_skipped: float = 0.0, **settings: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    predict_shard(
        models={"detector": trained[0]},
        images=write_shard(folder / "shard.parquet", files),
        shard=4,
        iteration=2,
        output=folder / "4.zarr",
        skipped=folder / "4.skipped.json",
        prediction=PredictionConfig(**{"store_score": 0.2, "batch_size": 3, **settings}),
        device="cpu",
        max_skipped=max_skipped,
    )
    return folder / "4.zarr"


@pytest.fixture
def files(trained: tuple[Path, Path], tmp_path: Path) -> list[Path]:
    blank = tmp_path / "blank.png"
    Image.fromarray(np.full((40, 64, 3), 120, np.uint8)).save(blank)
    known = [Path(image["file_name"]) for image in read_json(trained[1])["images"]]
    return [known[0], known[1], blank, known[2]]


def test_a_shard_holds_what_the_segmenter_found(trained: tuple[Path, Path], files: list[Path], tmp_path: Path) -> None:
    shard = PredictionShard.open(predict(trained, files, tmp_path / "run"))
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    assert (shard.iteration, shard.shard, shard.embedding_dim) == (2, 4, 64)
    assert shard.model_sha256 == model_files.read_description(trained[0])["weights_sha256"]
    ids, height, width = shard.images
    assert (ids.tolist(), height.tolist(), width.tolist()) == ([0, 10, 20, 30], [64, 64, 40, 64], [64] * 4)
    assert (shard.score > 0.2).all()
    for number, file in enumerate(files):
        rows = np.flatnonzero(shard.image_id == 10 * number)
        (found,) = segmenter.predict([np.asarray(Image.open(file))], score=0.2)
        assert shard.category[rows].tolist() == found.category.tolist()
        assert np.allclose(shard.score[rows], found.score, atol=1e-4)
        assert np.allclose(shard.box[rows], found.box, atol=0.1)
        # Contract 1: an embedding row belongs to the prediction of the same row.
        assert np.allclose(shard.embeddings(rows), found.embedding, atol=0.02, rtol=0.01)
    assert len(shard) > 4


def test_a_shard_is_the_same_bytes_again(trained: tuple[Path, Path], files: list[Path], tmp_path: Path) -> None:
    first, second = (predict(trained, files, tmp_path / name) for name in ("first", "second"))
    assert contents(first) == contents(second)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_unreadable_image_is_named(trained: tuple[Path, Path], files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    store = predict(trained, [files[0], broken, files[1]], tmp_path / "run", max_skipped=0.5)
    assert PredictionShard.open(store).images[0].tolist() == [0, 20]
    report = read_json(tmp_path / "run" / "4.skipped.json")
    assert report["used"] == 2
    assert [(one["file"], one["record"]) for one in report["skipped"]] == [(str(broken), "10")]


def test_too_many_unreadable_images_leave_no_store(
    trained: tuple[Path, Path], files: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(SegloopError, match="gone"):
        predict(trained, [files[0], tmp_path / "gone.jpg"], tmp_path / "run", max_skipped=0.1)
    assert not (tmp_path / "run" / "4.zarr").exists()
    assert (tmp_path / "run" / "4.skipped.json").exists()


def test_an_empty_shard(trained: tuple[Path, Path], tmp_path: Path) -> None:
    shard = PredictionShard.open(predict(trained, [], tmp_path / "run"))
    assert len(shard) == 0
    assert shard.embeddings().shape == (0, 64)


def test_any_number_of_threads_gives_the_same_bytes(
    trained: tuple[Path, Path], files: list[Path], tmp_path: Path
) -> None:
    one = predict(trained, files, tmp_path / "one")
    several = predict(trained, files, tmp_path / "several", threads=3, batch_size="auto")
    assert contents(one) == contents(several)


KILLED = """
import sys
from pathlib import Path
from segloop.config import PredictionConfig
from segloop.detection import partial
from segloop.detection.prediction import predict_shard

partial.PART_SECONDS = 0.0
folder = Path(sys.argv[2])
predict_shard(
    models={"detector": Path(sys.argv[1])}, images=folder / "shard.parquet", shard=4, iteration=2,
    output=folder / "4.zarr",
    skipped=folder / "4.skipped.json", prediction=PredictionConfig(store_score=0.2), device="cpu", max_skipped=0.5,
)
"""


def test_a_killed_shard_goes_on(
    trained: tuple[Path, Path], files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is the same bytes as an undisturbed one, and what was done is not done again."""
    many = [*files, tmp_path / "gone.png"] * 30
    folder = tmp_path / "killed"
    folder.mkdir()
    write_shard(folder / "shard.parquet", many)
    source = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(trained[0]), str(folder)], env={**os.environ, "PYTHONPATH": source}
    )
    while not (folder / ".4.zarr.partial" / "000008.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "4.zarr").exists()
    kept = len(list((folder / ".4.zarr.partial").glob("*.npz")))
    assert 9 <= kept < len(many)
    with caplog.at_level(logging.INFO, "segloop"):
        store = predict(trained, many, folder, max_skipped=0.5, threads=2)
    assert f"going on after {kept} images" in caplog.text
    assert not (folder / ".4.zarr.partial").exists()
    undisturbed = predict(trained, many, tmp_path / "undisturbed", max_skipped=0.5)
    assert contents(store) == contents(undisturbed)
    reports = [read_json(path.with_name("4.skipped.json")) for path in (store, undisturbed)]
    assert reports[0] == reports[1]
    assert len(reports[0]["skipped"]) == 30
