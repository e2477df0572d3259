"""What a detector is to the rest of the loop: images in, scored masks with embeddings out."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from segloop.config import CropConfig, FurtherEmbedding, Precision, Score
from segloop.data.masks import Rle
from segloop.detection import model_files
from segloop.errors import SegloopError

ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Detections:
    """What was found in one image, in descending order of the score.

    Attributes
    ----------
    score
        float32[n] in 0..1.
    category
        int32[n], category ids of the data set (not the labels of the network).
    box
        float32[n, 4], corners x0, y0, x1, y1 in pixels of the image.
    masks
        n run-length encoded masks of the image's size, none of them empty.
    embedding
        float32[n, D].
    predicted_iou
        float32[n], or None if the model does not predict how good its masks are.
    """

    score: npt.NDArray[np.float32]
    category: npt.NDArray[np.int32]
    box: npt.NDArray[np.float32]
    masks: list[Rle]
    embedding: npt.NDArray[np.float32]
    predicted_iou: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.score)


class Segmenter(Protocol):
    """A trained detector, whatever library it comes from."""

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""

    @property
    def embedding_parts(self) -> dict[str, int]:
        """Name and width of what is joined to an embedding, in order."""

    @property
    def embedding_facts(self) -> dict[str, Any]:
        """By the name of a part, what a store records about how it was made; empty for what a model's file says."""

    @property
    def predicts_iou(self) -> bool:
        """Whether detections come with a predicted IoU."""

    @property
    def categories(self) -> list[dict[str, Any]]:
        """COCO categories of the training set."""

    def predict(self, images: list[ImageArray], *, score: float, scale: float = 1.0) -> list[Detections]:
        """Find objects.

        Parameters
        ----------
        images
            RGB, uint8[H, W, 3]; sizes may differ.
        score
            Only detections above this score are returned.
        scale
            How much larger than usual the network sees the images; what it finds has their own size.

        Returns
        -------
        One `Detections` an image. It depends on that image alone, not on the others of the batch.
        """


def times_iou(found: Detections, above: float) -> Detections:
    """Multiply scores by predicted IoU; keep what is above a score, in descending order.

    Parameters
    ----------
    found
        Detections with a predicted IoU.
    above
        Only products above this are kept.
    """
    if found.predicted_iou is None:
        raise ValueError("these detections come without a predicted IoU")
    product = found.score * found.predicted_iou
    order = np.argsort(-product, kind="stable")
    rows = order[product[order] > above]
    return replace(
        found,
        score=product[rows],
        category=found.category[rows],
        box=found.box[rows],
        masks=[found.masks[row] for row in rows],
        embedding=found.embedding[rows],
        predicted_iou=found.predicted_iou[rows],
    )


def load_segmenter(
    model: Path,
    *,
    device: str,
    threads: int,
    precision: Precision = "float32",
    score: Score = "class",
    embeddings: Sequence[FurtherEmbedding] = (),
    crop: CropConfig | None = None,
) -> Segmenter:
    """Open a trained model.

    Parameters
    ----------
    model
        A model directory as `segloop.detection.training.train_detector` leaves it.
    device
        `auto`, `cpu` or `cuda`.
    threads
        Threads of numerical code while it predicts.
    precision
        Of its convolutions and products.
    score
        What the score of a detection is: `PredictionConfig.score`.
    embeddings, crop
        What is joined to the embeddings of the heads, as `PredictionConfig` describes it.

    Raises
    ------
    SegloopError
        If the directory is incomplete, its weights do not fit its description, the library it was trained with is not
        installed, the device cannot be used, or the score wants a predicted IoU and the model predicts none.
    """
    # Imported here, because they are made of what this module defines.
    from segloop.detection.backends import backend_of
    from segloop.detection.network_segmenter import NetworkSegmenter

    description = model_files.read_description(model)
    backend = backend_of(description["backend"], str(model / model_files.DESCRIPTION))
    where = resolve_device(device, gpu_was_given())
    segmenter = NetworkSegmenter(
        backend,
        model,
        device=where,
        threads=threads,
        precision=precision,
        score=score,
        embeddings=embeddings,
        crop=crop,
    )
    if score == "class_times_iou" and not segmenter.predicts_iou:
        raise SegloopError(
            f"prediction.score: class_times_iou needs a predicted IoU, and {model} was trained without a mask IoU "
            "head. Set prediction.score: class, or set detector.mask_iou_head: true and train again."
        )
    return segmenter


def gpu_was_given() -> bool:
    """Say whether the scheduler gave this job a GPU: `CUDA_VISIBLE_DEVICES` names one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    return visible not in ("", "-1", "NoDevFiles")


def resolve_device(device: str, gpu_requested: bool) -> torch.device:
    """Choose the device of a job (contract 9 of the architecture).

    Parameters
    ----------
    device
        `auto` takes a GPU if there is one, `cpu` never does, `cuda` insists.
    gpu_requested
        Whether the job was given a GPU; then `auto` insists too, so that a broken driver does not silently turn
        hours into weeks.

    Raises
    ------
    SegloopError
        If a GPU must be used and cannot be.
    """
    if device == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings():
        # The error below says more than this warning, and without a wish for a GPU it says too much.
        warnings.filterwarnings("ignore", message="CUDA initialization")
        available = torch.cuda.is_available()
    if available:
        return torch.device("cuda")
    if device == "cuda" or gpu_requested:
        reason = "the configuration says device: cuda" if device == "cuda" else "this job was given a GPU"
        raise SegloopError(
            f"{reason}, but PyTorch {torch.__version__} cannot use one here. Check the driver (`nvidia-smi`) and that "
            "this PyTorch is built for CUDA, or set device: cpu."
        )
    return torch.device("cpu")


def choose_gpu(device: str, number: int) -> bool:
    """Take one of a node's GPUs for this process, if it is to use any.

    Parameters
    ----------
    device
        As `resolve_device` takes it.
    number
        Number of this process on the node, from 0.

    Returns
    -------
    Whether a GPU is used.
    """
    if resolve_device(device, gpu_was_given()).type != "cuda":
        return False
    # Some sites show each process its own GPU only, others all of the job's.
    torch.cuda.set_device(number % torch.cuda.device_count())
    return True


@contextmanager
def numerical_settings(device: torch.device, threads: int) -> Iterator[None]:
    """Run a block with a number of threads and, on the CPU, with deterministic algorithms only."""
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    deterministic: Any = torch.utils.deterministic
    fill_before = deterministic.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device.type == "cpu")
    # Finds reads of memory nobody wrote; costs several per cent.
    deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        deterministic.fill_uninitialized_memory = fill_before
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(deterministic_before)
