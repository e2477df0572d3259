"""The torchvision backend: builds, loads and runs Mask R-CNN. It never downloads anything."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d

from segloop.config import DetectorConfig, Precision
from segloop.data.masks import Rle
from segloop.detection import model_files
from segloop.detection.heads import EmbeddingHeads, IgnoringProposals, MaskRCNN
from segloop.detection.pasting import paste_mask
from segloop.detection.pooling import RegionPooler
from segloop.detection.segmenter import Detections, ImageArray, numerical_settings
from segloop.detection.stages import Prepared
from segloop.detection.tiny import build_tiny
from segloop.errors import SegloopError

logger = logging.getLogger("segloop.detection")

# Mean and standard deviation of ImageNet's red, green and blue, which pretrained backbones expect.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDE = 32
"""Batches are padded to a multiple of the coarsest stride."""
CLASS_DEPENDENT = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
"""Layers whose shape depends on the number of categories."""
RESNETS = {"r50_fpn": "resnet50", "r101_fpn": "resnet101"}


def build_model(config: DetectorConfig, categories: int) -> MaskRCNN:
    """Build a network with random weights from torch's global generator.

    Parameters
    ----------
    categories
        Number of categories, the background not counted.
    """
    if config.architecture == "tiny":
        model = build_tiny(categories + 1, config.embedding_dim, config.detections_per_image, config.nms)
    else:
        model = _build_resnet(config, categories + 1)
    # Convolutions on a CPU are faster with the channels innermost.
    return model.to(memory_format=torch.channels_last)


def _build_resnet(config: DetectorConfig, num_classes: int) -> MaskRCNN:
    backbone = resnet_fpn_backbone(
        backbone_name=RESNETS[config.architecture],
        weights=None,
        norm_layer=nn.BatchNorm2d if config.trainable_batch_norm else FrozenBatchNorm2d,
        # Pretrained stem and first stage stay as they are, as in the paper's code; random ones must learn.
        trainable_layers=3 if config.weights else 5,
    )
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    rpn = IgnoringProposals(
        anchors,
        RPNHead(256, 3),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": max(1000, 2 * config.detections_per_image)},
        post_nms_top_n={"training": 2000, "testing": max(1000, 2 * config.detections_per_image)},
        nms_thresh=0.7,
    )
    # Not aligned to half-pixels, because the published weights were trained so.
    strides, pooling = (4, 8, 16, 32), {"aligned": False, "canonical_size": 224.0, "canonical_level": 4}
    heads = EmbeddingHeads(
        RegionPooler(strides, 7, **pooling),  # type: ignore[arg-type]
        TwoMLPHead(256 * 7 * 7, config.embedding_dim),
        FastRCNNPredictor(config.embedding_dim, num_classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.0,
        nms_thresh=config.nms,
        detections_per_img=config.detections_per_image,
        mask_roi_pool=RegionPooler(strides, 14, **pooling),  # type: ignore[arg-type]
        mask_head=MaskRCNNHeads(256, (256, 256, 256, 256), 1),
        mask_predictor=MaskRCNNPredictor(256, 256, num_classes),
    )
    return MaskRCNN(backbone, rpn, heads)


def load_initial_weights(model: MaskRCNN, path: Path) -> None:
    """Start from a local file: a whole Mask R-CNN in torchvision's layout, or a plain ResNet of ImageNet.

    Layers for another number of categories are left random, with a line in the log.

    Raises
    ------
    SegloopError
        If the file is unreadable or belongs to another architecture.
    """
    state = model_files.load_state(path)
    if "layer1.0.conv1.weight" in state:
        state = {f"backbone.body.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    state = _without_foreign_classes(state, model.state_dict(), path)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise SegloopError(f"{path} belongs to another architecture: {str(error).splitlines()[-1].strip()}") from None
    backbone_only = all(name.startswith("backbone.body.") for name in state)
    missing = [
        name
        for name in missing
        if not name.startswith(CLASS_DEPENDENT)
        and not name.endswith("num_batches_tracked")
        and not (backbone_only and not name.startswith("backbone.body."))
    ]
    unexpected = [name for name in unexpected if not name.endswith("num_batches_tracked")]
    if not state or missing or unexpected:
        raise SegloopError(
            f"{path} belongs to another architecture: {len(missing)} parameters are missing {missing[:3]} and "
            f"{len(unexpected)} are unknown {unexpected[:3]}. Check detector.architecture and detector.weights."
        )


def _without_foreign_classes(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    foreign = [
        name
        for name, value in state.items()
        if name.startswith(CLASS_DEPENDENT) and name in expected and value.shape != expected[name].shape
    ]
    if foreign:
        logger.info("%s is for another number of categories; left random: %s", path, ", ".join(foreign))
    return {name: value for name, value in state.items() if name not in foreign}


def load_model(model: Path) -> tuple[MaskRCNN, dict[str, Any], DetectorConfig]:
    """Open a model directory.

    Returns
    -------
    The network on the CPU, the contents of model.json, and the configuration it was built with.
    """
    description = model_files.read_description(model)
    config = DetectorConfig.model_validate(description["detector"])
    network = build_model(config, len(description["categories"]))
    try:
        network.load_state_dict(model_files.read_weights(model))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise SegloopError(f"{model} is not whole: its weights do not fit its description ({reason})") from None
    return network, description, config


def scaled_size(height: int, width: int, config: DetectorConfig, scale: float = 1.0) -> tuple[int, int]:
    """Return the height and width an image is scaled to: `min_size` for the shorter side, within `max_size`.

    Parameters
    ----------
    scale
        Factor on both limits.
    """
    factor = scale * min(config.min_size / min(height, width), config.max_size / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def padded(side: int) -> int:
    """Return a side in pixels with its padding: a multiple of `STRIDE`."""
    return -(-side // STRIDE) * STRIDE


def to_batch(images: list[ImageArray], device: torch.device) -> Tensor:
    """Normalise images and pad them at the right and the bottom with the mean colour.

    Parameters
    ----------
    images
        uint8[h, w, 3] each.

    Returns
    -------
    float32[B, 3, H, W] with H and W multiples of 32.
    """
    height, width = (padded(max(image.shape[axis] for image in images)) for axis in (0, 1))
    batch: npt.NDArray[np.float32] = np.empty((len(images), height, width, 3), dtype=np.float32)
    batch[:] = np.float32(255) * np.asarray(MEAN, np.float32)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    batch /= np.float32(255)
    batch -= np.asarray(MEAN, np.float32)
    batch /= np.asarray(DEVIATION, np.float32)
    # A permuted view of [B, H, W, 3] is channels-last already.
    return torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)


def scale_image(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    """Scale uint8[H, W, 3] to a height and width."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def to_gpu_batch(images: list[ImageArray], device: torch.device) -> Tensor:
    """Do what `to_batch` does with a quarter of the transfer: bytes travel, and the device makes numbers of them.

    The copy does not wait for the device. Equal to `to_batch` up to rounding.
    """
    height, width = (padded(max(image.shape[axis] for image in images)) for axis in (0, 1))
    # Pinned memory is what a copy that does not wait needs; without a GPU there is none.
    pixels = torch.zeros((len(images), height, width, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for row, image in zip(pixels.numpy(), images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    batch = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
    mean, deviation = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    batch.div_(255).sub_(mean).div_(deviation)
    for row, image in zip(batch, images, strict=True):
        row[:, image.shape[0] :] = 0
        row[:, :, image.shape[1] :] = 0
    return batch


@dataclass(frozen=True)
class RawDetections:
    """What the network found in an image, on the CPU or on its way there.

    Attributes
    ----------
    arrays
        As `EmbeddingHeads.detect` describes them.
    prepared
        The image.
    arrived
        Returns when the arrays are there.
    """

    arrays: dict[str, Tensor]
    prepared: Prepared
    arrived: Callable[[], None]


class TorchvisionSegmenter:
    """A trained Mask R-CNN; see `segloop.detection.segmenter.Segmenter` and `segloop.detection.stages.Stages`."""

    def __init__(self, model: Path, *, device: torch.device, threads: int, precision: Precision = "float32") -> None:
        network, description, config = load_model(model)
        self._network = network.to(device).eval()
        self._config = config
        self._device = device
        self._threads = threads
        self.precision = precision
        if precision != "float32":
            keep_float32_geometry(self._network)
        self.categories: list[dict[str, Any]] = description["categories"]
        self.embedding_dim: int = config.embedding_dim
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
        return Prepared(scale_image(image, size), height, width, (padded(size[0]), padded(size[1])))

    def detect(self, images: list[Prepared], score: float) -> list[RawDetections]:
        """Run the network; see `Stages.detect`. On a CPU an image's result is the same bits in any batch."""
        if self._device.type == "cpu":
            return [raw for image in images for raw in self._detect_batch([image], score)]
        return self._detect_batch(images, score)

    def _detect_batch(self, images: list[Prepared], score: float) -> list[RawDetections]:
        pixels = [image.pixels for image in images]
        half = self.precision != "float32"
        # Both belong to a thread, and stages may run in any.
        with torch.inference_mode(), torch.autocast(self._device.type, getattr(torch, self.precision), enabled=half):
            batch = (to_batch if self._device.type == "cpu" else to_gpu_batch)(pixels, self._device)
            found = self._network.detect(batch, [image.shape[:2] for image in pixels], score)
            return self._fetch(found, images)

    def _fetch(self, found: list[dict[str, Tensor]], images: list[Prepared]) -> list[RawDetections]:
        """Start the way of results to the CPU without waiting for it."""
        # Embeddings and masks of a lower precision are made float32 there, at no cost to the device.
        moved = [{name: value.to("cpu", non_blocking=True) for name, value in one.items()} for one in found]
        arrived = _nothing
        if self._device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            arrived = event.synchronize
        return [RawDetections(arrays, image, arrived) for arrays, image in zip(moved, images, strict=True)]

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
        return Detections(
            score=arrays["score"][kept],
            category=self._category[found.arrays["label"].numpy()[kept] - 1],
            box=box[kept],
            masks=masks,
            embedding=arrays["embedding"][kept],
        )


def _nothing() -> None:
    """Wait for nothing."""


def keep_float32_geometry(network: MaskRCNN) -> None:
    """Make the heads of a network in mixed precision hand out float32.

    Boxes are computed from what the heads give, in its precision, and float16 knows only every second pixel beyond
    2048; convolutions and matrix products stay in the lower precision.
    """
    heads = network.roi_heads
    for module in (network.rpn.head, heads.box_head, heads.box_predictor, heads.mask_predictor):
        module.register_forward_hook(lambda _module, _inputs, output: _to_float32(output))


def _to_float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    return type(output)(_to_float32(one) for one in output)
