"""The two halves of Mask R-CNN as segloop needs them: they ignore regions, and they hand out embeddings.

Parameter names are those of torchvision, so that its files of weights fit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from segloop.config import MaskIouExamples
from segloop.detection.backends import Targets
from segloop.detection.ignored import inside_ignored
from segloop.detection.mask_iou import (
    EXAMPLE_SCORE,
    LOSS,
    MaskIouHead,
    coverage_of,
    draw_examples,
    example_targets,
    mask_iou_loss,
    mask_iou_targets,
)
from segloop.detection.mask_weighted import NAME, MaskWeighted
from segloop.detection.selection import keep_best

MASK_CHUNK = 256
"""Masks predicted at once: bounds the memory of images with hundreds of objects."""


class IgnoringProposals(RegionProposalNetwork):  # type: ignore[misc]
    """Region proposals whose anchors in ignored regions are no negatives."""

    def assign_targets_to_anchors(self, anchors: list[Tensor], targets: Targets) -> tuple[list[Tensor], list[Tensor]]:
        """Label anchors 1 (object), 0 (background) or -1 (left out)."""
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, boxes, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & inside_ignored(boxes, target["ignored"])] = -1.0
        return labels, matched

    def compute_loss(
        self, objectness: Tensor, regression: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and box; zero if every anchor is left out, where a mean would be NaN."""
        if all(bool((label < 0).all()) for label in labels):
            return objectness.sum() * 0, regression.sum() * 0
        losses: tuple[Tensor, Tensor] = super().compute_loss(objectness, regression, labels, regression_targets)
        return losses


