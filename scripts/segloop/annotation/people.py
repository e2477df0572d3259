"""What people leave on disk: their answers, the truth of gold masks, and who they are.

The folder `annotation.answers_root` holds `iter_{i}/answers.jsonl`, `edits.jsonl` and `redraws.jsonl` beside it,
to which lines are only ever appended, `gold.json`, and `annotators.json`, the one place where a name stands.
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segloop.annotation.answers import (
    ANSWER_SCHEMA,
    COUNTED_PURPOSES,
    PURPOSES,
    REASONS,
    RECORD_SCHEMA,
    REPLIES,
    Answers,
)
from segloop.annotation.quality import combine_votes
from segloop.annotation.world import World
from segloop.errors import SegloopError
from segloop.files import read_json, sha256_file, write_json

logger = logging.getLogger("segloop.annotation")

Integers = npt.NDArray[np.int64]

NAMES: Final = "annotators.json"
COMPLETE: Final = "complete.json"
Record = dict[str, Any]

_REQUIRED: Final = ("answer_id", "prediction", "mask_key", "annotator", "purpose", "reply")


def read_records(path: Path) -> list[Record]:
    """Read answer records from a file with one JSON object a line; the file is left as it is.

    A last line that was cut off in the middle, as by a full disk, is reported and left aside. A record that stands
    there twice, as after a second import of the same batch, counts once.

    Returns
    -------
    Records with the columns of `ANSWER_SCHEMA` but `counted_at`; missing optional fields are None, `mask_key` is bytes.

    Raises
    ------
    SegloopError
        If a line is no valid record, or two answers have one id; the message names file and line.
    """
    return read_log(path, _record, "answer_id")


def check_complete(answers: Path) -> None:
    """Refuse answers that are not those that `complete.json` beside them vouches for.

    LabelMeLite writes there the SHA-256 of the answers; a `complete.json` of other hands need not hold any.

    Raises
    ------
    SegloopError
        If the bytes differ.
    """
    path = answers.with_name(COMPLETE)
    complete = read_json(path) if path.exists() else None
    wanted = complete.get("answers_sha256") if isinstance(complete, dict) else None
    if wanted is not None and answers.exists() and sha256_file(answers) != wanted:
        raise SegloopError(
            f"{answers} has changed since {path.name} was written beside it: it is damaged, or somebody edited it. "
            f"Restore it from a copy; if the change was meant, take answers_sha256 out of {path.name}."
        )


def read_log(path: Path, parse: Callable[[bytes, str], Record], key: str) -> list[Record]:
    """Read records that people appended to a file, one JSON object a line; see `read_records`.

    Parameters
    ----------
    parse
        Turns a line into a record; it is told where the line stands, for its errors.
    key
        The field of a record that names it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SegloopError(f"{path} cannot be read ({error}). Check the path annotation.answers_root.") from None
    lines = list(enumerate(content.split(b"\n"), start=1))
    if _is_cut_off(lines[-1][1]):
        number, fragment = lines.pop()
        logger.warning("%s ends in the middle of line %d (%d bytes): it is left aside", path, number, len(fragment))
    records: dict[str, Record] = {}
    first: dict[str, int] = {}
    for number, line in lines:
        if not line.strip():
            continue
        record = parse(line, f"{path}, line {number}")
        name = record[key]
        if records.setdefault(name, record) != record:
            raise SegloopError(
                f"{path}, line {number} holds another answer with the id {name} of line {first[name]}. "
                "Give one of them an id of its own."
            )
        first.setdefault(name, number)
    return list(records.values())


def _is_cut_off(line: bytes) -> bool:
    """Return whether a last line, which no newline ends, is no JSON; a writer ends a record with a newline."""
    if not line.strip():
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    except RecursionError:  # brackets without end are no fragment of a record: reading the line says so
        return False
    return False


def _record(line: bytes, where: str) -> Record:
    given = read_line(line, where, _REQUIRED)
    record = {name: given.get(name) for name in ANSWER_SCHEMA.names if name != "counted_at"}
    try:
        record["mask_key"] = bytes.fromhex(given["mask_key"])
        record["prediction"] = int(given["prediction"])
        pa.Table.from_pylist([record], schema=ANSWER_SCHEMA)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise SegloopError(f"{where} is no answer record ({error}). Mend or remove that line.") from None
    _check_words(record, where)
    check_spent(record, where)
    return record


