import torch
from hypothesis import given
from hypothesis import strategies as st

from segloop.detection.ignored import inside_ignored


def test_half_of_the_area_is_enough() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10.1], [20, 20, 30, 30], [2, 2, 3, 3]])
    ignored = torch.tensor([[0.0, 0, 10, 5]])
    assert inside_ignored(boxes, ignored).tolist() == [True, False, False, True]


def test_two_regions_do_not_add_up() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    halves = torch.tensor([[0.0, 0, 10, 3], [0, 3, 10, 6]])
    assert not inside_ignored(box, halves).item()


def test_nothing_ignored_and_nothing_asked() -> None:
    boxes, none = torch.ones(3, 4), torch.zeros(0, 4)
    assert inside_ignored(boxes, none).tolist() == [False] * 3
    assert inside_ignored(none, boxes).shape == (0,)


def test_a_box_without_area_is_never_inside() -> None:
    assert not inside_ignored(torch.tensor([[5.0, 5, 5, 5]]), torch.tensor([[0.0, 0, 10, 10]])).item()


corner = st.integers(0, 12)


@given(st.tuples(corner, corner, corner, corner), st.tuples(corner, corner, corner, corner))
def test_agrees_with_counting_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    box, region = sorted_box(a), sorted_box(b)
    pixels = {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}
    common = {(x, y) for x in range(region[0], region[2]) for y in range(region[1], region[3])} & pixels
    expected = bool(pixels) and 2 * len(common) >= len(pixels)
    assert inside_ignored(torch.tensor([box]).float(), torch.tensor([region]).float()).item() is expected


def sorted_box(corners: tuple[int, ...]) -> list[int]:
    x, y = sorted((corners[0], corners[2])), sorted((corners[1], corners[3]))
    return [x[0], y[0], x[1], y[1]]
