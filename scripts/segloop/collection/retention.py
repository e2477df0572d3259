"""What older iterations need not keep: embeddings, and masks below the score of the index."""

from pathlib import Path
from typing import Literal

from tqdm import tqdm

from segloop.collection.index import lock_of
from segloop.files import file_lock, write_json
from segloop.store import partitions as partition_store
from segloop.store import predictions as prediction_store

What = Literal["embeddings", "low_scores"]


def apply_retention(*, what: What, predictions: list[Path], partitions: Path, score: float, output: Path) -> None:
    """Drop what the configuration does not keep of an iteration that is done, and write down that it is gone.

    Stores stay in place, with their time stamps, and are whole at every moment: nothing is made again because of this,
    a killed call is completed by the next, and whatever still needs what is gone says so.

    Parameters
    ----------
    what
        `embeddings` (of the prediction stores and of the partitions), or `low_scores`: masks and embeddings of
        predictions at or below `score`.
    predictions, partitions
        The stores of the iteration.
    score
        The index score.
    output
        JSON: what was dropped and how many stores it was dropped from.

    Raises
    ------
    SegloopError
        If a store is missing or damaged.
    """
    # The index of a later iteration reads these stores; all other readers are inputs of the rule and so done.
    with file_lock(lock_of(output), exclusive=True):
        for path in tqdm(predictions, desc=f"drop {what}", unit="shard", disable=None):
            if what == "embeddings":
                prediction_store.drop_embeddings(path)
            else:
                prediction_store.drop_low_scores(path, score)
        if what == "embeddings":
            partition_store.drop_embeddings(partitions)
    write_json(output, {"schema_version": 1, "dropped": what, "stores": len(predictions)})
