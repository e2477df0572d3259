"""The detectron2 backend: instance segmentation of its configurations, with ignored regions and embeddings.

This is the only module that imports detectron2. It never downloads anything: configurations come with detectron2 or are
files, weights are files.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from segloop.config import DetectorConfig, MaskIouExamples
from segloop.detection import model_files
from segloop.detection.backends import Targets
from segloop.detection.ignored import inside_ignored
from segloop.detection.initial_weights import load_weights
from segloop.detection.mask_iou import (
    EXAMPLE_SCORE,
    FEATURE_SIDE,
    LOSS,
    MaskIouHead,
    draw_examples,
    example_targets,
    mask_iou_loss,
    mask_iou_targets,
)
from segloop.detection.mask_weighted import NAME, MaskWeighted
from segloop.detection.mixed_precision import hand_out_float32
from segloop.detection.segmenter import ImageArray
from segloop.detection.selection import keep_best
from segloop.errors import SegloopError

with warnings.catch_warnings():
    # Notices to its developers, of functions that other libraries will drop.
    warnings.simplefilter("ignore")
    import detectron2
    from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import GeneralizedRCNN
    from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
    from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, select_foreground_proposals
    from detectron2.structures import BitMasks, Boxes, ImageList, Instances
    from detectron2.utils.events import EventStorage

    # Torch warns of a use that its anchors make once in a process: here, where nobody is told.
    torch.meshgrid(torch.zeros(1), torch.zeros(1))

logger = logging.getLogger("segloop.detection")

ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
NAMES = {
    "r50_fpn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "r101_fpn": "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
}
"""The configurations of the model zoo that the architectures stand for."""
HEADS = ("StandardROIHeads", "CascadeROIHeads", "Res5ROIHeads")
MASK_IOU_HEAD = "mask_iou_head."
CLASS_DEPENDENT = ("roi_heads.box_predictor.", "roi_heads.mask_head.predictor.", f"{MASK_IOU_HEAD}iou.")
"""Layers whose shape depends on the number of categories."""
BACKBONE = ("backbone.bottom_up.", "backbone.stem.", "backbone.res", "roi_heads.res5.")
"""What a classifier trained on ImageNet provides, with a feature pyramid and without."""
NOT_LEARNED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors.")
"""Constants that older versions saved with the weights."""
LOSSES = {
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_mask": "loss_mask",
}
"""The names of its losses here; those of a cascade's stages, which end in `_stage` and a number, are added up."""

Describe = Callable[[list[Tensor], list[Any]], Tensor]
"""Makes vectors float[n, D] of feature maps and the boxes of each image."""


class Truth(Instances):  # type: ignore[misc]
    """The instances of an image, and the boxes float[m, 4] that hold no negative examples."""

    def __init__(self, size: tuple[int, int], ignored: Tensor, **fields: Any) -> None:
        super().__init__(size, **fields)
        # Not a field: fields have one row an instance.
        self.__dict__["ignored"] = ignored


@PROPOSAL_GENERATOR_REGISTRY.register()  # type: ignore[untyped-decorator, unused-ignore]
class IgnoringRPN(RPN):  # type: ignore[misc]
    """Region proposals whose anchors in ignored regions are no negatives."""

    _covered: Tensor
    """bool[anchors], whether they lie in an ignored region of the image that is looked at."""

    @torch.no_grad()
    def label_and_sample_anchors(self, anchors: list[Any], gt_instances: list[Truth]) -> tuple[list[Any], list[Any]]:
        """Draw the anchors of a step: labels 1 (object), 0 (background) or -1 (left out), and the boxes they match."""
        labels, matched = [], []
        places = Boxes.cat(anchors).tensor
        for truth in gt_instances:
            self._covered = inside_ignored(places, truth.ignored)
            label, box = super().label_and_sample_anchors(anchors, [truth])
            labels += label
            matched += box
        return labels, matched

    def _subsample_labels(self, label: Tensor) -> Tensor:
        label[(label == 0) & self._covered] = -1
        drawn: Tensor = super()._subsample_labels(label)
        return drawn


