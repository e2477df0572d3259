"""Predict with a trained network, in stages: scale, detect, paste."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloop.config import CropConfig, FurtherEmbedding, Precision, Score
from segloop.data.masks import Rle
from segloop.detection import crops, mask_weighted, model_files
from segloop.detection.backends import Backend
from segloop.detection.crops import CropNetwork
from segloop.detection.pasting import paste_mask
from segloop.detection.scaling import scale_image, scaled_size
from segloop.detection.segmenter import Detections, ImageArray, numerical_settings, times_iou
from segloop.detection.stages import Prepared


@dataclass(frozen=True)
class RawDetections:
    """What the network found in an image, on the CPU or on its way there.

    Attributes
    ----------
    arrays
        As `segloop.detection.backends.Network.detect` describes them.
    prepared
        The image.
    above
        Only detections above this score were asked for.
    arrived
        Returns when the arrays are there.
    """

    arrays: dict[str, Tensor]
    prepared: Prepared
    above: float
    arrived: Callable[[], None]


class NetworkSegmenter:
    """A trained network of any backend; see `segloop.detection.segmenter.Segmenter` and `.stages.Stages`.

    Parameters
    ----------
    backend
        The library that `model` was trained with.
    model
        A model directory.
    device, threads
        Where it predicts, and with how many threads of numerical code.
    precision, score, embeddings, crop
        As `PredictionConfig` describes them.
    """

    def __init__(
        self,
        backend: Backend,
        model: Path,
        *,
        device: torch.device,
        threads: int,
        precision: Precision = "float32",
        score: Score = "class",
        embeddings: Sequence[FurtherEmbedding] = (),
        crop: CropConfig | None = None,
    ) -> None:
        network, description, config = backend.load_model(model)
        self._to_batch = backend.to_batch
        self._stride = backend.stride_of(network)
        self.embedding_parts = model_files.embedding_parts(config)
        self.embedding_facts: dict[str, Any] = {}
        if mask_weighted.NAME in embeddings:
            described = backend.add_mask_weighted(network, config)
            self.embedding_parts[mask_weighted.NAME] = mask_weighted.WIDTH
            self.embedding_facts[mask_weighted.NAME] = described.facts()
        self._crops: CropNetwork | None = None
        if crops.NAME in embeddings and crop is not None:
            self._crops = CropNetwork(crop, device)
            self.embedding_parts[crops.NAME] = self._crops.width
            # Weights of the function's own making have no file.
            facts = crop.model_dump(mode="json") | {"sha256": crops.network_sha256(crop)}
            self.embedding_facts[crops.NAME] = facts
        self._network = network.to(device).eval()
        if precision != "float32":
            backend.keep_float32_geometry(self._network)
        self._config = config
        self._device = device
        self._threads = threads
        self._score = score
        self.precision = precision
        self.categories: list[dict[str, Any]] = description["categories"]
        self.embedding_dim = sum(self.embedding_parts.values())
        self.predicts_iou = config.mask_iou_head
        self.weights_sha256: str = description["weights_sha256"]
        self._category = np.array([category["id"] for category in self.categories], dtype=np.int32)

    def predict(self, images: list[ImageArray], *, score: float, scale: float = 1.0) -> list[Detections]:
        """Find objects; see `Segmenter.predict`."""
        prepared = [self.prepare(image, scale) for image in images]
        detections: list[Detections] = []
        with numerical_settings(self._device, self._threads):
            for _, alike in groupby(prepared, key=lambda one: one.like):
                detections += [self.finish(found) for found in self.detect(list(alike), score)]
        return detections

    @property
    def parallel(self) -> bool:
        """Whether images go through the network one by one in several threads; see `Stages.parallel`."""
        return self._device.type == "cpu"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold torch's settings: on a CPU one thread an image."""
        with numerical_settings(self._device, 1 if self.parallel else self._threads):
            yield

    def prepare(self, image: ImageArray, scale: float = 1.0) -> Prepared:
        """Scale an image; see `Stages.prepare`."""
        height, width = image.shape[:2]
        size = scaled_size(height, width, self._config, scale)
        # Padding changes the statistics of group normalisation: images share a batch only where it adds none.
        like = (-(-size[0] // self._stride) * self._stride, -(-size[1] // self._stride) * self._stride)
        shown = None if self._crops is None else image
        return Prepared(scale_image(image, size), height, width, like, shown)

    def detect(self, images: list[Prepared], score: float) -> list[RawDetections]:
        """Run the network; see `Stages.detect`. On a CPU an image's result is the same bits in any batch."""
        if self.parallel:
            return [raw for image in images for raw in self._detect_batch([image], score)]
        return self._detect_batch(images, score)

    def _detect_batch(self, images: list[Prepared], score: float) -> list[RawDetections]:
        pixels = [image.pixels for image in images]
        half = self.precision != "float32"
        # Both belong to a thread, and stages may run in any.
        with torch.inference_mode(), torch.autocast(self._device.type, getattr(torch, self.precision), enabled=half):
            batch = self._to_batch(pixels, self._device)
            # A predicted IoU is at most 1: whose class score is not above the limit has no product above it.
            found = self._network.detect(batch, [image.shape[:2] for image in pixels], score)
            return self._fetch(found, images, score)

    def _fetch(self, found: list[dict[str, Tensor]], images: list[Prepared], score: float) -> list[RawDetections]:
        """Start the way of results to the CPU without waiting for it."""
        # Embeddings and masks of a lower precision are made float32 there, at no cost to the device.
        moved = [{name: value.to("cpu", non_blocking=True) for name, value in one.items()} for one in found]
        arrived = _nothing
        if self._device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            arrived = event.synchronize
        return [RawDetections(arrays, image, score, arrived) for arrays, image in zip(moved, images, strict=True)]

    def finish(self, found: RawDetections) -> Detections:
        """Paste and encode masks; see `Stages.finish`."""
        found.arrived()
        height, width, size = found.prepared.height, found.prepared.width, found.prepared.pixels.shape[:2]
        arrays = {name: value.float().numpy() for name, value in found.arrays.items() if name != "label"}
        ratio = np.array([width / size[1], height / size[0]] * 2, dtype=np.float32)
        box = np.clip(arrays["box"] * ratio, 0, np.array([width, height] * 2, dtype=np.float32))
        pasted = [paste_mask(mask, corners, height, width) for mask, corners in zip(arrays["mask"], box, strict=True)]
        # A detection without a single pixel is no mask, whatever its score.
        kept = np.array([mask is not None for mask in pasted], dtype=bool)
        masks: list[Rle] = [mask for mask in pasted if mask is not None]
        embedding = [arrays["embedding"][kept]]
        if mask_weighted.NAME in arrays:
            embedding.append(arrays[mask_weighted.NAME][kept])
        if self._crops is not None and found.prepared.image is not None:
            embedding.append(self._crops.embed(found.prepared.image, masks))
        detections = Detections(
            score=arrays["score"][kept],
            category=self._category[found.arrays["label"].numpy()[kept] - 1],
            box=box[kept],
            masks=masks,
            embedding=embedding[0] if len(embedding) == 1 else np.concatenate(embedding, axis=1),
            predicted_iou=arrays["predicted_iou"][kept] if self.predicts_iou else None,
        )
        return detections if self._score == "class" else times_iou(detections, found.above)


def _nothing() -> None:
    """Wait for nothing."""
