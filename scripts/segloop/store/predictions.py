"""Prediction shards: what a detector found in one part of the pool.

Row r of every array belongs to the prediction whose id packs (iteration, shard, r), contract 1 of the architecture.
Masks are compressed COCO RLE, all their bytes in one array with offsets.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from segloop.errors import SegloopError
from segloop.ids import prediction_ids
from segloop.store.arrays import Layout, NewArray, Store, StoreWriter, drop_arrays

if TYPE_CHECKING:
    from segloop.data.masks import Rle
    from segloop.detection.segmenter import Detections

KIND = "predictions"
KEPT = "kept_"
"""Arrays with this prefix hold the rows of `kept_row` alone: see `drop_low_scores`."""

# Embeddings dominate: a chunk of 1024 rows is what a random look-up reads, a shard of 65,536 is one file. Float16
# mantissas do not compress. Other columns share the plain layout with shorter chunks, because shards are small.
_EMBEDDINGS = Layout(chunk_rows=1024, shard_rows=65_536, compressed=False)
_COLUMN = Layout(chunk_rows=8192, shard_rows=1 << 20)
_BYTES = Layout(chunk_rows=1 << 20, shard_rows=1 << 26)


@dataclass(frozen=True)
class StoredDetector:
    """One of the detectors whose predictions a store holds."""

    name: str | None
    """What the configuration calls it; None for a single one."""
    model_sha256: str
    """Hash of its weights."""
    embedding_parts: dict[str, int]
    """Name and width of what is joined to its embeddings, in order; zeros follow up to the width of the store."""

    @property
    def embedding_dim(self) -> int:
        """Width of its embeddings."""
        return sum(self.embedding_parts.values())


class PredictionWriter:
    """Writes the predictions of one shard, image by image, in bounded memory.

    Use it in a `with` block: the store appears under its name at the clean end of the block, and only then.

    Parameters
    ----------
    path
        The store to write (`results/iter_{i}/predictions/{shard}.zarr`).
    iteration, shard
        Where the predictions belong; part of their ids.
    model_sha256
        Hash of the weights that made them.
    embedding_dim
        Width of the embeddings.
    has_predicted_iou
        Whether the detector predicts the IoU of its masks.
    embedding_parts
        Name and width of what was joined to the embedding, in order; the box head alone if None.
    embedding_facts
        What is recorded about how parts of the embedding were made, if anything.
    detectors
        The detectors, if there are several; then `append` wants to know which is which, `model_sha256` is to name all
        of them, and `embedding_parts` are not used.

    Notes
    -----
    Memory: one shard of embeddings, 65,536 x embedding_dim x 2 bytes, three times at the moment of writing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        iteration: int,
        shard: int,
        model_sha256: str,
        embedding_dim: int,
        has_predicted_iou: bool = False,
        embedding_parts: dict[str, int] | None = None,
        embedding_facts: dict[str, Any] | None = None,
        detectors: Sequence[StoredDetector] = (),
    ):
        self._embedding_dim = embedding_dim
        self._detectors = list(detectors)
        self._dropped = np.zeros(len(detectors), np.int64)
        self._kept = np.zeros(len(detectors), np.int64)
        parts = embedding_parts or {"box_head": embedding_dim}
        if detectors:
            parts = {}
            if max(one.embedding_dim for one in detectors) != embedding_dim:
                raise ValueError(f"embeddings of the detectors are not {embedding_dim} wide")
        elif sum(parts.values()) != embedding_dim:
            raise ValueError(f"embedding parts {parts} do not add up to a width of {embedding_dim}")
        self._has_predicted_iou = has_predicted_iou
        self._images: set[int] = set()
        self._rows = 0
        self._bytes = 0
        self._name = Path(path)
        prediction_ids(iteration, shard, 0)
        self._store = StoreWriter(
            path,
            KIND,
            {
                "iteration": iteration,
                "shard": shard,
                "model_sha256": model_sha256,
                "embedding_dim": embedding_dim,
                # Pairs: the order of a mapping would be the JSON writer's.
                **({} if detectors else {"embedding_parts": [list(part) for part in parts.items()]}),
                **({"embedding_facts": embedding_facts} if embedding_facts else {}),
                "has_predicted_iou": has_predicted_iou,
            },
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        store = self._stack.enter_context(self._store)
        self._columns = {
            "image_id": store.create("image_id", np.int64, layout=_COLUMN),
            "category": store.create("category", np.int32, layout=_COLUMN),
            "score": store.create("score", np.float32, layout=_COLUMN),
            "box": store.create("box", np.float32, (4,), _COLUMN),
            "embedding": store.create("embedding", np.float16, (self._embedding_dim,), _EMBEDDINGS),
            "rle_counts": store.create("rle_counts", np.uint8, layout=_BYTES),
            "rle_end": store.create("rle_end", np.uint64, layout=_COLUMN),
            "all_image_id": store.create("all_image_id", np.int64, layout=_COLUMN),
            "all_image_size": store.create("all_image_size", np.int32, (2,), _COLUMN),
        }
        if self._has_predicted_iou:
            self._columns["predicted_iou"] = store.create("predicted_iou", np.float32, layout=_COLUMN)
        if self._detectors:
            self._columns["detector"] = store.create("detector", np.int8, layout=_COLUMN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.attributes |= {"rows": self._rows, "images": len(self._images)}
        if self._detectors:
            counts = zip(self._detectors, self._kept.tolist(), self._dropped.tolist(), strict=True)
            self._store.attributes["detectors"] = [
                {
                    "name": one.name,
                    "model_sha256": one.model_sha256,
                    "embedding_parts": [list(part) for part in one.embedding_parts.items()],
                    "predictions": kept,
                    "duplicates": dropped,
                }
                for one, kept, dropped in counts
            ]
        self._stack.__exit__(kind, error, trace)

    def append(
        self,
        image_id: int,
        height: int,
        width: int,
        detections: "Detections",
        detector: npt.NDArray[np.int8] | None = None,
        dropped: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Add the predictions of one image, none included.

        Parameters
        ----------
        image_id
            Id of the image in the pool; each image is appended once.
        height, width
            Size of the image in pixels.
        detections
            Its predictions; masks have the size of the image.
        detector, dropped
            Where there are several detectors: the number of each prediction's, [n], and how many predictions of each
            were left out, because they repeat another's, [detectors].

        Raises
        ------
        SegloopError
            If the detections do not fit the store or each other.
        """
        self._check(image_id, height, width, detections)
        self._images.add(image_id)
        count = len(detections.score)
        self._columns["all_image_id"].append(np.array([image_id]))
        self._columns["all_image_size"].append(np.array([[height, width]]))
        self._columns["image_id"].append(np.full(count, image_id))
        self._columns["category"].append(detections.category)
        self._columns["score"].append(detections.score)
        self._columns["box"].append(np.reshape(detections.box, (count, 4)))
        # A value beyond float16 becomes infinite; clustering then lists the prediction as one without embedding.
        with np.errstate(over="ignore"):
            half = np.reshape(detections.embedding, (count, self._embedding_dim)).astype(np.float16)
        self._columns["embedding"].append(half)
        if self._has_predicted_iou:
            self._columns["predicted_iou"].append(np.asarray(detections.predicted_iou))
        if self._detectors:
            if detector is None or dropped is None or len(detector) != count:
                raise ValueError("say of each prediction which of several detectors it is from")
            self._columns["detector"].append(detector)
            self._kept += np.bincount(detector, minlength=len(self._kept))
            self._dropped += dropped
        self._append_masks(detections.masks)
        self._rows += count

    def _append_masks(self, masks: list["Rle"]) -> None:
        counts = [mask["counts"] for mask in masks]
        ends = self._bytes + np.cumsum([len(c) for c in counts], dtype=np.uint64) if counts else np.empty(0, np.uint64)
        self._columns["rle_counts"].append(np.frombuffer(b"".join(counts), np.uint8))
        self._columns["rle_end"].append(ends)
        self._bytes += sum(len(c) for c in counts)

    def _check(self, image_id: int, height: int, width: int, detections: "Detections") -> None:
        where = f"Predictions of image {image_id} for {self._name}"
        if image_id in self._images:
            raise SegloopError(f"{where} were given twice. Remove the repeated image from the shard.")
        count = len(detections.score)
        lengths = {len(detections.category), len(detections.box), len(detections.masks), len(detections.embedding)}
        if self._has_predicted_iou:
            lengths.add(-1 if detections.predicted_iou is None else len(detections.predicted_iou))
        if lengths != {count}:
            raise SegloopError(f"{where} have columns of different lengths. Mend the detector's backend.")
        if count and np.shape(detections.embedding)[1] != self._embedding_dim:
            raise SegloopError(
                f"{where} have embeddings of width {np.shape(detections.embedding)[1]}; the store's is "
                f"{self._embedding_dim}. Give one embedding_dim for all predictions of a model."
            )
        if any(list(mask["size"]) != [height, width] for mask in detections.masks):
            raise SegloopError(f"{where} hold a mask of another size than {height} x {width} pixels.")


class PredictionShard:
    """The predictions of one shard; columns are read when they are asked for."""

    def __init__(self, store: Store):
        self.path = store.path
        self._store = store

    @classmethod
    def open(cls, path: str | Path) -> "PredictionShard":
        """Open a store.

        Raises
        ------
        SegloopError
            If it is missing, truncated or of another schema version; the message names it.
        """
        return cls(Store(path, KIND))

    def __len__(self) -> int:
        return int(self._store.attributes["rows"])

    @property
    def iteration(self) -> int:
        """The iteration that made the predictions."""
        return int(self._store.attributes["iteration"])

    @property
    def shard(self) -> int:
        """The number of the pool's part."""
        return int(self._store.attributes["shard"])

    @property
    def model_sha256(self) -> str:
        """Hash of the weights that made the predictions; of several detectors, the hash of all their hashes."""
        return str(self._store.attributes["model_sha256"])

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return int(self._store.attributes["embedding_dim"])

    @property
    def has_embeddings(self) -> bool:
        """Whether the embeddings are still there (`drop_embeddings`)."""
        return self._store.holds(self._stored("embedding"))

    @property
    def detectors(self) -> list[StoredDetector]:
        """The detectors whose predictions these are, in the order of the configuration."""
        several = self._store.attributes.get("detectors")
        if several is None:
            parts = self._store.attributes.get("embedding_parts", [("box_head", self.embedding_dim)])
            return [StoredDetector(None, self.model_sha256, dict(parts))]
        return [StoredDetector(one["name"], one["model_sha256"], dict(one["embedding_parts"])) for one in several]

    @property
    def duplicates_between_detectors(self) -> list[int]:
        """How many predictions of each detector were left out, because a better one of another shows the same."""
        return [int(one["duplicates"]) for one in self._store.attributes.get("detectors", [{"duplicates": 0}])]

    @property
    def detector(self) -> npt.NDArray[np.int8]:
        """Place of each prediction's detector in `detectors`, int8 [n]."""
        if "detectors" in self._store.attributes:
            return self._store.read("detector")
        return np.zeros(len(self), np.int8)

    @property
    def embedding_facts(self) -> dict[str, Any]:
        """By the name of a part, what is recorded about how it was made."""
        return dict(self._store.attributes.get("embedding_facts", {}))

    @property
    def prediction(self) -> npt.NDArray[np.uint64]:
        """Ids, uint64 [n]."""
        return prediction_ids(self.iteration, self.shard, len(self))

    @property
    def image_id(self) -> npt.NDArray[np.int64]:
        """Image of each prediction, int64 [n]."""
        return self._store.read("image_id")

    @property
    def category(self) -> npt.NDArray[np.int32]:
        """Predicted category id, int32 [n]."""
        return self._store.read("category")

    @property
    def score(self) -> npt.NDArray[np.float32]:
        """Score in 0..1, float32 [n]."""
        return self._store.read("score")

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """Boxes x0, y0, x1, y1 in image pixels, float32 [n, 4]."""
        return self._store.read("box")

    @property
    def predicted_iou(self) -> npt.NDArray[np.float32] | None:
        """The detector's own guess of the mask's IoU, float32 [n], if it makes one."""
        return self._store.read("predicted_iou") if self._store.attributes["has_predicted_iou"] else None

    @property
    def images(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """All images that were predicted, those without predictions included: (image id, height, width), each [m]."""
        size = self._store.read("all_image_size")
        return self._store.read("all_image_id"), size[:, 0].copy(), size[:, 1].copy()

    def rles(self, rows: npt.NDArray[np.integer] | None = None) -> list["Rle"]:
        """Return masks as compressed RLE.

        Parameters
        ----------
        rows
            The predictions wanted, in any order; all when None.
        """
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        if not len(wanted):
            return []
        self._check_rows(wanted)
        place = self._places(wanted)
        end = self._store.read(self._stored("rle_end")).astype(np.int64)
        start = np.concatenate([[0], end[:-1]])
        first, last = int(start[place].min()), int(end[place].max())
        data = self._store.read(self._stored("rle_counts"), first, last).tobytes()
        heights, widths = self._sizes(wanted)
        return [
            {"size": [height, width], "counts": data[a - first : b - first]}
            for height, width, a, b in zip(
                heights.tolist(), widths.tolist(), start[place].tolist(), end[place].tolist(), strict=True
            )
        ]

    def _stored(self, name: str) -> str:
        return KEPT + name if self._store.holds(KEPT + "row") else name

    def _places(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where the masks and embeddings of rows lie; they lie row by row until `drop_low_scores`."""
        if not self._store.holds(KEPT + "row"):
            return rows
        kept = self._store.read(KEPT + "row").astype(np.int64)
        place = np.minimum(np.searchsorted(kept, rows), max(0, len(kept) - 1))
        if len(rows) and not (len(kept) and np.array_equal(kept[place], rows)):
            raise SegloopError(
                f"{self.path} no longer holds the masks and embeddings of predictions below the index score: they were "
                "dropped, as retention.low_scores says. To have them again, delete the store and predict the shard."
            )
        return place

    def _sizes(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        image_id, height, width = self.images
        order = np.argsort(image_id)
        place = order[np.searchsorted(image_id, self.image_id[rows], sorter=order)]
        return height[place], width[place]

    def embeddings(self, rows: npt.NDArray[np.integer] | None = None) -> npt.NDArray[np.float16]:
        """Return embeddings, float16 [n, D].

        Parameters
        ----------
        rows
            The predictions wanted, in any order; all when None.
        """
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        self._check_rows(wanted)
        place = self._places(wanted)
        # One contiguous read is several times faster than picking, and at most four times as long as what is kept.
        if len(place) and int(place.max()) - int(place.min()) < 4 * len(place):
            first = int(place.min())
            slab: npt.NDArray[Any] = self._store.read(self._stored("embedding"), first, int(place.max()) + 1)
            return slab if len(slab) == len(place) and bool((np.diff(place) == 1).all()) else slab[place - first]
        return self._store.read_rows(self._stored("embedding"), place)

    def _check_rows(self, rows: npt.NDArray[np.integer]) -> None:
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise SegloopError(f"{self.path} has {len(self)} rows, but row {int(rows.max())} was asked for.")


def rows_of(path: str | Path) -> int:
    """Return how many predictions a store holds, without a look at more than one small file."""
    return int(json.loads((Path(path) / "zarr.json").read_text(encoding="utf-8"))["attributes"]["rows"])


def drop_embeddings(path: str | Path) -> None:
    """Drop the embeddings of a prediction store for good.

    Raises
    ------
    SegloopError
        If the store is missing or damaged.
    """
    drop_arrays(path, KIND, ["embedding", KEPT + "embedding"])


def drop_low_scores(path: str | Path, score: float) -> None:
    """Drop masks and embeddings of predictions at or below a score for good; their other columns stay.

    Row r stays row r: only where masks and embeddings lie changes.

    Parameters
    ----------
    score
        The index score: strictly above it everything stays.

    Raises
    ------
    SegloopError
        If the store is missing or damaged.
    """
    shard = PredictionShard.open(path)
    # In float32 as stored, like the index.
    kept = np.flatnonzero(shard.score > np.float32(score))
    if len(kept) == len(shard):
        return
    added = [
        NewArray(KEPT + "rle_counts", np.uint8, (), _BYTES, _kept_counts(shard, kept)),
        NewArray(KEPT + "rle_end", np.uint64, (), _COLUMN, _kept_ends(shard, kept)),
        NewArray(KEPT + "row", np.uint32, (), _COLUMN, [kept]),
    ]
    if shard.has_embeddings:
        row = (shard.embedding_dim,)
        added.insert(0, NewArray(KEPT + "embedding", np.float16, row, _EMBEDDINGS, _kept_embeddings(shard, kept)))
    drop_arrays(path, KIND, ["embedding", "rle_counts", "rle_end"], added)


def _blocks(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(rows), _EMBEDDINGS.shard_rows):
        yield rows[start : start + _EMBEDDINGS.shard_rows]


def _kept_counts(shard: PredictionShard, kept: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
    for block in _blocks(kept):
        yield np.frombuffer(b"".join(mask["counts"] for mask in shard.rles(block)), np.uint8)


def _kept_ends(shard: PredictionShard, kept: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint64]]:
    end = 0
    for block in _blocks(kept):
        ends = end + np.cumsum([len(mask["counts"]) for mask in shard.rles(block)], dtype=np.uint64)
        end = int(ends[-1])
        yield ends


def _kept_embeddings(shard: PredictionShard, kept: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.float16]]:
    for block in _blocks(kept):
        yield shard.embeddings(block)
