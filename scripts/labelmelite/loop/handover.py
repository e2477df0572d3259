"""How answers leave the server: lines that are only ever appended to files, then `complete.json`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from labelmelite.loop.iteration import Iteration
from segloop.annotation.people import Record
from segloop.annotation.recorded import Reached
from segloop.annotation.verdicts import WORDS
from segloop.data import masks
from segloop.files import atomic_file, sha256_file, write_json

COMPLETE_SCHEMA: Final = 1


def append_lines(path: Path, records: list[Record], key: str) -> int:
    """Append the records that a file does not hold yet; return how many.

    What stands there stays byte by byte, but for a last line that was cut off in the middle: it moves to a file beside
    it, because nobody could read what comes behind it.

    Parameters
    ----------
    key
        The field that names a record.
    """
    content = path.read_bytes() if path.exists() else b""
    whole, cut = content, b""
    if content and not content.endswith(b"\n"):
        whole, _, cut = content.rpartition(b"\n")
        whole += b"\n" if whole else b""
        if _is_json(cut):
            whole, cut = content + b"\n", b""
    known = {json.loads(line)[key] for line in whole.split(b"\n") if line.strip()}
    fresh = [record for record in records if record[key] not in known]
    if not fresh and path.exists() and not cut:
        return 0
    if cut:
        with path.with_name(f"{path.name}.cut").open("ab") as file:
            file.write(cut + b"\n")
    with atomic_file(path) as temporary:
        temporary.write_bytes(whole + b"".join(_line(record) for record in fresh))
    return len(fresh)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _line(record: Record) -> bytes:
    plain: dict[str, Any] = dict(record)
    plain["mask_key"] = record["mask_key"].hex()
    if isinstance(plain.get("segmentation"), dict):
        plain["segmentation"] = masks.to_json(masks.check(plain["segmentation"]))
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def leave_answers(iteration: Iteration, records: list[Record], aside: list[Record]) -> None:
    """Write what was answered so far; the run goes on only once `complete.json` stands beside it."""
    append_lines(iteration.answers / "answers.jsonl", records, "answer_id")
    if aside:
        append_lines(iteration.answers / "set_aside.jsonl", aside, "answer_id")


def complete(iteration: Iteration, reached: Reached, time: str) -> None:
    """Tell the run that the policy has no more questions."""
    verdicts = Counter(WORDS[int(verdict)] for verdict in reached.decision.verdict)
    write_json(
        iteration.answers / "complete.json",
        {
            "schema": COMPLETE_SCHEMA,
            "iteration": iteration.number,
            "policy": iteration.config.annotation.policy,
            "answers": len(reached.rows),
            "answers_sha256": sha256_file(iteration.answers / "answers.jsonl"),
            "verdicts": {word: verdicts.get(word, 0) for word in WORDS.values()},
            "voided_audits": reached.voided,
            "time": time,
        },
        sealed=False,
    )


def reopen(iteration: Iteration) -> None:
    """Take back that everything is answered."""
    (iteration.answers / "complete.json").unlink(missing_ok=True)