class EmbeddingHeads(RoIHeads):  # type: ignore[misc]
    """Box and mask heads that ignore regions in training and return the embedding of every detection.

    The embedding of a detection is what the last fully connected layer of the box head makes of the proposal it came
    from, after its ReLU: the vector from which class and box are predicted. With a mask IoU head, the output of that
    head's last hidden layer follows it.
    """

    mask_samples: int = 1 << 30
    """At most this many positive proposals of an image train the mask head."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.mask_iou_head: MaskIouHead | None = None
        self.mask_weighted: MaskWeighted | None = None
        self.mask_iou_examples: MaskIouExamples = "detections"

    def select_training_samples(
        self, proposals: list[Tensor], targets: Targets
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Draw the proposals of a step; would-be negatives in ignored regions are taken out first."""
        kept = [
            boxes[~self._ignored_negatives(boxes, target)] for boxes, target in zip(proposals, targets, strict=True)
        ]
        selected: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]
        selected = super().select_training_samples(kept, targets)
        return selected

    def _ignored_negatives(self, boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
        ignored = inside_ignored(boxes, target["ignored"])
        if len(target["boxes"]) and bool(ignored.any()):
            ignored &= box_iou(boxes, target["boxes"]).amax(dim=1) < self.proposal_matcher.low_threshold
        return ignored

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: Targets,
    ) -> dict[str, Tensor]:
        """Return the losses of class, box, mask and, with that head, mask IoU for the proposals of a batch."""
        drawn, matched, labels, regression_targets = self.select_training_samples(proposals, targets)
        logits, regression = self.box_predictor(self.box_head(self.box_roi_pool(features, drawn)))
        if len(logits):
            class_loss, box_loss = fastrcnn_loss(logits, regression, labels, regression_targets)
        else:
            class_loss, box_loss = logits.sum() * 0, regression.sum() * 0
        losses = {"loss_classifier": class_loss, "loss_box_reg": box_loss}
        losses |= self._mask_losses(features, drawn, matched, labels, targets)
        if self.mask_iou_head is not None and self.mask_iou_examples == "detections":
            losses[LOSS] = self._loss_of_detections(self.mask_iou_head, features, proposals, sizes, targets)
        return losses

    def _mask_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        targets: Targets,
    ) -> dict[str, Tensor]:
        rows = [self._mask_rows(label) for label in labels]
        boxes = [box[row] for box, row in zip(proposals, rows, strict=True)]
        objects = [match[row] for match, row in zip(matched, rows, strict=True)]
        pooled = self.mask_roi_pool(features, boxes)
        logits: Tensor = self.mask_predictor(self.mask_head(pooled))
        classes = torch.cat([label[row] for label, row in zip(labels, rows, strict=True)])
        chosen = logits[torch.arange(len(classes), device=logits.device), classes]
        if len(classes):
            truth = torch.cat(
                [
                    coverage_of(target["masks"], box, match, logits.shape[-1])
                    for target, box, match in zip(targets, boxes, objects, strict=True)
                ]
            )
            losses = {"loss_mask": F.binary_cross_entropy_with_logits(chosen, truth)}
        else:
            # Keeps the mask head in the graph, with a gradient of zero.
            truth, losses = torch.zeros_like(chosen), {"loss_mask": logits.sum() * 0}
        if self.mask_iou_head is not None and self.mask_iou_examples == "positives":
            probability = chosen.detach().sigmoid()
            area = torch.cat(
                [target["masks"].sum(dim=(1, 2))[match] for target, match in zip(targets, objects, strict=True)]
            )
            predicted, _ = self.mask_iou_head(pooled, probability)
            target_iou = mask_iou_targets(probability, truth, torch.cat(boxes), area)
            losses[LOSS] = mask_iou_loss(predicted, classes - 1, target_iou)
        return losses

    def _loss_of_detections(
        self,
        head: MaskIouHead,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: Targets,
    ) -> Tensor:
        """Return what the mask IoU head has to learn about what the network detects now."""
        with torch.no_grad():
            found = self._found(features, proposals, sizes, EXAMPLE_SCORE)
            examples = draw_examples(found, targets)
        pooled = self.mask_roi_pool(features, [one.boxes for one in examples])
        labels = torch.cat([one.labels for one in examples])
        with torch.no_grad():
            logits = self.mask_predictor(self.mask_head(pooled))
            probability = logits[torch.arange(len(labels), device=logits.device), labels].sigmoid()
            true_iou = example_targets(probability, examples, targets)
        return mask_iou_loss(head(pooled, probability)[0], labels - 1, true_iou)

    def _mask_rows(self, labels: Tensor) -> Tensor:
        rows = torch.where(labels > 0)[0]
        if len(rows) <= self.mask_samples:
            return rows
        drawn = torch.randperm(len(rows), device=rows.device)[: self.mask_samples]
        return rows[drawn.sort().values]

    def detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]], score: float
    ) -> list[dict[str, Tensor]]:
        """Classify proposals and predict masks.

        Parameters
        ----------
        sizes
            Height and width of each image in the network's input, without padding.
        score
            Only detections above this score are returned.

        Returns
        -------
        For each image `box` float[n, 4] in pixels of the network's input, `label` int64[n], `score` float[n]
        descending, `embedding` float[n, D] and `mask` float[n, M, M], probabilities inside the box; with a mask IoU
        head also `predicted_iou` float[n] in 0..1, and its embedding joined to the box head's; with `mask_weighted` its
        embedding under that name.
        """
        found = self._found(features, proposals, sizes, score)
        for index, detections in enumerate(found):
            one_image = {name: feature[index : index + 1] for name, feature in features.items()}
            masks, judged = self._masks(one_image, detections["box"], detections["label"])
            detections["mask"] = masks
            if self.mask_iou_head is not None:
                detections["predicted_iou"] = judged[:, 0]
                detections["embedding"] = torch.cat((detections["embedding"], judged[:, 1:]), dim=1)
            if self.mask_weighted is not None:
                pooled = self.box_roi_pool(one_image, [detections["box"]])
                detections[NAME] = self.mask_weighted(pooled, masks)
        return found

    def _found(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]], score: float
    ) -> list[dict[str, Tensor]]:
        """Return what `detect` does, without the masks and what follows from them."""
        embedding = self.box_head(self.box_roi_pool(features, proposals))
        logits, regression = self.box_predictor(embedding)
        # The coder leaves out the axis of classes when there is no proposal at all.
        boxes = self.box_coder.decode(regression, proposals).reshape(*logits.shape, 4)
        counts = [len(boxes_of_image) for boxes_of_image in proposals]
        return [
            self._keep_best(box, scores, vector, size, score)
            for box, scores, vector, size in zip(
                torch.split(boxes, counts),
                torch.split(F.softmax(logits, -1), counts),
                torch.split(embedding, counts),
                sizes,
                strict=True,
            )
        ]

    def _keep_best(
        self, boxes: Tensor, scores: Tensor, embedding: Tensor, size: tuple[int, int], score: float
    ) -> dict[str, Tensor]:
        # Label 0 is the background.
        row, category, box = keep_best(
            boxes[:, 1:], scores[:, 1:], size, score=score, nms=self.nms_thresh, most=self.detections_per_img
        )
        label = category + 1
        return {"box": box, "label": label, "score": scores[row, label], "embedding": embedding[row]}

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return masks float[n, M, M] and what the mask IoU head makes of them: IoU and embedding, [n, 1 + E]."""
        head = self.mask_iou_head
        masks = [boxes.new_zeros((0, 1, 1))]
        judged = [boxes.new_zeros((0, 1 if head is None else 1 + head.embedding_dim))]
        for box, label in zip(torch.split(boxes, MASK_CHUNK), torch.split(labels, MASK_CHUNK), strict=True):
            if len(box):
                row = torch.arange(len(box), device=box.device)
                pooled = self.mask_roi_pool(features, [box])
                masks.append(self.mask_predictor(self.mask_head(pooled))[row, label].sigmoid())
                if head is not None:
                    iou, embedding = head(pooled, masks[-1])
                    judged.append(torch.cat((iou[row, label - 1].clamp(0, 1)[:, None], embedding), dim=1))
        return torch.cat(masks[1:]) if len(masks) > 1 else masks[0], torch.cat(judged)


class MaskRCNN(nn.Module):
    """He et al., Mask R-CNN (ICCV 2017): backbone, region proposals, heads."""

    def __init__(self, backbone: nn.Module, rpn: IgnoringProposals, roi_heads: EmbeddingHeads) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: Targets) -> dict[str, Tensor]:
        """Return the losses of a batch; their sum is to be minimised.

        Parameters
        ----------
        images
            float[B, 3, H, W], normalised and padded.
        sizes
            Height and width of each image without padding.
        targets
            For each image `boxes` float[n, 4], `labels` int64[n] from 1, `masks` uint8[n, h, w] and `ignored`
            float[m, 4].
        """
        features = self.backbone(images)
        proposals, losses = self.rpn(ImageList(images, sizes), features, targets)
        return {**losses, **self.roi_heads.losses(features, proposals, sizes, targets)}

    def detect(self, images: Tensor, sizes: list[tuple[int, int]], score: float) -> list[dict[str, Tensor]]:
        """Return the detections of a batch, as `EmbeddingHeads.detect` describes them."""
        features = self.backbone(images)
        proposals, _ = self.rpn(ImageList(images, sizes), features)
        return self.roi_heads.detect(features, proposals, sizes, score)
