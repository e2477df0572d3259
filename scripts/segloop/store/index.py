"""The index: one row for each prediction of an iteration that is clustered and asked about."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segloop.errors import SegloopError
from segloop.store.arrays import Store, StoreWriter, read_attributes

KIND = "index"

_DTYPES: dict[str, npt.DTypeLike] = {
    "prediction": np.uint64,
    "image_id": np.int64,
    "category": np.int32,
    "score": np.float32,
    "box": np.float32,
    "area": np.int64,
    "predicted_iou": np.float32,
    "mask_key": np.uint8,
    "duplicate_of": np.uint64,
    "inherited": np.int8,
    "detector": np.int8,
}
_ROW_SHAPES = {"box": (4,), "mask_key": (32,)}


@dataclass(frozen=True)
class Index:
    """Columns of the index, N rows in ascending order of `prediction`."""

    prediction: npt.NDArray[np.uint64]
    """Prediction ids, [N]."""
    image_id: npt.NDArray[np.int64]
    """Image of the pool, [N]."""
    category: npt.NDArray[np.int32]
    """Predicted category id, [N]."""
    score: npt.NDArray[np.float32]
    """Score in 0..1, [N]."""
    box: npt.NDArray[np.float32]
    """x0, y0, x1, y1 in image pixels, [N, 4]."""
    area: npt.NDArray[np.int64]
    """Pixels of the mask, [N]."""
    predicted_iou: npt.NDArray[np.float32] | None
    """The detector's guess of the mask's IoU, [N], or None."""
    mask_key: npt.NDArray[np.uint8]
    """What answers are about (`segloop.ids.mask_key`), [N, 32]."""
    duplicate_of: npt.NDArray[np.uint64]
    """The prediction that this one repeats, of an earlier iteration or (the same mask) of this one; 0 if none, [N]."""
    inherited: npt.NDArray[np.int8]
    """Verdict of that earlier prediction: 1 accepted, -1 rejected; 0 for copies and where there is none, [N]."""
    detector: npt.NDArray[np.int8] | None = None
    """Which of several detectors found it, in the order of the attribute `detectors`, [N]; None for a single one."""

    def __len__(self) -> int:
        return len(self.prediction)


def write_index(path: str | Path, index: Index, attributes: dict[str, Any]) -> None:
    """Write the index whole or not at all.

    Parameters
    ----------
    attributes
        JSON values that say how it was made.

    Raises
    ------
    ValueError
        If a column has another length or shape than the others want, or ids do not ascend.
    """
    if not bool((index.prediction[1:] > index.prediction[:-1]).all()):
        raise ValueError("prediction ids of an index must ascend")
    with StoreWriter(path, KIND, {**attributes, "rows": len(index)}) as store:
        for field in fields(index):
            column = getattr(index, field.name)
            if column is None:
                continue
            if column.shape != (len(index), *_ROW_SHAPES.get(field.name, ())):
                raise ValueError(f"column {field.name} has shape {column.shape} in an index of {len(index)} rows")
            store.write(field.name, column.astype(_DTYPES[field.name], copy=False))


def read_index(path: str | Path) -> Index:
    """Read a whole index.

    Raises
    ------
    SegloopError
        If it is missing, truncated or of another schema version.
    """
    store = Store(path, KIND)
    columns: dict[str, Any] = {name: store.read(name) if _holds(store, name) else None for name in _DTYPES}
    return Index(**columns)


def read_index_columns(path: str | Path, *names: str) -> list[npt.NDArray[Any]]:
    """Read some columns only; an index of 46 million rows is several gigabytes.

    Raises
    ------
    SegloopError
        If the index is missing or damaged, or has no such column.
    """
    store = Store(path, KIND)
    for name in names:
        if not _holds(store, name):
            raise SegloopError(f"{path} has no column {name}. Make the index again with a detector that predicts it.")
    return [store.read(name) for name in names]


def read_index_attributes(path: str | Path) -> dict[str, Any]:
    """Return what `write_index` was told about how the index was made."""
    return read_attributes(path, KIND)


def _holds(store: Store, name: str) -> bool:
    return f"{name}/zarr.json" in store.attributes["files"]
