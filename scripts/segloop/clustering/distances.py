"""Cosine distances by matrix products, in float32, written straight into the array that the linkage consumes.

`scipy.spatial.distance.pdist` takes 20 times as long for the same numbers at 1024 dimensions.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.clustering.numerics import numerical_threads

# Rows of the blocks of products of all threads: large enough for the matrix product to reach its speed, and small
# beside the result.
_BLOCK = 512
# Up to so many rows products run in float64.
_DOUBLE_ROWS = 2048


def norms(rows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return the Euclidean length of each row, float32 [n]; not finite where a row is not.

    Sums run in float64, so that neither large nor tiny rows leave the range of float32 on the way.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        # einsum converts in small buffers: no float64 copy of the rows comes into being.
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        lengths: npt.NDArray[np.float32] = np.sqrt(squares).astype(np.float32)
    return lengths


def has_direction(lengths: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return which rows can be clustered: those whose length is finite and above zero."""
    return np.isfinite(lengths) & (lengths > 0)


def unit_rows(
    rows: npt.NDArray[np.floating[Any]], lengths: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Return rows scaled to length 1, float32 [n, D].

    Parameters
    ----------
    rows
        Embeddings, float16 or float32 [n, D]; none of zero length.
    lengths
        Their lengths if they are known.
    """
    lengths = norms(rows) if lengths is None else lengths
    unit = rows.astype(np.float32)
    unit /= lengths[:, None]
    return unit


def condensed(unit: npt.NDArray[np.float32], linkage: str, threads: int = 1) -> npt.NDArray[np.float64]:
    """Return all pairwise distances as fastcluster wants them.

    Parameters
    ----------
    unit
        Rows of length 1, float32 [n, D].
    linkage
        `average` and `complete` cluster 1 - cos; `ward` the (unsquared) Euclidean distance, sqrt(2 (1 - cos)).
    threads
        How many compute, each its own blocks of rows.

    Returns
    -------
    float64 [n (n-1) / 2]: the upper triangle of the distance matrix, row by row; 4 n² bytes.

    Notes
    -----
    Products of up to 2,048 rows run in float64: they cost little there, and the tree then equals scipy's. More rows are
    multiplied in float32, where 1 - cos cancels for near duplicates, so that it is clipped at 0.

    A thread multiplies and fills. With threads inside the products alone, filling would take as long as they do.
    """
    n = len(unit)
    out = np.empty(n * (n - 1) // 2, np.float64)
    if n <= _DOUBLE_ROWS:
        unit = unit.astype(np.float64)
        unit /= np.sqrt(np.einsum("ij,ij->i", unit, unit))[:, None]
    size = max(1, _BLOCK // threads)

    def fill(start: int) -> None:
        values = unit[start : start + size] @ unit[start:].T
        np.subtract(1, values, out=values)
        np.maximum(values, 0, out=values)
        if linkage == "ward":
            np.sqrt(np.multiply(values, 2, out=values), out=values)
        filled = start * n - start * (start + 1) // 2
        for i in range(len(values)):
            count = n - start - i - 1
            out[filled : filled + count] = values[i, i + 1 :]
            filled += count

    with numerical_threads(1), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, range(0, n, size)):
            pass
    return out
