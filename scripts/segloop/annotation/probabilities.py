"""Probabilities that masks are good, made by any model outside the loop and read from a file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segloop import integrity
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.files import atomic_file
from segloop.ids import unpack_prediction_ids
from segloop.store.index import read_index_columns


def probability_path(config: AnnotationConfig, iteration: int, agreement: Path | None = None) -> Path | None:
    """Return the file that the probabilities of an iteration are read from, None if there is none.

    Parameters
    ----------
    agreement
        What `distillation` reads: how far predictions of transformed images agree.
    """
    if config.policy == "distillation":
        return agreement
    if config.probability_file is None:
        return None
    return Path(config.probability_file.replace("{iteration}", str(iteration)))


def read_probabilities(path: Path, count: int) -> npt.NDArray[np.float32]:
    """Read the probability of every prediction of an index, in its order.

    Parameters
    ----------
    path
        A `.npy` file of floats in 0..1.
    count
        Predictions of the index.

    Returns
    -------
    float32 [count]

    Raises
    ------
    SegloopError
        If the file is missing or cannot be read, or does not hold one probability for each prediction.
    """
    if not path.exists():
        raise SegloopError(
            f"{path} does not exist. Write a .npy file with a probability in 0..1 for each of the {count} predictions "
            "of the index, in its order, and run again; or choose another annotation.policy."
        )
    integrity.check(path)
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SegloopError(f"{path} is no .npy file of numbers ({error}). Write it again.") from None
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating) or values.shape != (count,):
        what = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else "several arrays"
        raise SegloopError(
            f"{path} holds {what}; the index has {count} predictions. Write one float for each, in its order."
        )
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise SegloopError(
            f"{path} holds {values[wrong[0]]} at place {wrong[0]} ({len(wrong)} such values); probabilities are "
            "finite and in 0..1. Write it again."
        )
    return values.astype(np.float32)


def write_probabilities(path: Path, values: npt.NDArray[np.float32]) -> None:
    """Write what `read_probabilities` reads."""
    # A file, because np.save would add an ending to the temporary name.
    with atomic_file(path, sealed=True) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def join_agreement(*, parts: list[Path], index: Path, output: Path) -> None:
    """Join the agreements of all shards.

    Parameters
    ----------
    parts
        What `measure_agreement` wrote, one file a shard, in shard order.
    output
        `.npy` file, float32 of one number for each prediction of the index, in its order.

    Raises
    ------
    SegloopError
        If a part does not hold one number in 0..1 for each indexed prediction of its shard.
    """
    (ids,) = read_index_columns(index, "prediction")
    count = np.bincount(unpack_prediction_ids(ids)[1], minlength=len(parts)).tolist()
    # The ids of an index ascend, so that its shards follow each other.
    values = [read_probabilities(part, rows) for part, rows in zip(parts, count, strict=True)]
    write_probabilities(output, np.concatenate(values))
