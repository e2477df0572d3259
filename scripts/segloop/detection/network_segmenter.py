"""Predict with a trained network: scale, detect, paste."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloop.data.masks import Rle
from segloop.detection import model_files
from segloop.detection.backends import Backend
from segloop.detection.pasting import paste_mask
from segloop.detection.scaling import scale_image, scaled_size
from segloop.detection.segmenter import Detections, ImageArray, numerical_settings


class NetworkSegmenter:
    """A trained network of any backend; see `segloop.detection.segmenter.Segmenter`.

    Parameters
    ----------
    backend
        The library that `model` was trained with.
    model
        A model directory.
    device, threads
        Where it predicts, and with how many threads of numerical code.
    """

    def __init__(self, backend: Backend, model: Path, *, device: torch.device, threads: int) -> None:
        network, description, config = backend.load_model(model)
        self._to_batch = backend.to_batch
        self._network = network.to(device).eval()
        self._config = config
        self._device = device
        self._threads = threads
        self.categories: list[dict[str, Any]] = description["categories"]
        self.embedding_parts = model_files.embedding_parts(config)
        self.embedding_dim = sum(self.embedding_parts.values())
        self.predicts_iou = config.mask_iou_head
        self.weights_sha256: str = description["weights_sha256"]
        self._category = np.array([category["id"] for category in self.categories], dtype=np.int32)

    def predict(self, images: list[ImageArray], *, score: float, scale: float = 1.0) -> list[Detections]:
        """Find objects; see `Segmenter.predict`."""
        detections: list[Detections] = []
        with numerical_settings(self._device, self._threads), torch.inference_mode():
            for group in _runs_of_equal_size(images):
                detections += self._predict_equal(group, score, scale)
        return detections

    def _predict_equal(self, images: list[ImageArray], score: float, scale: float) -> list[Detections]:
        height, width = images[0].shape[:2]
        size = scaled_size(height, width, self._config, scale)
        batch = self._to_batch([scale_image(image, size) for image in images], self._device)
        found = self._network.detect(batch, [size] * len(images), score)
        return [self._detections(one, height, width, size) for one in found]

    def _detections(self, found: dict[str, Tensor], height: int, width: int, size: tuple[int, int]) -> Detections:
        arrays = {name: value.float().cpu().numpy() for name, value in found.items() if name != "label"}
        ratio = np.array([width / size[1], height / size[0]] * 2, dtype=np.float32)
        box = np.clip(arrays["box"] * ratio, 0, np.array([width, height] * 2, dtype=np.float32))
        pasted = [paste_mask(mask, corners, height, width) for mask, corners in zip(arrays["mask"], box, strict=True)]
        # A detection without a single pixel is no mask, whatever its score.
        kept = np.array([mask is not None for mask in pasted], dtype=bool)
        masks: list[Rle] = [mask for mask in pasted if mask is not None]
        return Detections(
            score=arrays["score"][kept],
            category=self._category[found["label"].cpu().numpy()[kept] - 1],
            box=box[kept],
            masks=masks,
            embedding=arrays["embedding"][kept],
            predicted_iou=arrays["predicted_iou"][kept] if self.predicts_iou else None,
        )


def _runs_of_equal_size(images: list[ImageArray]) -> list[list[ImageArray]]:
    # Images of different sizes would need padding, and padding changes the statistics of group normalisation: what
    # is found in an image would depend on its neighbours in the batch.
    runs: list[list[ImageArray]] = []
    for image in images:
        if runs and runs[-1][0].shape == image.shape:
            runs[-1].append(image)
        else:
            runs.append([image])
    return runs
