from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.data import masks
from segloop.detection.combining import combine
from segloop.detection.segmenter import Detections

SIDE = 12


def square(left: int, top: int, side: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def detections(rows: list[tuple[float, int, tuple[int, int, int]]], width: int = 2, judged: bool = False) -> Detections:
    """Make detections of (score, category, square), sorted as a detector gives them."""
    rows = sorted(rows, key=lambda row: -row[0])
    return Detections(
        score=np.array([score for score, _, _ in rows], np.float32),
        category=np.array([category for _, category, _ in rows], np.int32),
        box=np.array([(x, y, x + s, y + s) for _, _, (x, y, s) in rows], np.float32).reshape(-1, 4),
        masks=[masks.encode(square(*place)) for _, _, place in rows],
        embedding=np.arange(1, len(rows) * width + 1, dtype=np.float32).reshape(len(rows), width),
        predicted_iou=np.full(len(rows), 0.5, np.float32) if judged else None,
    )


def test_the_higher_score_stays_and_of_equal_scores_the_earlier_detector() -> None:
    first = detections([(0.75, 1, (0, 0, 4)), (0.5, 1, (6, 6, 4)), (0.25, 2, (0, 0, 4))])
    second = detections([(0.875, 1, (0, 0, 4)), (0.5, 1, (6, 6, 4))])
    combined = combine([first, second], 0.8, 2)
    assert combined.detections.score.tolist() == [0.875, 0.5, 0.25]
    assert combined.detector.tolist() == [1, 0, 0]
    assert combined.dropped.tolist() == [1, 1]
    assert combined.detections.category.tolist() == [1, 1, 2]


def test_what_one_detector_found_twice_and_what_differs_stays() -> None:
    twice = detections([(0.75, 1, (0, 0, 4)), (0.5, 1, (0, 0, 4))])
    other = detections([(0.25, 1, (1, 0, 4)), (0.25, 2, (0, 0, 4))])
    # 12 of 20 pixels in common.
    assert len(combine([twice, other], 0.8, 2).detections) == 4
    assert combine([twice, other], 0.5, 2).dropped.tolist() == [0, 1]


def test_what_was_left_out_leaves_nothing_out() -> None:
    """A chain: the middle one repeats the best, and does not take the last with it."""
    first = detections([(0.9, 1, (0, 0, 6)), (0.3, 1, (2, 0, 6))])
    second = detections([(0.6, 1, (1, 0, 6))])
    # Neighbours share 30 of 42 pixels.
    combined = combine([first, second], 0.7, 2)
    assert combined.detections.score.tolist() == np.array([0.9, 0.3], np.float32).tolist()


def test_embeddings_are_filled_up_and_a_predicted_iou_needs_all_detectors() -> None:
    narrow, wide = detections([(0.75, 1, (0, 0, 4))], 2, judged=True), detections([(0.5, 1, (6, 6, 4))], 3)
    combined = combine([narrow, wide], 0.8, 3)
    assert combined.detections.embedding.tolist() == [[1, 2, 0], [1, 2, 3]]
    assert combined.detections.predicted_iou is None
    both = combine([narrow, detections([(0.5, 1, (6, 6, 4))], 2, judged=True)], 0.8, 2)
    assert both.detections.predicted_iou is not None and len(both.detections.predicted_iou) == 2


def test_nothing_found_is_no_prediction() -> None:
    combined = combine([detections([]), detections([])], 0.8, 2)
    assert len(combined.detections) == 0
    assert combined.detections.embedding.shape == (0, 2) and combined.detections.box.shape == (0, 4)


found = st.lists(
    st.tuples(
        st.sampled_from([0.25, 0.5, 0.75]),
        st.sampled_from([1, 2]),
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(3, 6)),
    ),
    max_size=6,
)


@settings(max_examples=50)
@given(of_each=st.lists(found, min_size=2, max_size=3))
def test_no_two_detectors_show_the_same_and_nothing_is_lost_without_a_better_one(of_each: Any) -> None:
    given_ = [detections(rows) for rows in of_each]
    combined = combine(given_, 0.6, 2)
    kept, detector = combined.detections, combined.detector
    assert (np.diff(kept.score) <= 0).all()
    assert len(kept) + combined.dropped.sum() == sum(len(one) for one in given_)
    iou = masks.iou(kept.masks, kept.masks).astype(np.float32)
    alike = (iou >= np.float32(0.6)) & (kept.category[:, None] == kept.category)
    assert not (alike & (detector[:, None] != detector)).any()
    for number, one in enumerate(given_):
        for row in range(len(one)):
            of_category = kept.category == one.category[row]
            same = masks.iou([one.masks[row]], kept.masks)[0].astype(np.float32)
            itself = (detector == number) & of_category & (same == 1) & (kept.score == one.score[row])
            better = (detector != number) & of_category & (same >= np.float32(0.6)) & (kept.score >= one.score[row])
            assert itself.any() or better.any()
