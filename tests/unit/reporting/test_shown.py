import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segloop.data import masks
from segloop.errors import SegloopError
from segloop.ids import prediction_ids
from segloop.reporting.shown import category_names, draw_shown, look_up

from .conftest import COLOURS, Iteration, square


def test_masks_come_in_the_order_asked_for(iteration: Callable[..., Iteration]) -> None:
    made = iteration()
    wanted = made.ids[[8, 0, 4]]
    shown = look_up(wanted, made.predictions, made.shards)
    assert [mask.prediction for mask in shown] == wanted.tolist()
    assert [mask.image for mask in shown] == [made.image(3), made.image(1), made.image(2)]
    assert [mask.category for mask in shown] == [3, 1, 2]
    for mask, place in zip(shown, (2, 0, 1), strict=True):
        assert (masks.decode(mask.rle) == square(place)).all()


def test_shards_without_a_wanted_prediction_are_not_opened(iteration: Callable[..., Iteration]) -> None:
    made = iteration()
    shutil.rmtree(made.predictions[1])
    shown = look_up(made.ids[:2], made.predictions, made.shards)
    assert len(shown) == 2
    with pytest.raises(SegloopError, match=r"1\.zarr"):
        look_up(made.ids[-1:], made.predictions, made.shards)


def test_nothing_wanted_opens_nothing() -> None:
    assert look_up(np.empty(0, np.uint64), [], []) == []


def test_a_prediction_of_no_shard_is_an_error_for_a_person(iteration: Callable[..., Iteration]) -> None:
    made = iteration()
    with pytest.raises(SegloopError, match="shard 7, but there are 2"):
        look_up(prediction_ids(1, 7, 1), made.predictions, made.shards)


def test_stores_in_a_wrong_order_are_refused(iteration: Callable[..., Iteration]) -> None:
    made = iteration()
    with pytest.raises(SegloopError, match="holds shard 1, not 0"):
        look_up(made.ids[:1], made.predictions[::-1], made.shards)


def test_the_picture_shows_the_image(iteration: Callable[..., Iteration]) -> None:
    made = iteration()
    shown = look_up(made.ids[:1], made.predictions, made.shards)
    picture = draw_shown(shown[0], 64)
    assert picture is not None
    assert (picture == COLOURS[0]).all(axis=2).mean() > 0.1


@pytest.mark.parametrize("harm", ["deleted", "truncated", "resized", "unlisted"])
def test_an_image_that_cannot_be_had_is_named_in_the_log(
    harm: str, iteration: Callable[..., Iteration], caplog: pytest.LogCaptureFixture
) -> None:
    made = iteration()
    mask = look_up(made.ids[:1], made.predictions, made.shards)[0]
    if harm == "deleted":
        made.image(1).unlink()
    elif harm == "truncated":
        made.image(1).write_bytes(made.image(1).read_bytes()[:60])
    elif harm == "resized":
        Image.new("RGB", (10, 10)).save(made.image(1))
    else:
        mask = replace(mask, image=None)
    with caplog.at_level(logging.WARNING, logger="segloop"):
        assert draw_shown(mask, 64) is None
    assert f"prediction {mask.prediction}" in caplog.text


def test_categories_have_their_names(iteration: Callable[..., Iteration]) -> None:
    assert category_names(iteration().seed_set) == {1: "red", 2: "green", 3: "blue"}


def test_a_missing_seed_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"train\.json does not exist"):
        category_names(tmp_path / "train.json")
