"""What is shown of a prediction: its image, its mask, and the square that is cut around it."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from segloop.data import masks
from segloop.data.masks import Rle
from segloop.data.pool import read_shard
from segloop.errors import SegloopError
from segloop.ids import unpack_prediction_ids
from segloop.store.predictions import PredictionShard

_KEPT: Final = 20_000
_SHARDS: Final = 32
_SIDE: Final = 2.0
_ZOOM: Final = (1.0, 5.0)


@dataclass(frozen=True)
class Picture:
    """One prediction as it is shown.

    Attributes
    ----------
    file_name
        Of the image, relative to the run directory.
    size
        Width and height of the image.
    box
        [x, y, width, height] of the mask.
    """

    file_name: str
    size: tuple[int, int]
    box: list[float]
    mask: Rle

    @property
    def crop(self) -> dict[str, float]:
        """The square to show: its side is twice the longer side of the box, within 1 to 5 times the whole image.

        Whole numbers, so that what is cut and what is drawn over it lie on the same pixels.
        """
        x, y, width, height = self.box
        whole = max(self.size)
        zoom = min(max(whole / max(_SIDE * max(width, height), 1.0), _ZOOM[0]), _ZOOM[1])
        side = max(1, round(whole / zoom))
        return {
            "x": round(x + width / 2 - side / 2),
            "y": round(y + height / 2 - side / 2),
            "side": side,
            "zoom": round(zoom, 3),
        }


class Pictures:
    """Reads predictions from the stores of a run, and keeps what was read last.

    Parameters
    ----------
    run
        The run directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = threading.RLock()
        self._found: OrderedDict[int, Picture] = OrderedDict()
        self._stores: OrderedDict[tuple[int, int], PredictionShard] = OrderedDict()
        self._names: OrderedDict[int, dict[int, str]] = OrderedDict()

    def of(self, prediction: int) -> Picture:
        """Return one prediction."""
        return self.many([prediction])[0]

    def many(self, predictions: Sequence[int]) -> list[Picture]:
        """Return predictions, read shard by shard.

        Raises
        ------
        SegloopError
            If a store is missing or damaged.
        """
        with self._lock:
            missing = [one for one in predictions if one not in self._found]
            if missing:
                self._read(np.unique(np.array(missing, np.uint64)))
            found = [self._found[one] for one in predictions]
            for one in predictions:
                self._found.move_to_end(one)
            while len(self._found) > max(_KEPT, len(predictions)):
                self._found.popitem(last=False)
            return found

    def _read(self, ids: Any) -> None:
        iteration, shard, row = unpack_prediction_ids(ids)
        for key in sorted(set(zip(iteration.tolist(), shard.tolist(), strict=True))):
            own = np.flatnonzero((iteration == key[0]) & (shard == key[1]))
            store, names = self._store(key), self._names_of(key[1])
            rles = store.rles(row[own])
            boxes = masks.boxes(rles).tolist()
            images = store.image_id[row[own]].tolist()
            for name, rle, box, image in zip(ids[own].tolist(), rles, boxes, images, strict=True):
                if image not in names:
                    raise SegloopError(f"{store.path} holds predictions of image {image}, which the pool lacks.")
                height, width = rle["size"]
                self._found[int(name)] = Picture(names[image], (width, height), box, rle)

    def _store(self, key: tuple[int, int]) -> PredictionShard:
        if key not in self._stores:
            path = self._run / "results" / f"iter_{key[0]}" / "predictions" / f"{key[1]}.zarr"
            self._stores[key] = PredictionShard.open(path)
            if len(self._stores) > _SHARDS:
                self._stores.popitem(last=False)
        return self._stores[key]

    def _names_of(self, shard: int) -> dict[int, str]:
        if shard not in self._names:
            pool = read_shard(self._run / "resources" / "pool" / "shards" / f"{shard}.parquet")
            self._names[shard] = dict(zip(pool.image_id.tolist(), pool.file_name, strict=True))
            if len(self._names) > _SHARDS:
                self._names.popitem(last=False)
        return self._names[shard]
