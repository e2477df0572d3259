import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segloop.data import masks
from segloop.detection import partial
from segloop.detection.partial import PartialPredictions
from segloop.detection.pipeline import Predicted
from segloop.detection.segmenter import Detections
from segloop.errors import SegloopError

KEY = {"model": "a", "versions": {"torch": "2"}}


def predicted(image_id: int, count: int, height: int = 5, width: int = 7, iou: bool = False) -> Predicted:
    """Return made-up detections; a count of -1 is an image that cannot be read."""
    if count < 0:
        return Predicted(image_id, f"{image_id}.png", 0, 0, "cannot be read: \u00e9\0")
    random = np.random.default_rng(image_id)
    return Predicted(
        image_id,
        f"{image_id}.png",
        height,
        width,
        Detections(
            score=random.random(count).astype(np.float32),
            category=random.integers(0, 9, count).astype(np.int32),
            box=random.random((count, 4)).astype(np.float32),
            masks=[masks.encode(random.random((height, width)) < 0.5) for _ in range(count)],
            embedding=random.random((count, 3)).astype(np.float32),
            predicted_iou=random.random(count).astype(np.float32) if iou else None,
        ),
    )


def same(one: Predicted, other: Predicted) -> bool:
    if (one.image_id, one.file, one.height, one.width) != (other.image_id, other.file, other.height, other.width):
        return False
    if isinstance(one.outcome, str) or isinstance(other.outcome, str):
        return one.outcome == other.outcome
    first, second = vars(one.outcome), vars(other.outcome)
    return all(
        first[name] == second[name] if name == "masks" else np.array_equal(first[name], second[name]) for name in first
    ) and all(getattr(value, "dtype", None) == getattr(second[name], "dtype", None) for name, value in first.items())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(-1, 4), max_size=12), iou=st.booleans(), stops=st.sets(st.integers(0, 11)))
def test_all_comes_back_however_often_it_stops(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], iou: bool, stops: set[int]
) -> None:
    output = tmp_path_factory.mktemp("partial") / "3.zarr"
    given_in = [predicted(number, count, 5 + number, iou=iou) for number, count in enumerate(counts)]
    kept = PartialPredictions(output, KEY)
    kept.__enter__()
    for number, one in enumerate(given_in):
        if number in stops:
            kept.__exit__(None, None, None)
            kept = PartialPredictions(output, KEY)
            kept.__enter__()
            assert len(kept) == number
        kept.append(one)
    assert len(kept) == len(given_in)
    assert all(same(one, other) for one, other in zip(kept, given_in, strict=True))
    kept.remove()
    kept.__exit__(None, None, None)
    assert list(output.parent.iterdir()) == []


def leave(output: Path, count: int = 3) -> Path:
    """Leave one part for each of a few images; return the folder."""
    for number in range(count):
        with PartialPredictions(output, KEY) as kept:
            kept.append(predicted(number, 2))
    return output.parent / f".{output.name}.partial"


def test_a_part_is_written_when_it_is_large_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        folder = tmp_path / ".3.zarr.partial"
        kept.append(predicted(0, 2))
        assert not list(folder.glob("*.npz"))
        monkeypatch.setattr(partial, "PART_BYTES", 80)
        kept.append(predicted(1, 2))
        assert len(list(folder.glob("*.npz"))) == 1
        monkeypatch.setattr(partial, "PART_BYTES", 1 << 30)
        monkeypatch.setattr(partial, "PART_SECONDS", 0.0)
        kept.append(predicted(2, -1))
        assert len(list(folder.glob("*.npz"))) == 2
        assert len(kept) == 3


@pytest.mark.parametrize("error", [SegloopError("the GPU failed"), KeyboardInterrupt()])
def test_an_error_keeps_what_was_done(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        kept.append(predicted(0, 2))
        raise error
    with PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        assert len(kept) == 1


@pytest.mark.parametrize("key", [{**KEY, "model": "b"}, {**KEY, "versions": {"torch": "3"}}])
def test_what_another_model_left_is_discarded(tmp_path: Path, key: dict[str, object]) -> None:
    leave(tmp_path / "3.zarr")
    with PartialPredictions(tmp_path / "3.zarr", key) as kept:
        assert len(kept) == 0
        assert list(kept) == []
    with PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        assert len(kept) == 0


def test_a_damaged_key_discards(tmp_path: Path) -> None:
    (leave(tmp_path / "3.zarr") / "key.json").write_text("{", encoding="utf-8")
    with PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        assert len(kept) == 0


@pytest.mark.parametrize("length", [0, 300])
def test_what_follows_a_damaged_part_is_made_again(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    part = leave(tmp_path / "3.zarr") / "000001.npz"
    part.write_bytes(part.read_bytes()[:length])
    with caplog.at_level(logging.WARNING, "segloop"), PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        assert len(kept) == 1
        kept.append(predicted(7, 1))
        assert [one.image_id for one in kept] == [0, 7]
    assert f"{part} is damaged" in caplog.text
    # The third part belonged behind the damaged one: it must not come back behind the new one.
    with PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        assert [one.image_id for one in kept] == [0, 7]


def test_two_processes_do_not_share_it(tmp_path: Path) -> None:
    with PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        kept.append(predicted(0, 1))
        with (
            pytest.raises(SegloopError, match=r"3\.zarr is being predicted by another process"),
            PartialPredictions(tmp_path / "3.zarr", KEY),
        ):
            pass
    with PartialPredictions(tmp_path / "3.zarr", KEY) as kept:
        assert len(kept) == 1
