from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

Detections = Any


@pytest.fixture
def detections() -> Callable[..., Detections]:
    """Make n predictions; only their columns matter here, so that no detector has to be imported."""

    def make(n: int, size: tuple[int, int] = (6, 8), dim: int = 16, seed: int = 0, iou: bool = False) -> Detections:
        rng = np.random.default_rng(seed)
        return SimpleNamespace(
            score=np.sort(rng.random(n, np.float32))[::-1],
            category=rng.integers(1, 5, n).astype(np.int32),
            box=rng.random((n, 4), np.float32),
            masks=[{"size": list(size), "counts": b"%d:%d" % (seed, i)} for i in range(n)],
            embedding=rng.standard_normal((n, dim)).astype(np.float32),
            predicted_iou=rng.random(n, np.float32) if iou else None,
        )

    return make
