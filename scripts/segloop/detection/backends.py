"""The libraries that can train and predict, behind one interface; each is imported when it is first asked for."""

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from segloop.config import DetectorConfig
from segloop.detection.installed import require
from segloop.detection.mask_weighted import MaskWeighted
from segloop.detection.segmenter import ImageArray
from segloop.errors import SegloopError

Targets = list[dict[str, Tensor]]

MODULES = {
    "torchvision": "segloop.detection.torchvision_backend",
    "detectron2": "segloop.detection.detectron2_backend",
}
"""The module of each backend; it provides the functions of `Backend`."""


class Network(Protocol):
    """What both libraries' networks can do; they are modules of torch besides."""

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: Targets) -> dict[str, Tensor]:
        """Return the losses of a batch (`segloop.detection.training.loss_names`); their sum is to be minimised.

        Parameters
        ----------
        images
            What the backend's `to_batch` made.
        sizes
            Height and width of each image without padding.
        targets
            For each image `boxes` float[n, 4], `labels` int64[n] from 1, `masks` uint8[n, h, w] and `ignored`
            float[m, 4]: boxes that hold no negative examples.
        """

    def detect(self, images: Tensor, sizes: list[tuple[int, int]], score: float) -> list[dict[str, Tensor]]:
        """Find objects.

        Returns
        -------
        For each image `box` float[n, 4] in pixels of the network's input, `label` int64[n] from 1, `score` float[n]
        descending and above `score`, `embedding` float[n, D], the last fully connected output of the box head for the
        proposal that became the detection, and `mask` float[n, M, M], probabilities inside the box. With a mask IoU
        head also `predicted_iou` float[n] in 0..1, and the embedding has that head's joined to it. After
        `Backend.add_mask_weighted` also `mask_weighted` float[n, 512].
        """


class Backend(Protocol):
    """What the module of a backend provides."""

    def build_model(self, config: DetectorConfig, categories: int) -> Any:
        """Build a `Network` on the CPU, its weights drawn from torch's global generator."""

    def load_initial_weights(self, model: Any, path: Path) -> None:
        """Start from a local file of weights, those of the categories aside where their number differs.

        Raises
        ------
        SegloopError
            If the file is unreadable or belongs to another architecture.
        """

    def facts_of(self, model: Any) -> dict[str, Any]:
        """Return what model.json must say, besides the configuration, for the network to be built again."""

    def warn_of_random_weights(self, model: Any, config: DetectorConfig) -> None:
        """Log a warning if the network will hardly learn from random weights."""

    def load_model(self, model: Path) -> tuple[Any, dict[str, Any], DetectorConfig]:
        """Open a model directory.

        Returns
        -------
        The `Network` on the CPU, the contents of model.json, and the configuration it was built with.
        """

    def to_batch(self, images: list[ImageArray], device: torch.device) -> Tensor:
        """Turn images uint8[h, w, 3] into what the network's `losses` and `detect` take."""

    def stride_of(self, model: Any) -> int:
        """Return the number of pixels of which padded sides are a multiple; 1 where nothing is padded."""

    def add_mask_weighted(self, model: Any, config: DetectorConfig) -> MaskWeighted:
        """Let a network give the embedding `mask_weighted`, too; return what makes it, which has no weights."""

    def keep_float32_geometry(self, model: Any) -> None:
        """Prepare a network for mixed precision: what boxes and probabilities are computed from stays float32."""


def backend_of(name: str, where: str = "detector.backend") -> Backend:
    """Return a backend by its name.

    Parameters
    ----------
    where
        What names it, for the message.

    Raises
    ------
    SegloopError
        If there is no such backend, or its library is not installed or does not work.
    """
    if name not in MODULES:
        raise SegloopError(f"{where} names the backend {name!r}; this version of segloop knows {', '.join(MODULES)}")
    require(name)
    try:
        module = importlib.import_module(MODULES[name])
    except ImportError as error:
        raise SegloopError(
            f"{where}: {name} is installed, but cannot be imported ({error}). It was probably built for another "
            f"version of PyTorch than {torch.__version__}, or lacks a package that it needs: install it again."
        ) from None
    return cast(Backend, module)
