"""The embedding map: the two leading principal components of what was clustered."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from labelmelite.loop import showing
from labelmelite.loop.forest import judged
from segloop.annotation.verdicts import WORDS
from segloop.annotation.world import World
from segloop.randomness import generator

if TYPE_CHECKING:
    from labelmelite.loop.session import LoopSession

_FITTED: Final = 20_000
"""Masks that the axes are found from."""


def embedding_map(session: "LoopSession", category: int | None, limit: int) -> dict[str, Any]:
    """Return points of docs/labelmelite-api.md.

    Parameters
    ----------
    category
        Its id; None: all of them.
    limit
        At most so many points, drawn at random; the same ones each time.
    """
    rows, points, explained = _points(session.iteration.world, category, limit)
    verdict = judged(session).verdict[rows]
    return {
        "x": np.round(points[:, 0], 5).tolist(),
        "y": np.round(points[:, 1], 5).tolist(),
        "item": [f"{showing.FREE}{one}" for one in session.iteration.world.prediction[rows].tolist()],
        "verdict": [WORDS[int(one)] for one in verdict],
        "score": np.round(session.iteration.world.score[rows].astype(np.float64), 4).tolist(),
        "explained": list(explained),
    }


@lru_cache(maxsize=64)
def _points(
    world: World, category: int | None, limit: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], tuple[float, float]]:
    own = np.arange(world.leaves, dtype=np.int64)
    if category is not None:
        own = own[world.category[own] == category]
    if not len(own) or world.embedding is None:
        return own[:0], np.zeros((0, 2)), (0.0, 0.0)
    drawn = generator("map", category or 0).permutation(own)
    rows, center, axes, explained = drawn[:limit], *_axes(world.embedding[drawn[:_FITTED]].astype(np.float64))
    return rows, (world.embedding[rows].astype(np.float64) - center) @ axes, explained


def _axes(
    values: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], tuple[float, float]]:
    """Return the center, the two leading axes as columns, and the share of the variance that each explains."""
    center = values.mean(axis=0)
    spread, vectors = np.linalg.eigh(np.cov(values - center, rowvar=False, bias=True).reshape(values.shape[1], -1))
    axes = vectors[:, ::-1][:, :2]
    if axes.shape[1] < 2:
        axes = np.hstack([axes, np.zeros((len(axes), 1))])
    # An eigenvector has no sign of its own.
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, [0, 1]] < 0, -1.0, 1.0)
    shares = np.append(np.maximum(spread[::-1], 0), 0.0)[:2] / max(float(spread.sum()), 1e-12)
    return center, axes, (round(float(shares[0]), 4), round(float(shares[1]), 4))
