"""The torchvision backend: builds and loads Mask R-CNN. It never downloads anything."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d

from segloop.config import DetectorConfig
from segloop.detection import model_files
from segloop.detection.heads import EmbeddingHeads, IgnoringProposals, MaskRCNN
from segloop.detection.initial_weights import load_weights
from segloop.detection.mask_iou import MaskIouHead
from segloop.detection.mask_weighted import MaskWeighted
from segloop.detection.mixed_precision import hand_out_float32
from segloop.detection.pooling import RegionPooler
from segloop.detection.segmenter import ImageArray
from segloop.detection.tiny import HIDDEN, MASK_IOU_WIDTH, PYRAMID, build_tiny
from segloop.errors import SegloopError

logger = logging.getLogger("segloop.detection")

# Mean and standard deviation of ImageNet's red, green and blue, which pretrained backbones expect.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDE = 32
"""Batches are padded to a multiple of the coarsest stride."""
MASK_IOU_HEAD = "roi_heads.mask_iou_head."
CLASS_DEPENDENT = (
    "roi_heads.box_predictor.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
    f"{MASK_IOU_HEAD}iou.",
)
"""Layers whose shape depends on the number of categories."""
BACKBONE = "backbone.body."
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
    if config.mask_iou_head:
        # Last, so that all else begins with the same random weights as without it.
        model.roi_heads.mask_iou_head = _build_mask_iou_head(config, categories)
        model.roi_heads.mask_iou_examples = config.mask_iou_examples
    # Convolutions on a CPU are faster with the channels innermost.
    return model.to(memory_format=torch.channels_last)


def _build_mask_iou_head(config: DetectorConfig, categories: int) -> MaskIouHead:
    if config.architecture == "tiny":
        channels, width, hidden = PYRAMID, MASK_IOU_WIDTH, HIDDEN
    else:
        channels, width, hidden = 256, 256, 1024
    return MaskIouHead(channels, categories, width=width, hidden=hidden, embedding_dim=config.embedding_dim)


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

    Layers for another number of categories are left random, with a line in the log; so is a mask IoU head that the
    file does not hold.

    Raises
    ------
    SegloopError
        If the file is unreadable or belongs to another architecture.
    """
    state = model_files.load_state(path)
    if "layer1.0.conv1.weight" in state:
        state = {f"{BACKBONE}{name}": value for name, value in state.items() if not name.startswith("fc.")}
    load_weights(model, state, path, class_dependent=CLASS_DEPENDENT, backbone=(BACKBONE,), optional=(MASK_IOU_HEAD,))


def facts_of(model: MaskRCNN) -> dict[str, Any]:
    """Return nothing: the configuration alone says how a network of torchvision is built."""
    return {}


def warn_of_random_weights(model: MaskRCNN, config: DetectorConfig) -> None:
    """Log a warning if the network has frozen batch norms, which seldom learns from random weights."""
    if config.architecture != "tiny" and not config.trainable_batch_norm:
        logger.warning(
            "detector.weights is null: a %s with frozen batch norms seldom learns from random weights; give pretrained "
            "weights or set detector.trainable_batch_norm: true",
            config.architecture,
        )


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
    if device.type != "cpu":
        return to_gpu_batch(images, device)
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


def stride_of(model: MaskRCNN) -> int:
    """Return the number of pixels of which padded sides are a multiple."""
    return STRIDE


def add_mask_weighted(model: MaskRCNN, config: DetectorConfig) -> MaskWeighted:
    """Let a network give the embedding `mask_weighted`, too; see `segloop.detection.mask_weighted`."""
    model.roi_heads.mask_weighted = MaskWeighted(PYRAMID if config.architecture == "tiny" else 256)
    return model.roi_heads.mask_weighted


def keep_float32_geometry(model: MaskRCNN) -> None:
    """Prepare a network for mixed precision; see `segloop.detection.mixed_precision`."""
    heads = model.roi_heads
    modules = [model.rpn.head, heads.box_head, heads.box_predictor, heads.mask_predictor]
    hand_out_float32(modules if heads.mask_iou_head is None else [*modules, heads.mask_iou_head])
