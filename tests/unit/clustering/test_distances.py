import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import pdist

from segloop.clustering import distances

ROWS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 30), st.integers(1, 6)),
    elements=st.floats(-1000, 1000, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
)


@settings(deadline=None)
@given(ROWS)
def test_condensed_equals_scipy(rows: npt.NDArray[np.float32]) -> None:
    rows = rows[distances.has_direction(distances.norms(rows))]
    unit = distances.unit_rows(rows)
    exact = unit.astype(np.float64)
    for linkage, metric in (("average", "cosine"), ("complete", "cosine")):
        expected = pdist(exact, metric) if len(rows) else np.empty(0)
        assert np.allclose(distances.condensed(unit, linkage), expected, atol=1e-6)
    expected = pdist(exact) if len(rows) else np.empty(0)
    assert np.allclose(distances.condensed(unit, "ward") ** 2, expected**2, atol=2e-6)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 511, 512, 513, 1100])
def test_blocks_meet_without_gap(n: int, threads: int) -> None:
    unit = distances.unit_rows(np.random.default_rng(n).random((n, 5), np.float32) + np.float32(0.1))
    found = distances.condensed(unit, "average", threads)
    assert found.shape == (n * (n - 1) // 2,)
    assert np.allclose(found, pdist(unit.astype(np.float64), "cosine") if n > 1 else [], atol=1e-6)


def test_distances_are_never_negative() -> None:
    raw, clipped = [], []
    for dim in range(2, 60):
        unit = distances.unit_rows(np.full((5, dim), 0.37, np.float32))
        raw.append(float((1 - unit @ unit.T).min()))
        clipped.append(float(distances.condensed(unit, "average").min()))
    # Rounding does make cosines above 1, so that there is something to clip.
    assert min(raw) < 0
    assert min(clipped) == 0


def test_lengths_survive_extreme_values() -> None:
    rows = np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    lengths = distances.norms(rows)
    assert np.allclose(lengths[:2], [5e30, 5e-30], rtol=1e-6)
    assert distances.has_direction(lengths).tolist() == [True, True, False, False, False]
    assert np.allclose(distances.unit_rows(rows[:2]), [[0.6, 0.8]] * 2)
    assert distances.norms(np.array([[np.inf, 0]], np.float16))[0] == np.inf


def test_unit_rows_leave_their_input_alone() -> None:
    rows = np.array([[3, 4]], np.float32)
    distances.unit_rows(rows)
    assert rows.tolist() == [[3, 4]]
