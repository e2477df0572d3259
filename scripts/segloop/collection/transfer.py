"""Transfer at no cost: what looks like well-predicted objects of another labelled set is collected unasked.

J. Hu, Clustering for Large-scale Segmentation Dataset Collection, MIT, 2019, section 3.5.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segloop.annotation.oracle import read_truth_match
from segloop.clustering.distances import has_direction, norms
from segloop.clustering.embeddings import ShardSource
from segloop.clustering.neighbours import neighbours
from segloop.clustering.partition import PARTS
from segloop.collection.summary import against_predictions, certified
from segloop.config import AnnotationConfig, TransferConfig
from segloop.errors import SegloopError
from segloop.files import atomic_file, read_document, read_json, write_json
from segloop.store.index import read_index_columns

logger = logging.getLogger("segloop.collection")

Ids = npt.NDArray[np.uint64]

RETRIEVED_SCHEMA: Final = 1


def retrieve_neighbours(
    *,
    index: Path,
    predictions: list[Path],
    truth_match: Path,
    pool_index: Path,
    partitions: Path,
    retrieved: Path,
    accepted: Path,
    answers: Path,
    embedding: str,
    transfer: TransferConfig,
    seed: int,
) -> None:
    """Find the nearest neighbours in the pool of what was predicted well on another labelled set.

    Parameters
    ----------
    index, predictions, truth_match
        Of the labelled set; a prediction is good if its IoU with any truth is above `transfer.t_iou`.
    pool_index, partitions
        Of the pool, predicted with the same model; the embeddings of both must be the same.
    retrieved
        JSON: {"schema", "embedding", "predictions", "good", "masks": {"prediction", "query", "cosine"}}, the columns of
        `masks` in the order in which masks are collected.
    accepted
        `.npy` file, float32 of one number for each prediction of the pool's index, in its order: 1 where it is to be
        collected, else 0. The policy `verifier` accepts by it.
    answers
        An empty log of answers: nobody is asked.
    embedding
        A value of `clustering.embedding`.
    seed
        Seed of the index that many queries are answered by.

    Raises
    ------
    SegloopError
        If inputs are missing, damaged or do not belong together, or the model has no such embedding.
    """
    prediction, duplicate_of = read_index_columns(index, "prediction", "duplicate_of")
    match = read_truth_match(truth_match)
    if not np.array_equal(match.prediction, prediction):
        raise SegloopError(f"{truth_match} and {index} hold different predictions. Run match_transfer again.")
    good = prediction[(match.iou > np.float32(transfer.t_iou)) & (duplicate_of == 0)]
    source = ShardSource(good, predictions, index, PARTS[embedding])
    queries = source.read(np.arange(len(good))).astype(np.float32)
    usable = has_direction(norms(queries))
    found, cosine = neighbours(queries[usable], partitions, transfer.neighbours, seed=seed)
    chosen, query, best = ranked(found, cosine, good[usable])
    some = slice(transfer.masks)
    (pool,) = read_index_columns(pool_index, "prediction")
    wanted = np.isin(pool, chosen[some]).astype(np.float32)
    if int(wanted.sum()) != len(chosen[some]):
        raise SegloopError(f"{partitions} and {pool_index} hold different predictions. Make {partitions} again.")
    if not len(chosen):
        logger.warning("%d of %d predictions on the labelled set are good: nothing is retrieved", len(good), len(match))
    columns = {"prediction": _text(chosen[some]), "query": _text(query[some]), "cosine": best[some].tolist()}
    record = {"schema": RETRIEVED_SCHEMA, "embedding": embedding, "predictions": len(match), "good": len(good)}
    # A file, because np.save would add an ending to the temporary name.
    with atomic_file(accepted, sealed=True) as temporary, temporary.open("wb") as file:
        np.save(file, wanted)
    with atomic_file(answers, sealed=True) as temporary:
        temporary.touch()
    write_json(retrieved, record | {"masks": columns})


def ranked(found: Ids, cosine: npt.NDArray[np.float32], query: Ids) -> tuple[Ids, Ids, npt.NDArray[np.float32]]:
    """Return each retrieved prediction once, by falling similarity with the query that it is most similar to.

    Parameters
    ----------
    found : uint64 [Q, k]
        Neighbours of each query; 0 where there are fewer than k.
    cosine : float32 [Q, k]
    query : uint64 [Q]
        Ids of the queries.

    Returns
    -------
    prediction, query : uint64 [M]
    cosine : float32 [M]
        Equal ones in ascending order of the ids.
    """
    asking = np.broadcast_to(query[:, None], found.shape)[found > 0]
    cosine, found = cosine[found > 0], found[found > 0]
    order = np.lexsort((asking, found, -cosine))
    _, first = np.unique(found[order], return_index=True)
    kept = order[np.sort(first)]
    return found[kept], asking[kept], cosine[kept]


def _text(ids: Ids) -> list[str]:
    # Ids exceed the integers of JSON readers.
    return [str(one) for one in ids.tolist()]


@dataclass(frozen=True)
class Transferred:
    """The files of one embedding."""

    retrieved: Path
    collected: Path
    verdicts: Path
    certificates: Path
    evaluation: Path

    def row(self, truth_match: Path | None, annotation: AnnotationConfig) -> dict[str, Any]:
        """Return what this embedding came to; what is not known is null.

        Parameters
        ----------
        truth_match
            Of the pool, None where its truth is not known.
        """
        retrieved, evaluation = read_document(self.retrieved), read_document(self.evaluation)
        row: dict[str, Any] = {name: retrieved[name] for name in ("embedding", "predictions", "good")}
        row |= {"retrieved": len(retrieved["masks"]["prediction"]), "precision": None, "recall": None}
        row |= {"collected": len(read_json(self.collected)["annotations"])}
        row |= against_predictions(self.verdicts, truth_match, annotation)
        certificates = read_json(self.certificates)["certificates"]
        row |= {"audited": sum(one["asked"] for one in certificates)}
        return row | {
            "certified": certified(self.verdicts, self.certificates),
            "ap": evaluation["ap"],
            "ap50": evaluation["ap50"],
        }