def read_line(line: bytes, where: str, required: tuple[str, ...]) -> Record:
    """Return the JSON object on a line, which has all of `required`; an error says where it stands."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SegloopError(f"{where} is not valid JSON ({error}). Mend or remove that line.") from None
    if not isinstance(given, dict):
        raise SegloopError(f"{where} is not a JSON object. Mend or remove that line.")
    version = given.get("schema")
    if version is not None and version != RECORD_SCHEMA:
        raise SegloopError(
            f"{where} has schema version {version!r}, this segloop reads version {RECORD_SCHEMA}. Go on with the "
            "segloop that wrote these answers."
        )
    missing = [name for name in required if given.get(name) is None]
    if missing:
        raise SegloopError(f"{where} lacks {', '.join(missing)}. Mend or remove that line.")
    return given


def check_spent(record: Record, where: str) -> None:
    """Refuse times and prices that nobody can spend."""
    for name in ("seconds", "price"):
        spent = record[name]
        if spent is not None and not 0 <= float(spent) < math.inf:
            raise SegloopError(f"{where}: {name} is {spent}, which nobody can spend. Mend that line.")


def _check_words(record: Record, where: str) -> None:
    reply, purpose, reason = record["reply"], record["purpose"], record["reason"]
    if reply not in REPLIES.values() or purpose not in PURPOSES:
        raise SegloopError(
            f"{where}: reply {reply!r} or purpose {purpose!r} is unknown; replies are "
            f"{', '.join(REPLIES.values())}, purposes {', '.join(PURPOSES)}. Mend that line."
        )
    if reason is not None and reason not in REASONS[reply]:
        known = ", ".join(REASONS[reply]) or "none"
        raise SegloopError(f"{where}: {reason!r} is no reason of the reply {reply}; known: {known}. Mend that line.")


def policy_answers(records: list[Record], rows: Integers, world: World, votes: int) -> Answers:
    """Return what the records say about masks of the world, as a policy sees it: one answer a question.

    A question is a mask and a purpose; one of an audit counts as answered once `votes` annotators have answered. The
    node of a record means something on the tree it was asked on only; a record of another prediction id comes from
    another run or iteration, so that its answer counts as one from outside the tree.
    """
    numbers = {word: number for number, word in REPLIES.items()}
    kept = [
        (record, row)
        for record, row in zip(records, rows.tolist(), strict=True)
        if row >= 0 and record["purpose"] in COUNTED_PURPOSES
    ]
    people = {name: number for number, name in enumerate(sorted({record["annotator"] for record, _ in kept}))}
    row = np.array([row for _, row in kept], np.int64)
    purpose = np.array([PURPOSES.index(record["purpose"]) for record, _ in kept], np.int8)
    asked, question = np.unique(row * len(PURPOSES) + purpose, return_inverse=True)
    place, reply = combine_votes(
        question.astype(np.int64),
        np.array([people[record["annotator"]] for record, _ in kept], np.int64),
        np.array([numbers[record["reply"]] for record, _ in kept], np.int8),
        np.where(asked % len(PURPOSES) == PURPOSES.index("audit"), votes, 1),
    )
    return Answers(
        prediction=world.prediction[row[place]],
        reply=reply,
        node=np.array([_node(kept[number][0], kept[number][1], world) for number in place.tolist()], np.int64),
        purpose=purpose[place],
    )


def _node(record: Record, row: int, world: World) -> int:
    nodes = 0 if world.tree is None else len(world.tree.size)
    node = record["node"]
    same = record["prediction"] == int(world.prediction[row])
    return node if same and node is not None and 0 <= node < nodes else -1


def read_gold(path: Path | None) -> dict[bytes, bool]:
    """Read gold.json, which says of some masks whether they are good; nothing without a file.

    Parameters
    ----------
    path
        A JSON object of mask keys (64 hexadecimal digits) and `yes` or `no`.

    Raises
    ------
    SegloopError
        If the file is damaged.
    """
    if path is None:
        return {}
    given = read_json(path)
    try:
        gold = {bytes.fromhex(key): {"yes": True, "no": False}[reply] for key, reply in given.items()}
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise SegloopError(f"{path} does not map mask keys to yes or no ({error}). Mend that entry.") from None
    wrong = next((key for key in gold if len(key) != 32), None)
    if wrong is not None:
        raise SegloopError(f"{path}: {wrong.hex()} is no mask key of 64 hexadecimal digits. Mend that entry.")
    return gold


def read_names(answers: Path) -> dict[str, str]:
    """Return the names of annotators by their ids; nothing without a table.

    Parameters
    ----------
    answers
        The folder of people's answers.

    Raises
    ------
    SegloopError
        If the table is damaged.
    """
    path = answers / NAMES
    if not path.exists():
        return {}
    names = read_json(path)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise SegloopError(f"{path} does not map ids to names. Mend it.")
    return names


def write_name(answers: Path, annotator: str, name: str) -> None:
    """Put down who an annotator is. Answers hold the id alone, which therefore must not be a name."""
    write_json(answers / NAMES, read_names(answers) | {annotator: name}, sealed=False)


def forget_annotator(answers: Path, annotator: str) -> None:
    """Remove a person's name from the table; the answers stay, given by somebody unknown.

    Raises
    ------
    SegloopError
        If the table has no such id.
    """
    names = read_names(answers)
    if names.pop(annotator, None) is None:
        raise SegloopError(f"{answers / NAMES} holds no annotator {annotator!r}. Check the id and --answers.")
    write_json(answers / NAMES, names, sealed=False)
