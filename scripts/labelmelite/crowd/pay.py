"""Who is paid what. Platform ids stand in a file of their own, apart from the answers, and nowhere else."""

import csv
import io
import json
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from labelmelite.clock import iso
from labelmelite.errors import ApiError
from labelmelite.security import Person, Visitor

logger = logging.getLogger("labelmelite")

FILE: Final = "pay.jsonl"
MOST_ANSWER: Final = 120.0
MOST_DRAWING: Final = 900.0
"""Seconds of one answer, and of one change of a mask, beyond which no time is paid: the clock is the person's."""

_SPENT: Final = (
    "SELECT annotator, task, count(*) AS events,"
    " min(max(seconds), iif(max(json_extract(payload, '$.reply')) IS NULL, ?, ?)) AS seconds"
    " FROM event WHERE seconds IS NOT NULL GROUP BY annotator, task, item, iif(item IS NULL, seq, 0)"
)
"""Each answer to an item says how long the item took in all; changes of objects took their times one by one."""


def note(folder: Path, now: float, person: Person, kind: str, visitor: Visitor) -> None:
    """Put down that somebody came, under the platform's id; the file is for its owner alone."""
    if person.preview:
        return
    line = {
        "time": iso(now),
        "annotator": person.id,
        "adapter": kind,
        "worker": visitor.id,
        "study": visitor.kept.get("study", ""),
        "submission": visitor.kept.get("submission", ""),
    }
    try:
        descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ApiError("storage", f"The pay list could not be written ({error.strerror}). Try again.") from None


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what the pay list says of each annotator; a line that was cut off is left aside."""
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return found
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            if not all(isinstance(line[name], str) for name in ("annotator", "worker", "submission")):
                raise TypeError
            found.setdefault(line["annotator"], []).append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            logger.warning("%s, line %d is damaged and left aside", folder / FILE, number)
    return found


def table(connection: sqlite3.Connection, people: dict[str, list[dict[str, Any]]], wage: float) -> str:
    """Return the pay list as CSV: answers and changes, hours, and dollars at a wage.

    Parameters
    ----------
    wage
        US dollars an hour.
    """
    rows = connection.execute(
        "SELECT annotator.id, adapter, name, coalesce(sum(events), 0) AS events,"
        " coalesce(sum(spent.seconds), 0) AS seconds, count(DISTINCT task) AS tasks"
        " FROM annotator LEFT JOIN name ON name.annotator = annotator.id"
        f" LEFT JOIN ({_SPENT}) AS spent ON spent.annotator = annotator.id"
        " GROUP BY annotator.id ORDER BY annotator.created",
        (MOST_DRAWING, MOST_ANSWER),
    )
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["annotator", "name", "adapter", "worker", "submissions", "tasks", "events", "hours", "dollars"])
    for row in rows:
        visits = people.get(row["id"], [])
        submissions = dict.fromkeys(visit["submission"] for visit in visits if visit["submission"])
        hours = row["seconds"] / 3600
        writer.writerow(
            [
                row["id"],
                _cell(row["name"] or ""),
                row["adapter"],
                _cell(visits[0]["worker"] if visits else ""),
                _cell(" ".join(submissions)),
                row["tasks"],
                row["events"],
                f"{hours:.4f}",
                f"{hours * wage:.2f}",
            ]
        )
    return text.getvalue()


def _cell(text: str) -> str:
    # Spreadsheets run cells that begin so as formulas.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
