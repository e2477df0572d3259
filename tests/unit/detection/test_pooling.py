import pytest
import torch
from torchvision.ops import roi_align

from segloop.detection.pooling import RegionPooler, pool_by_products

REGIONS = torch.tensor(
    [[0, 3.0, 4.0, 40.0, 50.0], [0, 0.0, 0.0, 4.0, 5.0], [2, -9.0, -30.0, 20.0, 30.0], [2, 50.0, 40.0, 90.0, 99.0]]
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("size", [7, 14])
def test_products_equal_torchvision(aligned: bool, size: int) -> None:
    torch.manual_seed(0)
    feature = torch.randn(3, 5, 16, 20, requires_grad=True)
    weight = torch.randn(len(REGIONS), 5, size, size)
    expected = roi_align(feature, REGIONS, size, 0.25, 2, aligned)
    (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), feature)
    pooled = pool_by_products(feature, REGIONS, size, 0.25, aligned=aligned)
    (gradient,) = torch.autograd.grad((pooled * weight).sum(), feature)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_training_and_prediction_pool_alike() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(2, 4, 32 >> level, 32 >> level) for level in range(3)]
    pooler = RegionPooler((4, 8, 16), 7, aligned=True, canonical_size=32.0, canonical_level=3)
    boxes = [torch.tensor([[0.0, 0, 100, 100], [5, 5, 12, 14]]), torch.tensor([[9.0, 9, 50, 50]])]
    predicting = pooler({str(index): level for index, level in enumerate(levels)}, boxes)
    training = pooler({str(index): level.clone().requires_grad_() for index, level in enumerate(levels)}, boxes)
    assert predicting.shape == (3, 4, 7, 7)
    torch.testing.assert_close(training, predicting, rtol=1e-4, atol=1e-5)


def test_the_level_follows_the_size() -> None:
    pooler = RegionPooler((4, 8, 16), 7, aligned=True, canonical_size=32.0, canonical_level=3)
    sides = torch.tensor([1.0, 16, 31, 32, 63, 64, 500])
    boxes = torch.stack((torch.zeros(7), torch.zeros(7), sides, sides), dim=1)
    assert pooler.levels(boxes).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_no_boxes() -> None:
    pooler = RegionPooler((4,), 7, aligned=True, canonical_size=32.0, canonical_level=2)
    feature = torch.zeros(1, 4, 8, 8, requires_grad=True)
    assert pooler({"0": feature}, [torch.zeros(0, 4)]).shape == (0, 4, 7, 7)
    assert pooler({"0": feature.detach()}, [torch.zeros(0, 4)]).shape == (0, 4, 7, 7)
