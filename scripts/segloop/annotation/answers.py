"""Answers: one reply to one question by one annotator, on disk and as policies see them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segloop.annotation.tables import read_table, write_table
from segloop.config import NoReason
from segloop.errors import SegloopError
from segloop.files import other_version

YES: Final = 1
NO: Final = -1
OTHER: Final = 0
REPLIES: Final = {YES: "yes", NO: "no", OTHER: "other"}
"""Replies by number. `other` means "not part of this cluster": it counts in neither yes nor all."""

PURPOSES: Final = ("decide", "pilot", "calibrate", "audit", "gold", "repeat")
"""What a question was asked for."""

COUNTED_PURPOSES: Final = ("decide", "pilot", "calibrate", "audit")
"""Purposes whose answers say something about a mask; `gold` and `repeat` measure the annotator instead."""

NOT_PART: Final = "not_part_of_cluster"
NO_REASONS: Final[tuple[str, ...]] = get_args(NoReason)
REASONS: Final = {"yes": (), "no": NO_REASONS, "other": (NOT_PART,)}
"""Why a mask was answered as it was, by reply; an answer need not say why."""

RECORD_SCHEMA: Final = 1

ANSWER_SCHEMA: Final = pa.schema(
    [
        ("schema", pa.int32()),
        ("answer_id", pa.string()),
        ("prediction", pa.uint64()),
        ("mask_key", pa.binary(32)),
        ("annotator", pa.string()),
        ("purpose", pa.string()),
        ("reply", pa.string()),
        ("reason", pa.string()),
        ("t_iou", pa.float64()),
        ("text_version", pa.string()),
        ("layout", pa.string()),
        ("default_used", pa.bool_()),
        ("node", pa.int64()),
        ("draw", pa.int64()),
        ("batch", pa.int64()),
        ("seconds", pa.float64()),
        ("price", pa.float64()),
        ("time", pa.string()),
        ("counted_at", pa.list_(pa.int64())),
    ]
)
"""Columns of answers.parquet: the answer record of the architecture and, last, `counted_at`.

`annotator` is an id: names stand apart (`segloop.annotation.people`). `node`, `draw`, `reason`, `time` are null where
there is none. `counted_at` lists every node whose decision counted this answer: the node that asked, and those that
drew the mask again and took the known answer instead of paying twice.
"""


@dataclass(frozen=True)
class Answers:
    """Answers as a policy sees them, in the order in which they were given.

    Attributes
    ----------
    prediction : uint64 [A]
        What was asked about.
    reply : int8 [A]
        `YES`, `NO` or `OTHER`.
    node : int64 [A]
        The node of the present tree that asked; -1 if none did (asked one by one, or on an earlier tree).
    purpose : int8 [A]
        Position in `PURPOSES`.
    """

    prediction: npt.NDArray[np.uint64]
    reply: npt.NDArray[np.int8]
    node: npt.NDArray[np.int64]
    purpose: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.prediction)

    @staticmethod
    def none() -> "Answers":
        """Return no answers."""
        return Answers(np.zeros(0, np.uint64), np.zeros(0, np.int8), np.zeros(0, np.int64), np.zeros(0, np.int8))

    @staticmethod
    def join(parts: list["Answers"]) -> "Answers":
        """Return the answers of all parts, one part after the other."""
        if not parts:
            return Answers.none()
        return Answers(
            np.concatenate([part.prediction for part in parts]),
            np.concatenate([part.reply for part in parts]),
            np.concatenate([part.node for part in parts]),
            np.concatenate([part.purpose for part in parts]),
        )

    def select(self, kept: npt.NDArray[np.bool_]) -> "Answers":
        """Return some of the answers, in their order; `kept` is bool [A]."""
        return Answers(self.prediction[kept], self.reply[kept], self.node[kept], self.purpose[kept])

    @staticmethod
    def from_table(table: pa.Table) -> "Answers":
        """Return what policies need of a table with `ANSWER_SCHEMA`.

        Raises
        ------
        SegloopError
            If a reply or a purpose is none of the known words.
        """
        replies = _codes(table, "reply", {word: number for number, word in REPLIES.items()})
        purposes = _codes(table, "purpose", {word: number for number, word in enumerate(PURPOSES)})
        return Answers(
            prediction=table.column("prediction").to_numpy().astype(np.uint64),
            reply=replies,
            node=table.column("node").fill_null(-1).to_numpy().astype(np.int64),
            purpose=purposes,
        )


def _codes(table: pa.Table, column: str, numbers: dict[str, int]) -> npt.NDArray[np.int8]:
    words = table.column(column).to_pylist()
    unknown = sorted({str(word) for word in words if word not in numbers})
    if unknown:
        raise SegloopError(
            f"answers hold the {column} {unknown[0]!r}, which is none of {', '.join(numbers)}. Mend that record."
        )
    return np.array([numbers[word] for word in words], dtype=np.int8)


def answer_id(mask_key: bytes, annotator: str, purpose: str, iteration: int, number: int = 0) -> str:
    """Return the name of an answer, 32 hexadecimal digits, a function of what was asked of whom.

    Parameters
    ----------
    mask_key
        32 bytes.
    number
        How many answers this annotator gave on this mask for this purpose in this iteration before.
    """
    digest = hashlib.sha256(mask_key)
    digest.update(f"\x1f{annotator}\x1f{purpose}\x1f{iteration}\x1f{number}".encode())
    return digest.hexdigest()[:32]


def write_answers(path: Path, table: pa.Table) -> None:
    """Write answers.parquet; the table has the columns of `ANSWER_SCHEMA`."""
    write_table(path, table.cast(ANSWER_SCHEMA))


def read_answers(path: Path) -> pa.Table:
    """Read answers.parquet.

    Raises
    ------
    SegloopError
        If the file is missing, damaged or of another layout.
    """
    table = read_table(path, ANSWER_SCHEMA)
    versions = [one for one in table.column("schema").unique().to_pylist() if one not in (None, RECORD_SCHEMA)]
    if versions:
        raise SegloopError(other_version(path, versions[0], RECORD_SCHEMA))
    return table
