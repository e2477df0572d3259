"""Answers from the truth, in simulations."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from segloop import integrity
from segloop.annotation.tables import read_table, write_table
from segloop.data import masks
from segloop.data.masks import Rle
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.ids import unpack_prediction_ids
from segloop.store.index import read_index_columns
from segloop.store.predictions import PredictionShard
from segloop.workers import HERE, Workplace, worker_map

Matching = Literal["any", "one_to_one"]

MATCH_SCHEMA: Final = pa.schema(
    [
        ("prediction", pa.uint64()),
        ("iou", pa.float32()),
        ("truth_id", pa.int64()),
        ("matched_iou", pa.float32()),
        ("matched_id", pa.int64()),
    ]
)

ANY: Final = -1
"""Stands for the category where categories are not compared."""


@dataclass(frozen=True)
class TruthMatch:
    """How each prediction of the index agrees with the truth of its image and category; crowds are left out.

    Attributes
    ----------
    prediction : uint64 [N]
        In the order of the index.
    iou : float32 [N]
        Largest mask IoU with any truth; 0 if there is none.
    truth_id : int64 [N]
        The truth of that IoU, 0 if none.
    matched_iou, matched_id : float32, int64 [N]
        The same under one-to-one matching; 0 where no truth is left above the threshold.
    t_iou : float
        The threshold of the one-to-one matching.
    """

    prediction: npt.NDArray[np.uint64]
    iou: npt.NDArray[np.float32]
    truth_id: npt.NDArray[np.int64]
    matched_iou: npt.NDArray[np.float32]
    matched_id: npt.NDArray[np.int64]
    t_iou: float

    def __len__(self) -> int:
        return len(self.prediction)


def match_truth(
    *,
    index: Path,
    predictions: list[Path],
    truth: Path,
    output: Path,
    t_iou: float,
    workers: int,
    where: Workplace = HERE,
    any_category: bool = False,
) -> None:
    """Match every prediction of the index with the truth.

    Parameters
    ----------
    index
        The index of the iteration; its duplicates are matched too, so that a truth which an earlier iteration has
        found already serves no second mask under one-to-one matching.
    predictions
        Its stores, one a shard, in shard order.
    truth
        Canonical COCO file with the image ids of the pool.
    output
        Parquet file with the columns of `TruthMatch`; `t_iou` stands in its metadata.
    t_iou
        A one-to-one match needs an IoU strictly above this.
    workers
        Processes; any number gives the same bytes.
    where
        Where they run, if there are several.
    any_category
        Categories are not compared, because those of the truth may be others.

    Raises
    ------
    SegloopError
        If an input is missing or damaged, or a truth's mask and a predicted one have different sizes.
    """
    (ids,) = read_index_columns(index, "prediction")
    _, shard_of, _ = unpack_prediction_ids(ids)
    bounds = np.searchsorted(shard_of, np.arange(len(predictions) + 1))
    tasks = [
        _ShardTask(path, ids[first:last], truth, t_iou, any_category)
        for path, first, last in zip(predictions, bounds[:-1], bounds[1:], strict=True)
        if last > first
    ]
    # One group a worker, because each reads the whole truth.
    groups = [tasks[number::workers] for number in range(min(workers, len(tasks)))]
    with worker_map(workers, where=where) as run:
        results = run(_match_shards, groups)
    parts = [results[number % workers][number // workers] for number in range(len(tasks))]
    _write(output, ids, parts, t_iou)


@dataclass(frozen=True)
class _ShardTask:
    store: Path
    ids: npt.NDArray[np.uint64]
    truth: Path
    t_iou: float
    any_category: bool


def _match_shards(tasks: list[_ShardTask]) -> list[dict[str, npt.NDArray[Any]]]:
    if not tasks:
        return []
    truth = Truth.read(tasks[0].truth, tasks[0].any_category)
    return [_match_shard(task, truth) for task in tasks]


def _match_shard(task: _ShardTask, truth: "Truth") -> dict[str, npt.NDArray[Any]]:
    shard = PredictionShard.open(task.store)
    _, _, rows = unpack_prediction_ids(task.ids)
    image_id, score = shard.image_id[rows], shard.score[rows]
    category = np.full(len(rows), ANY, np.int32) if task.any_category else shard.category[rows]
    rles = shard.rles(rows)
    found: dict[str, npt.NDArray[Any]] = {
        "iou": np.zeros(len(rows), np.float32),
        "truth_id": np.zeros(len(rows), np.int64),
        "matched_iou": np.zeros(len(rows), np.float32),
        "matched_id": np.zeros(len(rows), np.int64),
    }
    for (image, kind), group in groups_of(image_id, category):
        truth_ids, truth_rles = truth.of(image, kind)
        if not len(truth_ids):
            continue
        iou = mask_iou([rles[row] for row in group], truth_rles, f"image {image} in {task.store} and {task.truth}")
        best = iou.argmax(axis=1)
        found["iou"][group] = iou[np.arange(len(group)), best]
        found["truth_id"][group] = np.where(found["iou"][group] > 0, truth_ids[best], 0)
        matched = match_one_to_one(iou, score[group], task.t_iou)
        served = np.flatnonzero(matched >= 0)
        found["matched_iou"][group[served]] = iou[served, matched[served]]
        found["matched_id"][group[served]] = truth_ids[matched[served]]
    return found


def _write(output: Path, ids: npt.NDArray[np.uint64], parts: list[dict[str, npt.NDArray[Any]]], t_iou: float) -> None:
    columns: dict[str, Any] = {"prediction": pa.array(ids)}
    for field in MATCH_SCHEMA:
        if field.name != "prediction":
            empty = np.zeros(0, field.type.to_pandas_dtype())
            columns[field.name] = pa.array(np.concatenate([empty, *(part[field.name] for part in parts)]))
    write_table(output, pa.table(columns, schema=MATCH_SCHEMA.with_metadata({"t_iou": repr(t_iou)})))


def read_truth_match(path: Path) -> TruthMatch:
    """Read truth_match.parquet.

    Raises
    ------
    SegloopError
        If the file is missing, damaged or of another layout.
    """
    table = read_table(path, MATCH_SCHEMA)
    integrity.check(path)
    metadata = pq.read_schema(path).metadata or {}
    if b"t_iou" not in metadata:
        raise SegloopError(f"{path} does not say its threshold (t_iou). Make it again.")
    columns = {name: table.column(name).to_numpy() for name in MATCH_SCHEMA.names}
    return TruthMatch(**columns, t_iou=float(metadata[b"t_iou"]))


def good(match: TruthMatch, t_iou: float, matching: Matching) -> npt.NDArray[np.bool_]:
    """Return which predictions are good: IoU with the truth of the same category strictly above `t_iou`, bool [N].

    Parameters
    ----------
    matching
        `any`: a truth may serve several masks, as the thesis asks mask by mask. `one_to_one`: each serves one, in
        score order.

    Raises
    ------
    SegloopError
        If one-to-one matching is asked for at another threshold than the file's.
    """
    if matching == "any":
        return match.iou > np.float32(t_iou)
    if match.t_iou != t_iou:
        raise SegloopError(
            f"truth_match.parquet was matched one to one at t_iou {match.t_iou}, not {t_iou}. Run match_truth again."
        )
    return match.matched_id > 0


def match_one_to_one(
    iou: npt.NDArray[np.float32], score: npt.NDArray[np.floating], t_iou: float
) -> npt.NDArray[np.int64]:
    """Match predictions with truths as COCO's evaluation does.

    In descending order of score (equal scores: in the order given) each prediction takes the truth of the largest IoU
    among those not yet taken, if that IoU is strictly above `t_iou`. Crowds must have been left out.

    Parameters
    ----------
    iou : float32 [P, T]
    score : [P]

    Returns
    -------
    int64 [P], the truth of each prediction, -1 for none.
    """
    matched = np.full(len(iou), -1, np.int64)
    left = iou.astype(np.float32)
    if not left.size:
        return matched
    for prediction in np.argsort(-score, kind="stable"):
        best = int(left[prediction].argmax())
        if left[prediction, best] > np.float32(t_iou):
            matched[prediction] = best
            left[:, best] = -1
    return matched


def groups_of(
    image_id: npt.NDArray[np.int64], category: npt.NDArray[np.int32]
) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.int64]]]:
    """Yield ((image, category), rows in ascending order) for every pair that occurs, in ascending order."""
    if not len(image_id):
        return
    order = np.lexsort((category, image_id))
    image, kind = image_id[order], category[order]
    begins = np.flatnonzero(np.r_[True, (image[1:] != image[:-1]) | (kind[1:] != kind[:-1])])
    for first, rows in zip(begins, np.split(order, begins[1:]), strict=True):
        yield (int(image[first]), int(kind[first])), rows.astype(np.int64)


def mask_iou(a: list[Rle], b: list[Rle], where: str) -> npt.NDArray[np.float32]:
    """Return the IoU of masks of one image, float32 [len(a), len(b)].

    Raises
    ------
    SegloopError
        If they have different sizes; `where` names them.
    """
    sizes = {tuple(rle["size"]) for rle in (*a, *b)}
    if len(sizes) > 1:
        raise SegloopError(
            f"{where}: masks of one image have different sizes (height, width) {sorted(sizes)}. "
            "Check that both were made on the same image files."
        )
    return np.asarray(masks.iou(a, b, None), np.float64).astype(np.float32).reshape(len(a), len(b))


class Truth:
    """The truth of the pool, by image and category, without crowds."""

    def __init__(self, dataset: dict[str, Any], any_category: bool = False) -> None:
        self._records: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        self.count = 0
        for annotation in dataset["annotations"]:
            if not annotation["iscrowd"]:
                category = ANY if any_category else int(annotation["category_id"])
                self._records[int(annotation["image_id"]), category].append(annotation)
                self.count += 1

    @staticmethod
    def read(path: Path, any_category: bool = False) -> "Truth":
        """Read a canonical COCO file; `any_category` puts all of an image's truth under `ANY`."""
        return Truth(read_json(path), any_category)

    def of(self, image: int, category: int) -> tuple[npt.NDArray[np.int64], list[Rle]]:
        """Return ids and masks of one image and category."""
        records = self._records.get((image, category), [])
        ids = np.array([record["id"] for record in records], np.int64)
        return ids, [masks.from_json(record["segmentation"]) for record in records]
