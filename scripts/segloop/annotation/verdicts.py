"""Verdicts on disk: one row for every prediction of the index, in its order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segloop.annotation.tables import read_table, write_table
from segloop.errors import SegloopError

ACCEPTED: Final = 1
REJECTED: Final = -1
UNDECIDED: Final = 0
WORDS: Final = {ACCEPTED: "accepted", REJECTED: "rejected", UNDECIDED: "undecided"}

REASONS: Final = ("", "answered", "cluster", "prefix", "edited", "duplicate")
"""Why a verdict is what it is; the first stands for "no reason", null on disk."""

NO_REASON: Final = REASONS.index("")
ANSWERED: Final = REASONS.index("answered")
CLUSTER: Final = REASONS.index("cluster")
PREFIX: Final = REASONS.index("prefix")
EDITED: Final = REASONS.index("edited")
DUPLICATE: Final = REASONS.index("duplicate")

VERDICT_SCHEMA: Final = pa.schema(
    [
        ("prediction", pa.uint64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("node", pa.int64()),
        ("certificate_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class Verdicts:
    """Columns of verdicts.parquet, ascending by prediction id (the order of the index).

    Attributes
    ----------
    prediction : uint64 [N]
    verdict : int8 [N]
        `ACCEPTED` 1, `REJECTED` -1, `UNDECIDED` 0; words on disk.
    reason : int8 [N]
        Position in `REASONS`; words on disk.
    node : int64 [N]
        The node whose decision or question gave the verdict; -1 for none (null on disk).
    certificate : int16 [N]
        Position in `certificate_ids` of the audit that the mask was accepted with; -1 for none (null on disk).
    certificate_ids
        Names of the audits; names on disk.
    """

    prediction: npt.NDArray[np.uint64]
    verdict: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int8]
    node: npt.NDArray[np.int64]
    certificate: npt.NDArray[np.int16]
    certificate_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prediction)


def write_verdicts(path: Path, verdicts: Verdicts) -> None:
    """Write verdicts.parquet, whole or not at all.

    Raises
    ------
    ValueError
        If the predictions do not ascend.
    """
    if np.any(verdicts.prediction[1:] <= verdicts.prediction[:-1]):
        raise ValueError("verdicts must be in ascending order of their predictions, each once")
    order = (ACCEPTED, REJECTED, UNDECIDED)
    place = np.zeros(3, np.int8)
    place[[value + 1 for value in order]] = np.arange(3)
    words = pa.DictionaryArray.from_arrays(
        pa.array(place[verdicts.verdict + 1]), pa.array([WORDS[value] for value in order])
    )
    reasons = pa.DictionaryArray.from_arrays(
        pa.array(verdicts.reason, mask=verdicts.reason == NO_REASON), pa.array(REASONS)
    )
    table = pa.table(
        {
            "prediction": pa.array(verdicts.prediction),
            "verdict": words.cast(pa.string()),
            "reason": reasons.cast(pa.string()),
            "node": pa.array(verdicts.node, mask=verdicts.node < 0),
            "certificate_id": _names(verdicts),
        },
        schema=VERDICT_SCHEMA,
    )
    write_table(path, table)


def _names(verdicts: Verdicts) -> pa.Array:
    if not verdicts.certificate_ids:
        return pa.nulls(len(verdicts), pa.string())
    places = pa.array(verdicts.certificate, mask=verdicts.certificate < 0)
    return pa.DictionaryArray.from_arrays(places, pa.array(verdicts.certificate_ids)).cast(pa.string())


def read_verdicts(path: Path) -> Verdicts:
    """Read verdicts.parquet.

    Raises
    ------
    SegloopError
        If the file is missing, damaged, of another layout, or holds an unknown word.
    """
    table = read_table(path, VERDICT_SCHEMA)
    encoded = table.column("certificate_id").combine_chunks().dictionary_encode()
    return Verdicts(
        prediction=table.column("prediction").to_numpy().astype(np.uint64),
        verdict=_numbers(table, "verdict", {word: value for value, word in WORDS.items()}, path),
        reason=_numbers(table, "reason", {word: place for place, word in enumerate(REASONS)}, path),
        node=table.column("node").fill_null(-1).to_numpy().astype(np.int64),
        certificate=encoded.indices.fill_null(-1).to_numpy().astype(np.int16),
        certificate_ids=tuple(encoded.dictionary.to_pylist()),
    )


def _numbers(table: pa.Table, column: str, known: dict[str, int], path: Path) -> npt.NDArray[np.int8]:
    # Words are turned into numbers once a distinct word, not once a row.
    encoded = table.column(column).fill_null("").combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    unknown = [word for word in words if word not in known]
    if unknown:
        raise SegloopError(f"{path} holds the {column} {unknown[0]!r}, which is none of {', '.join(known)}.")
    values = np.array([known[word] for word in words], dtype=np.int8)
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return values[codes] if len(values) else np.zeros(len(table), np.int8)
