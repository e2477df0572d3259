import numpy as np
import torch
from scipy.spatial.distance import pdist

from segloop.detection.mask_weighted import SIDE, WIDTH, MaskWeighted


def test_it_is_the_projection_of_the_features_times_the_mask() -> None:
    head = MaskWeighted(3)
    generator = torch.Generator().manual_seed(0)
    features = torch.rand((2, 3, SIDE, SIDE), generator=generator)
    mask = torch.rand((2, 28, 28), generator=generator)
    cells = mask.reshape(2, SIDE, 4, SIDE, 4).mean(dim=(2, 4))
    expected = (features * cells[:, None]).reshape(2, -1) @ head.projection
    assert torch.allclose(head(features, mask), expected, atol=1e-5)
    assert head(features[:0], mask[:0]).shape == (0, WIDTH)


def test_features_of_a_finer_grid_are_weighted_before_they_are_averaged() -> None:
    head = MaskWeighted(2)
    fine = torch.zeros((1, 2, 14, 14))
    fine[:, :, ::2] = 1.0
    mask = torch.zeros((1, 28, 28))
    mask[:, 2::4] = 1.0  # the odd rows of the grid, where there is nothing
    mask[:, 3::4] = 1.0
    assert head(fine, mask).abs().max() == 0
    assert head(fine, 1 - mask).abs().max() > 0


def test_what_lies_outside_the_mask_does_not_matter() -> None:
    head = MaskWeighted(4)
    features = torch.rand((1, 4, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros((1, 28, 28))
    mask[:, :12] = 1.0
    changed = features.clone()
    changed[:, :, 3:] = 7.0
    assert torch.equal(head(features, mask), head(changed, mask))


def test_the_projection_is_always_the_same_and_no_weight_of_a_model() -> None:
    one, again = MaskWeighted(5), MaskWeighted(5)
    assert one.facts() == again.facts() and torch.equal(one.projection, again.projection)
    assert one.facts()["projection_sha256"] != MaskWeighted(6).facts()["projection_sha256"]
    assert not one.state_dict() and not list(one.parameters())


def test_distances_survive_the_projection() -> None:
    """Johnson and Lindenstrauss: of 30 vectors, all distances within a quarter (5 standard deviations at 512)."""
    head = MaskWeighted(8)
    features = torch.rand((30, 8, SIDE, SIDE), generator=torch.Generator().manual_seed(2))
    described = head(features, torch.ones((30, 28, 28))).numpy()
    ratio = pdist(described) / pdist(features.flatten(1).numpy())
    assert np.all(np.abs(ratio - 1) < 0.25)
