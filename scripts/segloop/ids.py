"""Names that never change: prediction ids and mask keys (contracts 1 and 4 of the architecture)."""

import hashlib

import numpy as np
import numpy.typing as npt

ITERATION_BITS, SHARD_BITS, ROW_BITS = 8, 24, 32


def prediction_ids(iteration: int, shard: int, rows: int | npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """Pack (iteration 8 bits, shard 24, row 32) into ids.

    Parameters
    ----------
    iteration, shard
        Where the predictions were made; iteration 1 is the first one that predicts, so that no id is 0.
    rows
        Number of rows of the shard, or the rows themselves.

    Returns
    -------
    uint64 array, one id a row.

    Raises
    ------
    ValueError
        If a part does not fit its bits.
    """
    row = np.arange(rows, dtype=np.uint64) if isinstance(rows, int) else rows.astype(np.uint64)
    if not 0 < iteration < 1 << ITERATION_BITS:
        raise ValueError(f"iteration {iteration} is outside 1..{(1 << ITERATION_BITS) - 1}")
    if not 0 <= shard < 1 << SHARD_BITS:
        raise ValueError(f"shard {shard} is outside 0..{(1 << SHARD_BITS) - 1}")
    if len(row) and int(row.max()) >= 1 << ROW_BITS:
        raise ValueError(f"row {int(row.max())} does not fit {ROW_BITS} bits")
    return np.uint64((iteration << SHARD_BITS | shard) << ROW_BITS) | row


def unpack_prediction_ids(
    ids: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (iteration, shard, row), int64 each, of packed ids."""
    ids = np.asarray(ids, dtype=np.uint64)
    row = ids & np.uint64((1 << ROW_BITS) - 1)
    shard = (ids >> np.uint64(ROW_BITS)) & np.uint64((1 << SHARD_BITS) - 1)
    iteration = ids >> np.uint64(ROW_BITS + SHARD_BITS)
    return iteration.astype(np.int64), shard.astype(np.int64), row.astype(np.int64)


def mask_key(image_id: int, category: int, size: tuple[int, int], counts: bytes) -> bytes:
    """Return the 32 bytes that name a mask in any run: SHA-256 of (image id, category, RLE).

    Parameters
    ----------
    size
        Height and width in pixels.
    counts
        Compressed COCO run lengths.
    """
    head = f"{image_id} {category} {size[0]} {size[1]} ".encode()
    return hashlib.sha256(head + counts).digest()
