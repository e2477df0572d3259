"""The stages of a prediction, so that they can overlap: make an image ready, run the network, finish its masks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from segloop.detection.segmenter import Detections, ImageArray, Segmenter


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it.

    Attributes
    ----------
    pixels
        RGB, uint8[h, w, 3], scaled.
    height, width
        Size of the image itself in pixels; what is found has this size.
    like
        Images of the same value may share a batch: none of them is padded more than it would be alone.
    image
        The image itself, uint8[height, width, 3], where its masks are described by what it shows; else None.
    """

    pixels: ImageArray
    height: int
    width: int
    like: tuple[int, int]
    image: ImageArray | None = None


@runtime_checkable
class Stages(Protocol):
    """A segmenter whose stages can be called one by one.

    `prepare` and `finish` may run in any thread. So may `detect`, in several at once, where `parallel` is true.
    """

    @property
    def parallel(self) -> bool:
        """Whether images go through the network one by one in several threads (a CPU), not in batches (a GPU)."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold torch's settings, which belong to the whole process, while stages run."""

    def prepare(self, image: ImageArray, scale: float = 1.0) -> Prepared:
        """Make an image ready for the network; arguments as those of `Segmenter.predict`."""

    def detect(self, images: list[Prepared], score: float) -> list[Any]:
        """Run the network on a batch of images that are alike.

        Returns
        -------
        For each image what `finish` takes.

        Raises
        ------
        torch.OutOfMemoryError
            If the batch does not fit; a smaller one may be tried.
        """

    def finish(self, found: Any) -> Detections:
        """Turn what the network gave into detections with masks of the image's size."""


class WholeStages:
    """A segmenter that has only `predict`: its network stage does everything."""

    parallel = False

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    @contextmanager
    def running(self) -> Iterator[None]:
        """Leave all settings to the segmenter."""
        yield

    def prepare(self, image: ImageArray, scale: float = 1.0) -> Prepared:
        """Return the image as it is; scaling is not for this class."""
        if scale != 1.0:
            raise ValueError("a segmenter without stages scales its input itself")
        height, width = image.shape[:2]
        return Prepared(image, height, width, (height, width))

    def detect(self, images: list[Prepared], score: float) -> list[Any]:
        """Predict."""
        return list(self._segmenter.predict([image.pixels for image in images], score=score))

    def finish(self, found: Any) -> Detections:
        """Return the detections."""
        detections: Detections = found
        return detections


def stages_of(segmenter: Segmenter) -> Stages:
    """Return the stages of a segmenter, whichever backend it is from."""
    return segmenter if isinstance(segmenter, Stages) else WholeStages(segmenter)
