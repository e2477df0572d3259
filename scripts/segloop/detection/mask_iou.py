"""The mask IoU head of Mask Scoring R-CNN: how good is a predicted mask?

Z. Huang, L. Huang, Y. Gong, C. Huang, X. Wang, Mask Scoring R-CNN, CVPR 2019, section 3.2. The class score says what an
object is; this head looks at the features and the predicted mask together and says how well the mask fits.

The paper's head learns from the proposals that match an object. Here it learns by default from what it will be asked
about: the network's own detections, those that match nothing included, whose IoU is 0 (decision 021).

Nothing here knows a detection library: tensors in, tensors out.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from segloop.detection.ignored import inside_ignored

FEATURE_SIDE = 14
"""Side of the square of features, and of the mask after max pooling."""
CONVOLUTIONS = 4
"""Convolutions of 3 x 3; the last one has a stride of 2."""
LOSS = "loss_mask_iou"
"""What its loss is called among those of a training step."""
BINARY = 0.5
"""A pixel belongs to a predicted mask from this probability on."""
EXAMPLE_SCORE = 0.05
"""Detections of a lower class score teach the head nothing; above it they are drawn in proportion to it."""
EXAMPLES = 32
"""At most this many detections of an image teach the head in a step."""
MATCHED = 0.5
"""Box IoU from which on a detection in an ignored region shows an object all the same."""
START = 0.5
"""The IoU that a head predicts before it has learned anything."""


class MaskIouHead(nn.Module):
    """Predict the IoU of a mask with the object it is meant to be, for each category (section 3.2 and figure 3).

    Parameters
    ----------
    channels
        Channels of the features of a region.
    categories
        Number of categories, the background not counted: column c of the output is about category c, from 0.
    width
        Channels of the convolutions; 256 in the paper.
    hidden
        Width of the first fully connected layer; 1024 in the paper.
    embedding_dim
        Width of the second fully connected layer, whose output is the embedding; 1024 in the paper.
    """

    def __init__(self, channels: int, categories: int, *, width: int, hidden: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        layers: list[nn.Module] = []
        for number in range(CONVOLUTIONS):
            inputs = channels + 1 if number == 0 else width
            layers += [nn.Conv2d(inputs, width, 3, 2 if number == CONVOLUTIONS - 1 else 1, 1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.fc1 = nn.Linear(width * (FEATURE_SIDE // 2) ** 2, hidden)
        self.fc2 = nn.Linear(hidden, embedding_dim)
        self.iou = nn.Linear(embedding_dim, categories)
        self._initialise()

    def _initialise(self) -> None:
        # He et al., Delving deep into rectifiers (ICCV 2015); the last layer starts near zero.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.iou.weight, std=0.01)
        nn.init.constant_(self.iou.bias, START)

    def forward(self, features: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
        """Judge masks.

        Parameters
        ----------
        features
            float[n, channels, 14, 14], the features of the mask's box, as the mask head gets them.
        probability
            float[n, 28, 28], the predicted mask of one category as probabilities inside the box. No gradient flows into
            it: a mask is judged here, not made easier to judge.

        Returns
        -------
        IoU float[n, categories], not limited to 0..1, and embedding float[n, embedding_dim], the output of the second
        fully connected layer after its ReLU, from which the IoU is predicted.
        """
        # Kernel and stride of 2 for a mask of 28 x 28, as in the paper.
        shown = F.max_pool2d(probability.detach()[:, None], probability.shape[-1] // FEATURE_SIDE)
        x = self.convolutions(torch.cat((features, shown.to(features)), dim=1))
        embedding = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return self.iou(embedding), embedding


def mask_iou_targets(probability: Tensor, coverage: Tensor, boxes: Tensor, area: Tensor) -> Tensor:
    """Return the IoU of predicted masks with the whole objects they were matched with, which the head is to learn.

    The predicted mask P lies inside its box, the object G may reach beyond it. What is outside cannot be in P, so that
    `|P and G|` is counted inside the box, and `|P or G| = |P| + |G| - |P and G|` needs nothing but the area of the
    whole object, which is known in pixels. One cell of the mask is `box area / S^2` pixels.

    Parameters
    ----------
    probability
        float[n, S, S], predicted masks inside their boxes; cut at one half.
    coverage
        float[n, S, S] in 0..1, which part of each cell the matched object covers.
    boxes
        float[n, 4], corners x0, y0, x1, y1 in pixels.
    area
        float[n], pixels of the whole matched object, measured in the same pixels as `boxes`.

    Returns
    -------
    float[n] in 0..1, without gradient; 0 where nothing is predicted.
    """
    with torch.no_grad():
        predicted = (probability >= BINARY).to(coverage)
        cell = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) / probability.shape[-1] ** 2
        common = (predicted * coverage).sum(dim=(1, 2))
        # Resampling may make the part inside the box a little larger than the whole.
        whole = torch.maximum(area.to(coverage) / cell.clamp(min=1e-6), coverage.sum(dim=(1, 2)))
        union = predicted.sum(dim=(1, 2)) + whole - common
        return common / union.clamp(min=1e-6)


@dataclass(frozen=True)
class Examples:
    """Detections of an image that teach the head.

    Attributes
    ----------
    boxes
        float[n, 4], corners in pixels of the network's input.
    labels
        int64[n] from 1, the predicted categories.
    matched
        int64[n], for each the row of the object it is compared with, -1 if there is none: then its IoU is 0.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor


