"""What a killed prediction leaves behind, so that the next attempt goes on instead of beginning again.

While a shard is predicted, its results lie beside the store in a hidden folder, in numbered parts, each of which is
whole or absent. The store is written from the parts when the last image is done. So an attempt that went on and one
that was never disturbed write the same store, and results take no memory beyond one part.
"""

import json
import logging
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt

from segloop.data.masks import Rle
from segloop.detection.pipeline import Predicted
from segloop.detection.segmenter import Detections
from segloop.errors import SegloopError
from segloop.files import atomic_file, lock, write_json

logger = logging.getLogger("segloop")

PART_SECONDS: Final = 30.0
"""A killed attempt loses no more than so many seconds of work."""
PART_BYTES: Final = 64 << 20
"""A part is written when its results reach this size: the bound on memory."""

Arrays = dict[str, npt.NDArray[Any]]


class PartialPredictions:
    """The results of a shard that is being predicted, in image order; use it in a `with` block.

    Parameters
    ----------
    output
        The store that will hold the results.
    key
        Everything that the results depend on, as JSON. What another model or other settings left is discarded.
    detector
        Which of several detectors makes the results; None for a single one.

    Raises
    ------
    SegloopError
        If another process predicts this shard.
    """

    def __init__(self, output: Path, key: dict[str, Any], detector: str | None = None) -> None:
        self._output = output
        self._folder = output.with_name(f".{output.name}{f'.{detector}' if detector else ''}.partial")
        self._key = json.loads(json.dumps(key))
        self._pending: list[Predicted] = []
        self._bytes = 0
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = (self._folder / "lock").open("a", encoding="utf-8")
        if lock(self._lock, exclusive=True, wait=False) is False:
            self._lock.close()
            raise SegloopError(
                f"{self._output} is being predicted by another process, which works in {self._folder}. Wait for it "
                "or end it, then run the step again."
            )
        try:
            if _read_key(self._folder) != self._key:
                self._discard()
            self._parts = self._whole_parts()
        except BaseException:
            self._lock.close()
            raise
        if self._parts:
            logger.info("%s: going on after %d images of an earlier attempt", self._output, len(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Without room on the disk, writing again would only hide the error that says so.
            if not isinstance(error, OSError) and self._folder.exists():
                self._flush()
        finally:
            self._lock.close()

    def __len__(self) -> int:
        """Return how many images are done."""
        return sum(self._parts) + len(self._pending)

    def append(self, predicted: Predicted) -> None:
        """Add the result of the next image."""
        self._pending.append(predicted)
        if not isinstance(predicted.outcome, str):
            self._bytes += predicted.outcome.embedding.nbytes
            self._bytes += sum(len(mask["counts"]) for mask in predicted.outcome.masks)
        if self._bytes >= PART_BYTES or time.monotonic() - self._flushed >= PART_SECONDS:
            self._flush()

    def __iter__(self) -> Iterator[Predicted]:
        """Yield all results, part by part."""
        self._flush()
        for number in range(len(self._parts)):
            yield from _unpack(_read(self._part(number)))

    def remove(self) -> None:
        """Remove everything: the store is there, or the results must not be used again."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:06}.npz"

    def _flush(self) -> None:
        if self._pending:
            with atomic_file(self._part(len(self._parts))) as temporary, temporary.open("wb") as file:
                # NumPy's signature takes the names of arrays for its own options.
                np.savez(file, **_pack(self._pending))  # type: ignore[arg-type]
            self._parts.append(len(self._pending))
        self._pending, self._bytes, self._flushed = [], 0, time.monotonic()

    def _discard(self) -> None:
        self._remove_parts(0)
        write_json(self._folder / "key.json", self._key, sealed=False)

    def _remove_parts(self, first: int) -> None:
        # From the last one: cut off, this leaves no gap.
        for part in sorted(self._folder.glob("*.npz"), reverse=True):
            if part >= self._part(first):
                part.unlink()

    def _whole_parts(self) -> list[int]:
        """Return the number of images in each part; a damaged one and those after it are removed."""
        counts: list[int] = []
        while self._part(len(counts)).exists():
            try:
                counts.append(len(_read(self._part(len(counts)))["image_id"]))
            except (EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile):
                logger.warning("%s is damaged and is predicted again", self._part(len(counts)))
                self._remove_parts(len(counts))
        return counts


def _read_key(folder: Path) -> Any:
    try:
        return json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read(part: Path) -> Arrays:
    # Opened here, because NumPy leaves the file of a damaged archive open.
    with part.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _pack(results: list[Predicted]) -> Arrays:
    """Return results as arrays; an image that cannot be read counts -1 detections."""
    found = [one.outcome for one in results if not isinstance(one.outcome, str)]
    names = [[one.file, one.outcome if isinstance(one.outcome, str) else ""] for one in results]
    counts = [mask["counts"] for one in found for mask in one.masks]
    arrays: Arrays = {
        "image_id": np.array([one.image_id for one in results], np.int64),
        "size": np.array([(one.height, one.width) for one in results], np.int64),
        "detections": np.array([-1 if isinstance(one.outcome, str) else len(one.outcome) for one in results], np.int64),
        # As bytes, because an array of text would drop zeros at its end and be as wide as its longest one.
        "names": np.frombuffer(json.dumps(names).encode("ascii"), np.uint8),
        "rle_counts": np.frombuffer(b"".join(counts), np.uint8),
        "rle_length": np.array([len(one) for one in counts], np.int64),
    }
    for name in _columns():
        values = [getattr(one, name) for one in found]
        if values and all(value is not None for value in values):
            arrays[f"column_{name}"] = np.concatenate(values)
    return arrays


def _unpack(arrays: Arrays) -> Iterator[Predicted]:
    """Yield the results that `_pack` made arrays of."""
    ends = np.cumsum(arrays["rle_length"])
    counts = arrays["rle_counts"].tobytes()
    names = json.loads(arrays["names"].tobytes())
    row = 0
    for image_id, (height, width), number, (file, reason) in zip(
        arrays["image_id"].tolist(), arrays["size"].tolist(), arrays["detections"].tolist(), names, strict=True
    ):
        if number < 0:
            yield Predicted(image_id, file, height, width, reason)
            continue
        rows = range(row, row + number)
        masks = [
            Rle(size=[height, width], counts=counts[ends[one] - arrays["rle_length"][one] : ends[one]]) for one in rows
        ]
        columns = {name: arrays[f"column_{name}"][row : row + number] for name in _columns() if _has(arrays, name)}
        yield Predicted(image_id, file, height, width, Detections(masks=masks, **columns))
        row += number


def _columns() -> list[str]:
    return [field.name for field in fields(Detections) if field.name != "masks"]


def _has(arrays: Arrays, name: str) -> bool:
    return f"column_{name}" in arrays
