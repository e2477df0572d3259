"""What `segloop forget` does in a database of LabelMeLite: the name goes, the answers stay."""

import json
import sqlite3
from pathlib import Path

from labelmelite.crowd.pay import FILE as PAY
from labelmelite.schema import APPLICATION
from labelmelite.store import FILE
from segloop.errors import SegloopError
from segloop.files import atomic_file


def forget(folder: Path, annotator: str) -> bool:
    """Remove a person's name and platform id; return whether there was one.

    Parameters
    ----------
    folder
        Of the database. A server may be running on it.

    Raises
    ------
    SegloopError
        If the database cannot be changed now.
    """
    path = folder / FILE
    if not path.exists():
        return False
    connection = sqlite3.connect(path, isolation_level=None, timeout=20)
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            return False
        connection.execute("PRAGMA secure_delete = 1")
        named = connection.execute("DELETE FROM name WHERE annotator = ?", (annotator,)).rowcount
        hidden = connection.execute(
            "UPDATE annotator SET outside = NULL WHERE id = ? AND outside IS NOT NULL", (annotator,)
        ).rowcount
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        raise SegloopError(f"{path} cannot be changed now ({error}). End the server that runs on it first.") from None
    finally:
        connection.close()
    listed = _leave_out(folder / PAY, annotator)
    return bool(named or hidden or listed)


def _leave_out(path: Path, annotator: str) -> bool:
    """Write the pay list again without somebody."""
    if not path.exists():
        return False
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not _is_about(line, annotator)]
    if len(kept) < len(lines):
        with atomic_file(path) as temporary:
            temporary.touch(0o600)
            temporary.write_text("".join(kept), encoding="utf-8")
    return len(kept) < len(lines)


def _is_about(line: str, annotator: str) -> bool:
    try:
        return bool(json.loads(line)["annotator"] == annotator)
    except (ValueError, KeyError, TypeError):
        return False
