import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segloop.config import PredictionConfig
from segloop.data.images import open_image
from segloop.detection.pipeline import Predicted, predict_stream
from segloop.detection.segmenter import Detections, load_segmenter
from segloop.detection.stages import Stages, stages_of
from segloop.errors import SegloopError
from segloop.files import read_json

SIZES = [(64, 64), (48, 64), (64, 64), (40, 72), (64, 64), (48, 64), (64, 61)]


@pytest.fixture(scope="module")
def files(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Return images of mixed sizes, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("mixed")
    known = [open_image(image["file_name"]) for image in read_json(trained[1])["images"]]
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(known[number % len(known)]).resize((width, height)).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no image")
    return [(10 * number, str(folder / f"{number}.png")) for number in range(len(SIZES))]


def run(segmenter: Any, files: list[tuple[int, str]], **settings: Any) -> list[Predicted]:
    return list(predict_stream(segmenter, files, PredictionConfig(**settings), 0.1))


def same(one: Detections, other: Detections) -> bool:
    columns = ("score", "category", "box", "embedding")
    return one.masks == other.masks and all(np.array_equal(getattr(one, c), getattr(other, c)) for c in columns)


@pytest.mark.parametrize("settings", [{}, {"threads": 3}, {"batch_size": 5}, {"batch_size": "auto", "threads": 2}])
def test_on_a_cpu_it_finds_what_the_plain_loop_finds(
    trained: tuple[Path, Path], files: list[tuple[int, str]], settings: dict[str, Any]
) -> None:
    """Not about the same: the same bits, whatever the threads and batches."""
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    results = run(segmenter, files, **settings)
    assert [(one.image_id, one.file) for one in results] == files
    assert "cannot be read" in str(results[3].outcome)
    detections = 0
    for one in results[:3] + results[4:]:
        image = open_image(one.file)
        assert (one.height, one.width) == image.shape[:2]
        (alone,) = segmenter.predict([image], score=0.1)
        assert isinstance(one.outcome, Detections)
        assert same(one.outcome, alone)
        detections += len(alone)
    assert detections > 10


class Batched:
    """A real segmenter behind `predict` alone, with room for a few images, as on a GPU; it may break."""

    def __init__(self, segmenter: Any, room: int = 100, broken_from: int | None = None, error: Any = None) -> None:
        self.embedding_dim, self.categories = segmenter.embedding_dim, segmenter.categories
        self.asked: list[int] = []
        self._segmenter, self._room, self._broken_from, self._error = segmenter, room, broken_from, error

    def predict(self, images: list[np.ndarray], *, score: float, scale: float = 1.0) -> list[Detections]:
        self.asked.append(len(images))
        assert len({image.shape for image in images}) == 1
        if len(images) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self._broken_from is not None and len(self.asked) > self._broken_from:
            raise self._error
        return self._segmenter.predict(images, score=score, scale=scale)


def test_batches_hold_images_of_like_size_and_the_order_stays(
    trained: tuple[Path, Path], files: list[tuple[int, str]]
) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    batched = Batched(segmenter)
    assert not isinstance(batched, Stages)
    assert isinstance(segmenter, Stages)
    assert stages_of(segmenter) is segmenter
    results = run(batched, files, batch_size=3, threads=2)
    expected = run(segmenter, files)
    assert batched.asked == [3, 2, 1]
    assert [one.image_id for one in results] == [image_id for image_id, _ in files]
    for one, other in zip(results, expected, strict=True):
        assert one.outcome == other.outcome if isinstance(one.outcome, str) else same(one.outcome, other.outcome)


def test_out_of_memory_halves_the_batch(trained: tuple[Path, Path], files: list[tuple[int, str]]) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    many = [(number, files[0][1]) for number in range(14)]
    batched = Batched(segmenter, room=2)
    results = run(batched, many, batch_size=8)
    assert [one.image_id for one in results] == list(range(14))
    assert all(same(one.outcome, results[0].outcome) for one in results)
    # Eight and four do not fit; then never again more than two.
    assert batched.asked == [8, 4] + [2] * 7


def test_no_room_for_a_single_image(trained: tuple[Path, Path], files: list[tuple[int, str]]) -> None:
    batched = Batched(load_segmenter(trained[0], device="cpu", threads=1), room=0)
    with pytest.raises(SegloopError, match=r"too small for a single image, .*0\.png"):
        run(batched, files, batch_size=4)


def test_the_batch_size_is_found_by_trying(trained: tuple[Path, Path], files: list[tuple[int, str]]) -> None:
    batched = Batched(load_segmenter(trained[0], device="cpu", threads=1), room=4)
    results = run(batched, [(number, files[0][1]) for number in range(40)], batch_size="auto")
    assert [one.image_id for one in results] == list(range(40))
    assert batched.asked[:3] == [1, 1, 1]
    # Only the images that are left over at the end may be another number.
    assert set(batched.asked[:-1]) <= {1, 2, 4, 8}
    assert sum(count for count in batched.asked if count <= 4) == 40


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_lost_gpu_is_explained(trained: tuple[Path, Path], files: list[tuple[int, str]], error: Exception) -> None:
    batched = Batched(load_segmenter(trained[0], device="cpu", threads=1), broken_from=1, error=error)
    with pytest.raises(SegloopError, match=r"the GPU failed \((CUDA|cuDNN) error: [^\n]*\)\. Run the step") as caught:
        run(batched, files, batch_size=1)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried ...\nmore"
        ),
        RuntimeError("could not create a primitive"),
    ],
)
def test_too_little_memory_is_explained(
    trained: tuple[Path, Path], files: list[tuple[int, str]], error: Exception
) -> None:
    batched = Batched(load_segmenter(trained[0], device="cpu", threads=1), broken_from=0, error=error)
    with pytest.raises(
        SegloopError, match=r"memory that this job gets is too small \([^\n]+\)\. Give it more"
    ) as caught:
        run(batched, files, batch_size=1)
    assert caught.value.__cause__ is error


def test_another_error_passes(trained: tuple[Path, Path], files: list[tuple[int, str]]) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    batched = Batched(segmenter, broken_from=0, error=RuntimeError("a mistake of a programmer"))
    with pytest.raises(RuntimeError, match="a mistake"):
        run(batched, files)


def test_memory_is_bounded(trained: tuple[Path, Path], files: list[tuple[int, str]]) -> None:
    """However many images there are, only a few are asked for ahead of the results."""
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    for taken_from, ahead in ((segmenter, 2 + 2 * 2), (Batched(segmenter), 2 * 2 + 4 * 2 + 2 * 2)):
        asked = 0

        def many():
            nonlocal asked
            while True:
                asked += 1
                yield asked, files[0][1]

        results = predict_stream(taken_from, many(), PredictionConfig(threads=2, batch_size=2), 0.1)
        for done in range(1, 8):
            next(results)
            assert asked <= done + ahead + 1
        results.close()


def test_threads_and_settings_are_given_back(trained: tuple[Path, Path], files: list[tuple[int, str]]) -> None:
    segmenter = load_segmenter(trained[0], device="cpu", threads=1)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), threading.active_count()
    results = predict_stream(segmenter, files, PredictionConfig(threads=2), 0.1)
    next(results)
    assert torch.are_deterministic_algorithms_enabled()
    results.close()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), threading.active_count()) == before
