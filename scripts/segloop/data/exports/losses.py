"""What an export could not carry over: counted by reason, and the intersection over union that each mask lost."""

import csv
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from segloop.data.labelled import Record

Mask = npt.NDArray[np.bool_]
TABLE: Final = "losses.csv"
COLUMNS: Final = ("annotation", "image", "file_name", "category", "iou", "pixels", "written_pixels", "why")
_BINS: Final = 100


class Losses:
    """Counts what a format cannot hold, and writes a line for each mask that is not written as it is.

    Parameters
    ----------
    path
        The table `losses.csv`; it is made with the first line.

    Attributes
    ----------
    counts
        Number of masks (or images) by reason. A mask can count under several.
    compared
        Number of masks whose written form was compared with the mask.
    left_out
        Number of masks that are not written at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.left_out = 0
        self.compared = 0
        self._sum = 0.0
        self._lowest = 1.0
        self._below = np.zeros(_BINS + 1, np.int64)
        self._file: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Complete the table."""
        if self._file is not None:
            self._file.close()

    def count(self, *reasons: str) -> None:
        """Count what happens to a mask that is compared, or to an image."""
        self.counts.update(reasons)

    def leave_out(self, image: Record, annotation: Record, reason: str) -> None:
        """Count a mask that is not written at all, and name it in the table."""
        self.count(reason)
        self.left_out += 1
        self._line(image, annotation, 0.0, 0, reason)

    def compare(self, image: Record, annotation: Record, mask: Mask, written: Mask, why: str = "") -> float:
        """Compare what is written with the mask; return their intersection over union.

        Parameters
        ----------
        mask, written
            Boolean, of the shape of the image.
        why
            The reasons, for the table.
        """
        union = int(np.count_nonzero(mask | written))
        iou = int(np.count_nonzero(mask & written)) / union if union else 1.0
        self._compared(iou)
        if iou < 1:
            self._line(image, annotation, iou, int(np.count_nonzero(written)), why)
        return iou

    def _compared(self, iou: float) -> None:
        self.compared += 1
        self._sum += iou
        self._lowest = min(self._lowest, iou)
        self._below[int(iou * _BINS)] += 1

    def _line(self, image: Record, annotation: Record, iou: float, written: int, why: str) -> None:
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8", newline="")
            self._table = csv.writer(self._file, lineterminator="\n")
            self._table.writerow(COLUMNS)
        where = (annotation["id"], image["id"], image["file_name"], annotation["category_id"])
        self._table.writerow((*where, f"{iou:.4f}", annotation["area"], written, why))

    def record(self) -> dict[str, Any]:
        """Return the counts and what is known of the lost IoU, for `export.json`."""
        found: dict[str, Any] = {"counts": {why: count for why, count in sorted(self.counts.items()) if count}}
        if self.left_out:
            found["left_out"] = self.left_out
        if self.compared:
            found["iou"] = {
                "masks": self.compared,
                "unchanged": int(self._below[_BINS]),
                "mean": round(self._sum / self.compared, 6),
                "lowest": round(self._lowest, 6),
                "below_0.50": int(self._below[:50].sum()),
                "below_0.90": int(self._below[:90].sum()),
                "below_0.99": int(self._below[:99].sum()),
            }
        return found
