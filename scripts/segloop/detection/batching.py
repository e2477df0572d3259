"""How many images go through the network at once, and which."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeVar

logger = logging.getLogger("segloop.detection")

LARGEST: Final = 64
"""`auto` tries no larger batch."""
GAIN: Final = 1.05
"""A batch twice as large must be faster by this factor to be worth its memory."""
TRIALS: Final = 3
"""Batches of each size that are measured; the first one warms up and does not count."""
WINDOW: Final = 4
"""So many batches of images wait at most, that batches of images of like size can be made of them."""

Item = TypeVar("Item")


class BatchSize:
    """The number of images of a batch: fixed, or found by trying; halved when a batch did not fit.

    Trying costs nothing: the batches are those that have to be predicted anyway. Beginning with one image, the size
    doubles as long as this is faster.

    Parameters
    ----------
    wanted
        Images of a batch; `auto` tries.
    """

    def __init__(self, wanted: int | Literal["auto"]) -> None:
        self.size = 1 if wanted == "auto" else wanted
        self.trying = wanted == "auto"
        self._best_rate = 0.0
        self._rates: list[float] = []

    def measured(self, images: int, work: float, seconds: float) -> None:
        """Learn what a batch took.

        Parameters
        ----------
        images
            Images in the batch; one that was not full says nothing.
        work
            How much it was, in any unit, such as pixels.
        seconds
            How long it took.
        """
        if not self.trying or images != self.size:
            return
        self._rates.append(work / max(seconds, 1e-9))
        if len(self._rates) < TRIALS:
            return
        rate, self._rates = max(self._rates[1:]), []
        if rate < GAIN * self._best_rate:
            self._settle(self.size // 2)
        elif self.size == LARGEST:
            self._settle(self.size)
        else:
            self._best_rate, self.size = rate, 2 * self.size

    def out_of_memory(self, images: int) -> None:
        """Learn that a batch of so many images did not fit."""
        self._settle(max(1, min(self.size, images // 2)))

    def _settle(self, size: int) -> None:
        self.trying, self.size = False, size
        logger.info("batches of %d images", size)


def like_batches(items: Iterable[Item], size: BatchSize, like: Callable[[Item], object]) -> Iterator[list[Item]]:
    """Cut items into batches of items that are alike; each batch begins with the oldest item that waits.

    At most `WINDOW` times the size of a batch wait at a time.

    Parameters
    ----------
    size
        How many items a batch holds at most; it may change from batch to batch.
    like
        Items of equal value may share a batch.
    """
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) >= WINDOW * size.size:
            yield _take(waiting, size.size, like)
    while waiting:
        yield _take(waiting, size.size, like)


def _take(waiting: list[Item], count: int, like: Callable[[Item], object]) -> list[Item]:
    kind = like(waiting[0])
    places = [place for place, item in enumerate(waiting) if like(item) == kind][:count]
    batch = [waiting[place] for place in places]
    for place in reversed(places):
        del waiting[place]
    return batch


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of `size`; the last one may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