def draw_examples(
    found: list[dict[str, Tensor]], targets: list[dict[str, Tensor]], most: int = EXAMPLES
) -> list[Examples]:
    """Draw detections of each image of a batch, and look up the object that each is compared with.

    That is the object of its category whose box fits best. Detections in ignored regions that match none are left out:
    nobody knows what they show. A detection is drawn in proportion to its class score, because most detections have
    scores far below those that are stored. Draws from torch's global generator.

    Parameters
    ----------
    found
        `box` float[n, 4], `label` int64[n] from 1 and `score` float[n] above 0 of each image, the detections.
    targets
        `boxes`, `labels` and `ignored` of each image, as `segloop.detection.backends.Network.losses` takes them.
    most
        At most so many are drawn of an image.
    """
    return [_draw(one, target, most) for one, target in zip(found, targets, strict=True)]


def _draw(found: dict[str, Tensor], target: dict[str, Tensor], most: int) -> Examples:
    boxes, labels = found["box"], found["label"]
    overlap = boxes.new_zeros((len(boxes), 1 + len(target["boxes"])))
    same = labels[:, None] == target["labels"][None, :]
    overlap[:, 1:] = box_iou(boxes, target["boxes"].to(boxes)) * same
    # Column 0 is no object; the first of equals wins.
    best, column = overlap.max(dim=1)
    known = torch.where(~inside_ignored(boxes, target["ignored"]) | (best >= MATCHED))[0]
    drawn = known
    if len(known) > most:
        drawn = known[torch.multinomial(found["score"][known].float(), most).sort().values]
    return Examples(boxes[drawn], labels[drawn], column[drawn] - 1)


def coverage_of(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """Return which part of each cell of a box an object covers.

    Pixel centres lie at half-integers, as they do in `segloop.detection.pasting`.

    Parameters
    ----------
    masks
        uint8 or bool [m, h, w], the objects of an image.
    boxes
        float[n, 4], corners in pixels.
    matched
        int64[n], the object of each box.
    side
        Cells along each side of a box.

    Returns
    -------
    float[n, side, side] in 0..1.
    """
    regions = torch.cat((matched[:, None].to(boxes), boxes), dim=1)
    covered: Tensor = roi_align(masks[:, None].to(boxes), regions, side, 1.0, aligned=True)[:, 0]
    return covered


def example_targets(probability: Tensor, examples: list[Examples], targets: list[dict[str, Tensor]]) -> Tensor:
    """Return the IoU of the masks of a batch's examples with the objects they are compared with; 0 without one.

    Parameters
    ----------
    probability
        float[n, S, S], predicted masks inside their boxes, of one image after the other.
    targets
        `masks` of each image, uint8 or bool [m, h, w].

    Returns
    -------
    float[n] in 0..1, without gradient.
    """
    parts = torch.split(probability, [len(one.labels) for one in examples])
    triples = zip(parts, examples, targets, strict=True)
    return torch.cat([_targets_of_image(part, one, target["masks"]) for part, one, target in triples])


def _targets_of_image(probability: Tensor, examples: Examples, masks: Tensor) -> Tensor:
    target = probability.new_zeros(len(examples.matched), dtype=torch.float32)
    rows = torch.where(examples.matched >= 0)[0]
    if len(rows):
        boxes, matched = examples.boxes[rows], examples.matched[rows]
        coverage = coverage_of(masks, boxes, matched, probability.shape[-1])
        area = masks.sum(dim=(1, 2))[matched]
        target[rows] = mask_iou_targets(probability[rows], coverage, boxes, area).to(target)
    return target


def mask_iou_loss(predicted: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of the IoU predicted for one category each (section 3.2).

    Parameters
    ----------
    predicted
        float[n, categories], what the head said about n masks.
    labels
        int64[n], column of the true category of a positive, or of the predicted one of a detection.
    target
        float[n], from `mask_iou_targets` or `example_targets`.

    Returns
    -------
    A number; without masks zero, with a gradient of zero for every parameter of the head.
    """
    if not len(labels):
        return predicted.sum() * 0
    return F.mse_loss(predicted[torch.arange(len(labels), device=labels.device), labels], target)
