"""The mask IoU head of Mask Scoring R-CNN: how good is a predicted mask?

Z. Huang, L. Huang, Y. Gong, C. Huang, X. Wang, Mask Scoring R-CNN, CVPR 2019, section 3.2. The class score says what an
object is; this head looks at the features and the predicted mask together and says how well the mask fits.

Nothing here knows a detection library: tensors in, tensors out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURE_SIDE = 14
"""Side of the square of features, and of the mask after max pooling."""
CONVOLUTIONS = 4
"""Convolutions of 3 x 3; the last one has a stride of 2."""
LOSS = "loss_mask_iou"
"""What its loss is called among those of a training step."""
BINARY = 0.5
"""A pixel belongs to a predicted mask from this probability on."""


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


def mask_iou_loss(predicted: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of the IoU predicted for the true category (section 3.2).

    Parameters
    ----------
    predicted
        float[n, categories], what the head said about n matched positives.
    labels
        int64[n], column of the true category.
    target
        float[n], from `mask_iou_targets`.

    Returns
    -------
    A number; without positives zero, with a gradient of zero for every parameter of the head.
    """
    if not len(labels):
        return predicted.sum() * 0
    return F.mse_loss(predicted[torch.arange(len(labels), device=labels.device), labels], target)
