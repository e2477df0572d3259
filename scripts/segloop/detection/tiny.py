"""A Mask R-CNN small enough to learn on a laptop: about two million parameters, group normalisation.

Group normalisation (Wu and He, ECCV 2018) needs neither large batches nor pretrained statistics.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from segloop.detection.heads import EmbeddingHeads, IgnoringProposals, MaskRCNN
from segloop.detection.pooling import RegionPooler

STRIDES = (4, 8, 16, 32)
STAGES = (48, 80, 112, 128)
"""Channels of the stages, one a stride."""
PYRAMID = 64
"""Channels of the feature pyramid."""
HIDDEN = 256
"""Width of the first fully connected layer of the box and mask IoU heads; the second one makes the embedding."""
MASK_IOU_WIDTH = 64
"""Channels of the convolutions of the mask IoU head, if there is one."""
BOX_CONVOLUTIONS = 1
"""Convolutions before the fully connected layers; without pretraining they make classes learnable in fewer steps."""
BOX_SAMPLES, BOX_POSITIVE = 64, 0.33
"""Proposals of an image that train the box head, and the largest share of positive ones."""
MASK_SAMPLES = 12
"""Positive proposals of an image that train the mask head, its dearest part."""
ANCHORS = ((8, 12), (16, 24), (32, 48), (64, 96))
"""Sides of the square anchors of each level in pixels of the network's input."""


def _normalised(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.GroupNorm(outputs // 8, outputs)
    )


class Residual(nn.Module):
    """Two convolutions and the sum with their input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _normalised(inputs, outputs, stride)
        self.second = _normalised(outputs, outputs)
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else _normalised(inputs, outputs, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[B, inputs, h, w] to float[B, outputs, h / stride, w / stride]."""
        out: Tensor = F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))
        return out


class Backbone(nn.Module):
    """A residual network with a feature pyramid of strides 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_normalised(3, 24, 2), nn.ReLU(), _normalised(24, STAGES[0], 2), nn.ReLU())
        widths = (STAGES[0], *STAGES)
        self.stages = nn.ModuleList(
            Residual(widths[index], widths[index + 1], 1 if index == 0 else 2) for index in range(len(STAGES))
        )
        self.lateral = nn.ModuleList(_normalised(width, PYRAMID, kernel=1) for width in STAGES)
        self.output = nn.ModuleList(_normalised(PYRAMID, PYRAMID) for _ in STAGES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map float[B, 3, H, W] to the four levels, finest first; H and W are multiples of 32."""
        x = self.stem(x)
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + F.interpolate(levels[index + 1], scale_factor=2.0, mode="nearest")
        return OrderedDict(
            (str(index), output(level)) for index, (level, output) in enumerate(zip(levels, self.output, strict=True))
        )


class BoxHead(nn.Module):
    """Convolutions and two fully connected layers; the output of the last one is the embedding."""

    def __init__(self, channels: int, size: int, hidden: int, embedding_dim: int) -> None:
        super().__init__()
        layers = (nn.Sequential(_normalised(channels, channels), nn.ReLU()) for _ in range(BOX_CONVOLUTIONS))
        self.convolutions = nn.Sequential(*layers)
        self.fc6 = nn.Linear(channels * size * size, hidden)
        self.fc7 = nn.Linear(hidden, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[n, C, S, S] to float[n, embedding_dim]."""
        x = self.convolutions(x)
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


def build_tiny(num_classes: int, embedding_dim: int, detections_per_image: int, nms: float) -> MaskRCNN:
    """Build the network with random weights.

    Parameters
    ----------
    num_classes
        Categories and the background.
    detections_per_image, nms
        As in `DetectorConfig`.
    """
    anchors = AnchorGenerator(ANCHORS, ((0.5, 1.0, 2.0),) * len(ANCHORS))
    rpn = IgnoringProposals(
        anchors,
        RPNHead(PYRAMID, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.6,
        bg_iou_thresh=0.3,
        batch_size_per_image=128,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 300, "testing": max(300, 2 * detections_per_image)},
        post_nms_top_n={"training": 150, "testing": max(150, 2 * detections_per_image)},
        nms_thresh=0.7,
    )
    heads = EmbeddingHeads(
        RegionPooler(STRIDES[:3], 7, aligned=True, canonical_size=32.0, canonical_level=3),
        BoxHead(PYRAMID, 7, HIDDEN, embedding_dim),
        FastRCNNPredictor(embedding_dim, num_classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=BOX_SAMPLES,
        positive_fraction=BOX_POSITIVE,
        bbox_reg_weights=None,
        score_thresh=0.0,
        nms_thresh=nms,
        detections_per_img=detections_per_image,
        mask_roi_pool=RegionPooler(STRIDES[:3], 14, aligned=True, canonical_size=32.0, canonical_level=3),
        mask_head=nn.Sequential(_normalised(PYRAMID, 64), nn.ReLU(), _normalised(64, 64), nn.ReLU()),
        mask_predictor=MaskRCNNPredictor(64, 32, num_classes),
    )
    heads.mask_samples = MASK_SAMPLES
    model = MaskRCNN(Backbone(), rpn, heads)
    _initialise(model)
    return model


def _initialise(model: MaskRCNN) -> None:
    # He et al., Delving deep into rectifiers (ICCV 2015), for layers before a ReLU; the last layers start near zero, as
    # in Faster R-CNN. Torchvision's own start is meant for pretrained features and learns more slowly from nothing.
    hidden = [model.backbone, model.rpn.head.conv, model.roi_heads.box_head, model.roi_heads.mask_head]
    for layer in (layer for part in hidden for layer in part.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    predictor = model.roi_heads.box_predictor
    for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