class EmbeddingRCNN(GeneralizedRCNN):  # type: ignore[misc]
    """A network of detectron2 that ignores regions in training and returns the embedding of every detection.

    Parameter names are those of detectron2, so that its files of weights fit and weights.pt fits its programs. The
    embedding of a detection is what the box head makes, after its last ReLU, of the proposal it came from: the vector
    from which class and box are predicted. In a cascade it is that of the last stage; where the head is a stage of the
    ResNet (C4), the mean of its features over the region.
    """

    settings: Any
    """The whole configuration, as it goes into model.json."""
    nms: float
    detections_per_image: int
    mask_iou_head: MaskIouHead | None
    mask_weighted: MaskWeighted | None
    mask_iou_examples: MaskIouExamples

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: Targets) -> dict[str, Tensor]:
        """Return the losses of a batch; see `segloop.detection.backends.Network`."""
        truth = [_truth(target, size) for target, size in zip(targets, sizes, strict=True)]
        pictures = self._normalised(images, sizes)
        # detectron2 counts what it does in an EventStorage; nobody reads this one.
        try:
            with EventStorage():
                features = self.backbone(pictures.tensor)
                proposals, losses = self.proposal_generator(pictures, features, truth)
                kept = [self._without_ignored(one, known) for one, known in zip(proposals, truth, strict=True)]
                drawn, losses_of_heads = self.roi_heads(pictures, features, kept, truth)
        except FloatingPointError:
            # What detectron2 raises for proposals that are not finite; the training says more, and on all ranks.
            return dict.fromkeys([*LOSSES.values(), LOSS], torch.tensor(torch.nan, device=images.device))
        summed = _summed({**losses, **losses_of_heads})
        if self.mask_iou_head is None:
            return summed
        if self.mask_iou_examples == "positives":
            return summed | {LOSS: self._loss_of_positives(self.mask_iou_head, features, drawn)}
        return summed | {LOSS: self._loss_of_detections(self.mask_iou_head, features, proposals, sizes, targets)}

    def _loss_of_positives(self, head: MaskIouHead, features: dict[str, Tensor], drawn: list[Any]) -> Tensor:
        positives, _ = select_foreground_proposals(drawn, self.roi_heads.num_classes)
        boxes = [one.proposal_boxes for one in positives]
        pooled = self._mask_features(features, boxes)
        classes = torch.cat([one.gt_classes for one in positives])
        probability = self._probability(pooled, classes)
        predicted, _ = head(pooled, probability)
        if not len(classes):
            return mask_iou_loss(predicted, classes, predicted.new_zeros(0))
        side, places = probability.shape[-1], Boxes.cat(boxes).tensor
        # An image without an object has proposals without a truth.
        found = [one for one in positives if len(one)]
        coverage = torch.cat([one.gt_masks.crop_and_resize(one.proposal_boxes.tensor, side) for one in found])
        area = torch.cat([one.gt_masks.tensor.sum(dim=(1, 2)) for one in found])
        return mask_iou_loss(predicted, classes, mask_iou_targets(probability, coverage.float(), places, area))

    def _loss_of_detections(
        self,
        head: MaskIouHead,
        features: dict[str, Tensor],
        proposals: list[Any],
        sizes: list[tuple[int, int]],
        targets: Targets,
    ) -> Tensor:
        """Return what the mask IoU head has to learn about what the network detects now."""
        with torch.no_grad():
            found = self._found(features, proposals, sizes, EXAMPLE_SCORE)
            examples = draw_examples(found, targets)
        pooled = self._mask_features(features, [Boxes(one.boxes) for one in examples])
        classes = torch.cat([one.labels for one in examples]) - 1
        probability = self._probability(pooled, classes)
        true_iou = example_targets(probability, examples, targets)
        return mask_iou_loss(head(pooled, probability)[0], classes, true_iou)

    @torch.no_grad()
    def _probability(self, pooled: Tensor, classes: Tensor) -> Tensor:
        logits = self.roi_heads.mask_head.layers(pooled)
        # A mask for each category, or one for all.
        column = classes if logits.shape[1] > 1 else torch.zeros_like(classes)
        probability: Tensor = logits[torch.arange(len(classes), device=classes.device), column].sigmoid()
        return probability

    def _mask_features(self, features: dict[str, Tensor], boxes: list[Any]) -> Tensor:
        pooled: Tensor = self.roi_heads.mask_pooler([features[name] for name in self.roi_heads.mask_in_features], boxes)
        return pooled

    def _without_ignored(self, proposals: Any, truth: Truth) -> Any:
        boxes = proposals.proposal_boxes.tensor
        ignored = inside_ignored(boxes, truth.ignored)
        if len(truth) and bool(ignored.any()):
            # The matcher's thresholds begin with minus infinity.
            least = self.roi_heads.proposal_matcher.thresholds[1]
            ignored &= box_iou(boxes, truth.gt_boxes.tensor).amax(dim=1) < least
        return proposals[~ignored]

    def detect(self, images: Tensor, sizes: list[tuple[int, int]], score: float) -> list[dict[str, Tensor]]:
        """Find objects; see `segloop.detection.backends.Network`."""
        pictures = self._normalised(images, sizes)
        features = self.backbone(pictures.tensor)
        proposals, _ = self.proposal_generator(pictures, features)
        found = []
        for row, detections in enumerate(self._found(features, proposals, sizes, score)):
            of_image = {name: level[row : row + 1] for name, level in features.items()}
            mask = self._mask_probability(of_image, detections["box"], detections["label"] - 1, sizes[row])
            found.append(self._described(of_image, self._judged(of_image, detections | {"mask": mask})))
        return found

    def _found(
        self, features: dict[str, Tensor], proposals: list[Any], sizes: list[tuple[int, int]], score: float
    ) -> list[dict[str, Tensor]]:
        """Return what `detect` does, without the masks and what follows from them."""
        found = []
        for size, (boxes, scores, embedding) in zip(sizes, self._classified(features, proposals), strict=True):
            place, label, box = keep_best(
                boxes, scores, size, score=score, nms=self.nms, most=self.detections_per_image
            )
            found.append({"box": box, "label": label + 1, "score": scores[place, label], "embedding": embedding[place]})
        return found

    def _described(self, features: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the embedding of features weighted by the masks of one image, if it is wanted."""
        if self.mask_weighted is None:
            return found
        heads: Any = self.roi_heads
        pooler = heads.pooler if isinstance(heads, Res5ROIHeads) else heads.box_pooler
        pooled = pooler([features[name] for name in heads.in_features], [Boxes(found["box"])])
        return found | {NAME: self.mask_weighted(pooled, found["mask"])}

    def _judged(self, features: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add what the mask IoU head says of the masks of one image, if there is that head."""
        head, count = self.mask_iou_head, len(found["box"])
        if head is None:
            return found
        if count:
            iou, hidden = head(self._mask_features(features, [Boxes(found["box"])]), found["mask"])
            iou = iou[torch.arange(count, device=iou.device), found["label"] - 1].clamp(0, 1)
        else:
            iou, hidden = found["score"], found["embedding"].new_zeros((0, head.embedding_dim))
        return found | {"predicted_iou": iou, "embedding": torch.cat((found["embedding"], hidden), dim=1)}

    def _classified(self, features: dict[str, Tensor], proposals: list[Any]) -> list[tuple[Tensor, Tensor, Tensor]]:
        # For each image boxes float[n, C, 4], probabilities float[n, C] and embeddings float[n, D] of its proposals.
        levels = [features[name] for name in self.roi_heads.in_features]
        boxes: list[Tensor] = []
        scores: list[list[Tensor]] = []
        for head, predictor in self._stages():
            if boxes:
                # The boxes of one stage of a cascade are the proposals of the next.
                proposals = [_as_proposals(box, one.image_size) for box, one in zip(boxes, proposals, strict=True)]
            vectors = head(levels, [one.proposal_boxes for one in proposals])
            predictions = predictor(vectors)
            boxes = list(predictor.predict_boxes(predictions, proposals))
            scores.append(list(predictor.predict_probs(predictions, proposals)))
        # The last column is the background.
        mean = [torch.stack(stages).mean(dim=0)[:, :-1] for stages in zip(*scores, strict=True)]
        # Boxes that are the same for all categories come without their axis.
        boxes = [
            box.reshape(len(box), -1, 4).expand(-1, of_image.shape[1], -1)
            for box, of_image in zip(boxes, mean, strict=True)
        ]
        embeddings = torch.split(vectors, [len(one) for one in proposals])
        return list(zip(boxes, mean, embeddings, strict=True))

    def _stages(self) -> list[tuple[Describe, Any]]:
        # What makes vectors of regions, and what makes classes and boxes of these: three pairs in a cascade, else one.
        heads: Any = self.roi_heads
        if isinstance(heads, Res5ROIHeads):
            return [
                (lambda levels, boxes: heads.res5(heads.pooler(levels, boxes)).mean(dim=(2, 3)), heads.box_predictor)
            ]
        cascade = isinstance(heads, CascadeROIHeads)
        box_heads = list(heads.box_head) if cascade else [heads.box_head]
        predictors = list(heads.box_predictor) if cascade else [heads.box_predictor]

        def describe(head: nn.Module) -> Describe:
            return lambda levels, boxes: head(heads.box_pooler(levels, boxes))

        return [(describe(head), predictor) for head, predictor in zip(box_heads, predictors, strict=True)]

    def _mask_probability(
        self, features: dict[str, Tensor], box: Tensor, label: Tensor, size: tuple[int, int]
    ) -> Tensor:
        if not len(box):
            return box.new_zeros((0, 1, 1))
        instances = [Instances(size, pred_boxes=Boxes(box), pred_classes=label)]
        (with_masks,) = self.roi_heads.forward_with_given_boxes(features, instances)
        probability: Tensor = with_masks.pred_masks[:, 0]
        return probability

    def _normalised(self, images: Tensor, sizes: list[tuple[int, int]]) -> Any:
        shown = []
        for image, (height, width) in zip(images, sizes, strict=True):
            pixels = image[:, :height, :width]
            pixels = pixels.flip(0) if self.input_format == "BGR" else pixels
            shown.append((pixels.float() - self.pixel_mean) / self.pixel_std)
        return ImageList.from_tensors(
            shown, self.backbone.size_divisibility, padding_constraints=self.backbone.padding_constraints
        )


def _as_proposals(box: Tensor, size: tuple[int, int]) -> Any:
    boxes = Boxes(box)
    boxes.clip(size)
    return Instances(size, proposal_boxes=boxes)


def _truth(target: dict[str, Tensor], size: tuple[int, int]) -> Truth:
    return Truth(
        size,
        target["ignored"],
        gt_boxes=Boxes(target["boxes"]),
        gt_classes=target["labels"] - 1,
        gt_masks=BitMasks(target["masks"].bool()),
    )


def _summed(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    for name, value in losses.items():
        here = LOSSES[name.partition("_stage")[0]]
        sums[here] = sums[here] + value if here in sums else value
    return sums


def build_model(config: DetectorConfig, categories: int) -> EmbeddingRCNN:
    """Build the network that a configuration describes, with random weights from torch's global generator.

    Parameters
    ----------
    categories
        Number of categories, the background not counted.

    Raises
    ------
    SegloopError
        If there is no such configuration, it cannot be read, or it is none of instance segmentation.
    """
    name = config.configuration or NAMES[config.architecture]
    settings = _read_settings(name)
    _check_task(settings, name)
    _apply(settings, config, categories)
    return _build(settings, config, name)


def _read_settings(name: str) -> Any:
    # A file of the run directory goes before the model zoo.
    path = next((path for path in (Path(name), ZOO / name) if path.is_file()), None)
    if path is None:
        raise SegloopError(
            f"detector.configuration: {name} is neither a file in {Path.cwd()} nor a configuration of detectron2's "
            f"model zoo ({ZOO}). Check the name; it ends in .yaml."
        )
    if path.suffix not in (".yaml", ".yml"):
        raise SegloopError(
            f"detector.configuration: {name} is not a YAML file. Configurations that are Python programs are not read; "
            "set one of detectron2's YAML files."
        )
    settings = get_cfg()
    try:
        # Its loader executes what a file asks it to, which files of the model zoo do.
        settings.merge_from_file(str(path), allow_unsafe=ZOO in path.parents)
    except Exception as error:  # yaml, yacs and detectron2 raise many kinds, all meaning the same
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SegloopError(f"detector.configuration: {path} cannot be read ({reason})") from None
    return settings


def _check_task(settings: Any, name: str) -> None:
    model = settings.MODEL
    heads, generator, colours = model.ROI_HEADS.NAME, model.PROPOSAL_GENERATOR.NAME, settings.INPUT.FORMAT
    against = [
        (
            model.META_ARCHITECTURE != "GeneralizedRCNN",
            f"its MODEL.META_ARCHITECTURE is {model.META_ARCHITECTURE}, which is no Mask R-CNN",
        ),
        (model.KEYPOINT_ON, "it predicts keypoints (MODEL.KEYPOINT_ON)"),
        (not model.MASK_ON, "it predicts boxes without masks (MODEL.MASK_ON: false)"),
        (generator != "RPN" or model.LOAD_PROPOSALS, f"its proposals come from {generator} or a file, not from RPN"),
        (heads not in HEADS, f"its MODEL.ROI_HEADS.NAME is {heads}, not one of {', '.join(HEADS)}"),
        (
            model.ROI_BOX_HEAD.USE_FED_LOSS,
            "its loss needs the statistics of one data set (MODEL.ROI_BOX_HEAD.USE_FED_LOSS)",
        ),
        (colours not in ("RGB", "BGR"), f"its INPUT.FORMAT is {colours}, neither RGB nor BGR"),
    ]
    for found, reason in against:
        if found:
            raise SegloopError(
                f"detector.configuration: {name} does not describe a network for instance segmentation that segloop "
                f"can use: {reason}. Set one of COCO-InstanceSegmentation/*.yaml or another of that kind."
            )


def _apply(settings: Any, config: DetectorConfig, categories: int) -> None:
    """Let the keys of the section `detector` go before those of detectron2's configuration."""
    model = settings.MODEL
    model.DEVICE = "cpu"
    model.WEIGHTS = ""
    settings.VIS_PERIOD = 0
    model.ROI_HEADS.NUM_CLASSES = categories
    model.ROI_HEADS.NMS_THRESH_TEST = config.nms
    settings.TEST.DETECTIONS_PER_IMAGE = config.detections_per_image
    settings.INPUT.MIN_SIZE_TEST, settings.INPUT.MAX_SIZE_TEST = config.min_size, config.max_size
    # At least as many proposals as the torchvision backend looks at.
    model.RPN.PRE_NMS_TOPK_TEST = max(model.RPN.PRE_NMS_TOPK_TEST, 2 * config.detections_per_image)
    model.RPN.POST_NMS_TOPK_TEST = max(model.RPN.POST_NMS_TOPK_TEST, 2 * config.detections_per_image)
    model.ROI_BOX_HEAD.FC_DIM = config.embedding_dim
    if config.weights is None:
        # Pretrained first stages stay as they are; random ones must learn.
        model.BACKBONE.FREEZE_AT = 0


def _build(settings: Any, config: DetectorConfig, name: str) -> EmbeddingRCNN:
    model = settings.clone()
    # What is kept in model.json is detectron2's own, for its own programs.
    model.MODEL.PROPOSAL_GENERATOR.NAME = IgnoringRPN.__name__
    network = EmbeddingRCNN(model)
    network.settings, network.nms, network.detections_per_image = settings, config.nms, config.detections_per_image
    network.mask_iou_head, network.mask_weighted = None, None
    network.mask_iou_examples = config.mask_iou_examples
    heads = network.roi_heads
    predictor = heads.box_predictor[-1] if isinstance(heads, CascadeROIHeads) else heads.box_predictor
    width = predictor.cls_score.in_features
    if width != config.embedding_dim:
        raise SegloopError(
            f"detector.configuration: {name} makes embeddings of {width} numbers, detector.embedding_dim is "
            f"{config.embedding_dim}. Its box head has no fully connected layer whose width could be set: set "
            f"detector.embedding_dim: {width}."
        )
    if config.mask_iou_head:
        # Last, so that all else begins with the same random weights as without it.
        network.mask_iou_head = _build_mask_iou_head(network, settings, config, name)
    return network


def _build_mask_iou_head(network: EmbeddingRCNN, settings: Any, config: DetectorConfig, name: str) -> MaskIouHead:
    heads, mask = network.roi_heads, settings.MODEL.ROI_MASK_HEAD
    if isinstance(heads, Res5ROIHeads) or mask.POOLER_RESOLUTION != FEATURE_SIDE:
        raise SegloopError(
            f"detector.mask_iou_head: {name} gives the mask head no features of {FEATURE_SIDE} x {FEATURE_SIDE} of its "
            "own, which that head looks at. Set a configuration with a feature pyramid (FPN), or mask_iou_head: false."
        )
    channels = network.backbone.output_shape()[heads.mask_in_features[0]].channels
    width, hidden = mask.CONV_DIM, config.embedding_dim
    return MaskIouHead(channels, heads.num_classes, width=width, hidden=hidden, embedding_dim=config.embedding_dim)


def facts_of(model: EmbeddingRCNN) -> dict[str, Any]:
    """Return the whole configuration and the version of detectron2: the YAML file may change or get lost."""
    return {"detectron2_configuration": model.settings.dump(), "detectron2": detectron2.__version__}


def warn_of_random_weights(model: EmbeddingRCNN, config: DetectorConfig) -> None:
    """Log a warning if the network has frozen batch norms, which seldom learns from random weights."""
    if model.settings.MODEL.RESNETS.NORM == "FrozenBN":
        logger.warning(
            "detector.weights is null: %s has frozen batch norms and seldom learns from random weights; give "
            "pretrained weights or a configuration with MODEL.RESNETS.NORM: BN or GN",
            config.configuration or NAMES[config.architecture],
        )


def load_initial_weights(model: EmbeddingRCNN, path: Path) -> None:
    """Start from a local file: a network of detectron2 (`.pkl`, `.pth`), or a classifier as its model zoo has them.

    Layers for another number of categories are left random, with one warning.

    Raises
    ------
    SegloopError
        If the file is unreadable or belongs to another architecture.
    """
    state = _read_pickle(path, model) if path.suffix == ".pkl" else model_files.load_state(path)
    learned = {name: value for name, value in state.items() if not name.startswith(NOT_LEARNED)}
    load_weights(model, learned, path, class_dependent=CLASS_DEPENDENT, backbone=BACKBONE, optional=(MASK_IOU_HEAD,))


def _read_pickle(path: Path, model: EmbeddingRCNN) -> dict[str, Tensor]:
    content = model_files.load_pickle(path)
    if "model" in content and "__author__" in content:
        arrays, author, by_name = content["model"], content["__author__"], not content.get("matching_heuristics", False)
    else:
        # Caffe2, whose detectors are nested and whose classifiers are not.
        arrays, author, by_name = content.get("blobs", content), "Caffe2", False
    if not isinstance(arrays, dict):
        raise SegloopError(f"the weights {path} are no dictionary of names and arrays")
    state = {
        str(name): torch.from_numpy(np.array(value))
        for name, value in arrays.items()
        if isinstance(value, np.ndarray) and not str(name).endswith("_momentum")
    }
    if by_name:
        return state
    expected = model.state_dict()
    renamed = align_and_update_state_dicts(expected, state, c2_conversion=author == "Caffe2")
    # The classifier's own last layer has no place here.
    return {name: value for name, value in renamed.items() if name in expected}


def load_model(model: Path) -> tuple[EmbeddingRCNN, dict[str, Any], DetectorConfig]:
    """Open a model directory.

    Returns
    -------
    The network on the CPU, the contents of model.json, and the configuration it was built with.
    """
    description = model_files.read_description(model)
    config = DetectorConfig.model_validate(description["detector"])
    settings = get_cfg()
    try:
        settings.merge_from_other_cfg(CfgNode.load_cfg(description["detectron2_configuration"]))
        network = _build(settings, config, str(model / model_files.DESCRIPTION))
        network.load_state_dict(model_files.read_weights(model))
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise SegloopError(f"{model} is not whole: its weights do not fit its description ({reason})") from None
    return network, description, config


def to_batch(images: list[ImageArray], device: torch.device) -> Tensor:
    """Put images together; the network normalises and pads them as its configuration says.

    Parameters
    ----------
    images
        uint8[h, w, 3] each.

    Returns
    -------
    uint8[B, 3, H, W], zero beyond an image's right and lower edge.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    batch = np.zeros((len(images), height, width, 3), dtype=np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)


def stride_of(model: EmbeddingRCNN) -> int:
    """Return the number of pixels of which padded sides are a multiple."""
    return max(int(model.backbone.size_divisibility), 1)


def add_mask_weighted(model: EmbeddingRCNN, config: DetectorConfig) -> MaskWeighted:
    """Let a network give the embedding `mask_weighted`, too; see `segloop.detection.mask_weighted`."""
    channels = model.backbone.output_shape()[model.roi_heads.in_features[0]].channels
    model.mask_weighted = MaskWeighted(channels)
    return model.mask_weighted


def keep_float32_geometry(model: EmbeddingRCNN) -> None:
    """Prepare a network for mixed precision; see `segloop.detection.mixed_precision`."""
    heads: Any = model.roi_heads
    modules = [model.proposal_generator.rpn_head, heads.mask_head.predictor]
    for name in ("box_head", "box_predictor"):
        part = getattr(heads, name, None)
        modules += list(part) if isinstance(part, nn.ModuleList) else [] if part is None else [part]
    hand_out_float32(modules if model.mask_iou_head is None else [*modules, model.mask_iou_head])
