"""Every change of an object is an event; what the objects look like now follows from them.

An event is refused when the state that its sender saw is not the present one, so that of two tabs only one changes an
object, and the other is shown what it looks like now. A repeat, as after a lost acknowledgement, gets the number that
it got the first time. Undo and redo are events themselves.
"""

import json
import sqlite3
from dataclasses import dataclass, replace
from typing import Any, Final

from labelmelite import seals
from labelmelite.clock import iso
from labelmelite.errors import ApiError
from labelmelite.http import field
from segloop.data import masks
from segloop.data.masks import MaskError, Rle

KINDS: Final = ("create", "edit", "delete", "restore", "rename")
MAX_NAME: Final = 200
MAX_SECONDS: Final = 3600.0
SERVER: Final = "loop"
BUNDLE: Final = "bundle "
"""Stand for the client of events that the server makes itself, about tasks of the loop and of bundles."""


class Conflict(ApiError):
    """An event that does not fit the present state, which it carries."""

    def __init__(self, message: str, present: dict[str, Any] | None) -> None:
        super().__init__("conflict", message)
        self.present = present


@dataclass(frozen=True)
class Event:
    """What a client says happened; see docs/labelmelite-api.md."""

    client: str
    client_no: int
    kind: str
    payload: dict[str, Any]
    dataset: int | None = None
    image: int | None = None
    object: str | None = None
    task: str | None = None
    item: str | None = None
    undoes: int | None = None
    redoes: int | None = None
    undoes_no: int | None = None
    redoes_no: int | None = None
    seconds: float | None = None
    tool: str | None = None


def is_reserved(client: str) -> bool:
    """Return whether a name is one of the server's own: a page under it could take a number that the server needs."""
    return client == SERVER or client.startswith(BUNDLE)


def append(connection: sqlite3.Connection, annotator: str, now: float, event: Event) -> int:
    """Write an event to the log and return its number."""
    cursor = connection.execute(
        "INSERT INTO event (annotator, client, client_no, kind, dataset, image, object, task, item, payload, undoes,"
        " redoes, seconds, tool, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            annotator,
            event.client,
            event.client_no,
            event.kind,
            event.dataset,
            event.image,
            event.object,
            event.task,
            event.item,
            json.dumps(event.payload, separators=(",", ":")),
            event.undoes,
            event.redoes,
            event.seconds,
            event.tool,
            iso(now),
        ),
    )
    seq = int(cursor.lastrowid or 0)
    seals.add(connection, seq)
    return seq


def repeated(connection: sqlite3.Connection, annotator: str, client: str, client_no: int) -> int | None:
    """Return the number that an event got when it came the first time."""
    row = connection.execute(
        "SELECT seq FROM event WHERE annotator = ? AND client = ? AND client_no = ?", (annotator, client, client_no)
    ).fetchone()
    return None if row is None else int(row[0])


def accept(connection: sqlite3.Connection, annotator: str, now: float, event: Event) -> int:
    """Apply an event to its object, write it to the log and return its number.

    Raises
    ------
    Conflict
        If the present state is not the one that the event starts from.
    ApiError
        If there is no such image, or the mask is bad.
    """
    known = repeated(connection, annotator, event.client, event.client_no)
    if known is not None:
        return known
    image = _image(connection, event)
    event = _with_references(connection, annotator, event)
    row = connection.execute(
        "SELECT * FROM object WHERE dataset = ? AND id = ?", (event.dataset, event.object)
    ).fetchone()
    if row is not None and row["image"] != event.image:
        raise ApiError("bad_request", f"The object {event.object} belongs to another image.")
    for name, other in (("undoes", event.undoes), ("redoes", event.redoes)):
        _check_reference(connection, event, name, other)
    payload = _apply(connection, event, image, row)
    seq = append(connection, annotator, now, _with_payload(event, payload))
    connection.execute("UPDATE object SET seq = ? WHERE dataset = ? AND id = ?", (seq, event.dataset, event.object))
    connection.execute("UPDATE image SET state = 'started' WHERE id = ? AND state = 'untouched'", (event.image,))
    return seq


def parse(value: Any, client: str) -> Event:
    """Return the event that a request holds.

    Raises
    ------
    ApiError
        If a field is missing or of another kind.
    """
    if not isinstance(value, dict):
        raise ApiError("bad_request", "An event must be a JSON object.")
    kind = field(value, "kind", str)
    if kind not in KINDS:
        raise ApiError("bad_request", f"{kind[:40]!r} is no kind of event; known: {', '.join(KINDS)}.")
    seconds = field(value, "seconds", (int, float), None)
    name, tool = field(value, "object", str), field(value, "tool", str, "")
    if not name or len(name) > 100 or not name.isprintable():
        raise ApiError("bad_request", "The id of an object is text of 1 to 100 characters.")
    if len(tool) > 40 or not tool.isprintable():
        raise ApiError("bad_request", "The name of a tool is text of at most 40 characters.")
    return Event(
        client=client,
        client_no=whole(value, "client_no"),
        kind=kind,
        payload=field(value, "payload", dict),
        dataset=whole(value, "dataset"),
        image=whole(value, "image"),
        object=name,
        undoes=whole(value, "undoes", None),
        redoes=whole(value, "redoes", None),
        undoes_no=whole(value, "undoes_no", None),
        redoes_no=whole(value, "redoes_no", None),
        seconds=None if seconds is None else min(max(float(seconds), 0.0), MAX_SECONDS),
        tool=tool or None,
    )


def whole(value: dict[str, Any], name: str, default: Any = ...) -> Any:
    """Return a field that is a whole number from 0 to 2^53."""
    found = field(value, name, int, default)
    if found is not None and not 0 <= found < 1 << 53:
        raise ApiError("bad_request", f"The field {name!r} is out of range.")
    return found


def present(connection: sqlite3.Connection, dataset: int, name: str) -> dict[str, Any] | None:
    """Return an object as pages see it; None when there is none or it is deleted."""
    row = connection.execute(
        f"{OBJECTS} WHERE object.dataset = ? AND object.id = ? AND deleted = 0", (dataset, name)
    ).fetchone()
    return None if row is None else to_json(row)


OBJECTS: Final = (
    "SELECT object.*, category.number AS category_number, category.name AS category_name"
    " FROM object JOIN category ON category.id = object.category"
)


def to_json(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row of `OBJECTS` as pages see it."""
    return {
        "id": row["id"],
        "category_id": row["category_number"],
        "category": row["category_name"],
        "mask": {"size": [row["height"], row["width"]], "counts": bytes(row["counts"]).decode("ascii")},
        "score": row["score"],
        "seq": row["seq"],
        "provenance": None if row["provenance"] is None else json.loads(row["provenance"]),
    }


def category_row(connection: sqlite3.Connection, dataset: int, name: str) -> int:
    """Return the row of a category by its name; a new name becomes a new category."""
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ApiError("bad_request", f"The name of a category is text of 1 to {MAX_NAME} characters.")
    row = connection.execute("SELECT id FROM category WHERE dataset = ? AND name = ?", (dataset, name)).fetchone()
    if row is not None:
        return int(row["id"])
    top = connection.execute("SELECT max(number) FROM category WHERE dataset = ?", (dataset,)).fetchone()[0]
    cursor = connection.execute(
        "INSERT INTO category (dataset, number, name) VALUES (?, ?, ?)", (dataset, max(top or 0, 0) + 1, name)
    )
    return int(cursor.lastrowid or 0)


def checked_mask(value: Any, size: tuple[int, int]) -> Rle:
    """Return a mask from outside in canonical form.

    Raises
    ------
    ApiError
        `bad_mask`, with what is wrong with it.
    """
    try:
        return masks.check(value, size)
    except MaskError as error:
        raise ApiError("bad_mask", f"The mask {error}.") from None


# --- the kinds, one function each: check the state that the event starts from, then change it


def _apply(connection: sqlite3.Connection, event: Event, image: sqlite3.Row, row: sqlite3.Row | None) -> dict[str, Any]:
    size = (image["height"], image["width"])
    if event.kind == "create":
        return _create(connection, event, size, row)
    if row is None:
        raise Conflict("There is no such object any more.", None)
    if event.kind == "restore":
        return _restore(connection, event, size, row)
    if row["deleted"]:
        raise Conflict("Somebody has deleted this object.", None)
    if event.kind == "rename":
        return _rename(connection, event, row)
    before = checked_mask(event.payload.get("before"), size)
    if before["counts"] != bytes(row["counts"]):
        raise Conflict("Somebody has changed this object.", present(connection, row["dataset"], row["id"]))
    if event.kind == "delete":
        connection.execute("UPDATE object SET deleted = 1 WHERE dataset = ? AND id = ?", (row["dataset"], row["id"]))
        _count(connection, event, -1)
        return {"before": masks.to_json(before)}
    after = _some_mask(event, size)
    _set_mask(connection, row, after)
    return {"before": masks.to_json(before), "after": masks.to_json(after)}


def _create(
    connection: sqlite3.Connection, event: Event, size: tuple[int, int], row: sqlite3.Row | None
) -> dict[str, Any]:
    if row is not None:
        raise Conflict("This object exists already.", present(connection, row["dataset"], row["id"]))
    after = _some_mask(event, size)
    name = field(event.payload, "category", str)
    assert event.dataset is not None
    connection.execute(
        "INSERT INTO object (dataset, id, image, category, height, width, counts) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            event.dataset,
            event.object,
            event.image,
            category_row(connection, event.dataset, name),
            *size,
            after["counts"],
        ),
    )
    _count(connection, event, 1)
    return {"category": " ".join(name.split()), "after": masks.to_json(after)}


def _restore(connection: sqlite3.Connection, event: Event, size: tuple[int, int], row: sqlite3.Row) -> dict[str, Any]:
    if not row["deleted"]:
        raise Conflict("This object is not deleted.", present(connection, row["dataset"], row["id"]))
    after = _some_mask(event, size)
    _set_mask(connection, row, after)
    connection.execute("UPDATE object SET deleted = 0 WHERE dataset = ? AND id = ?", (row["dataset"], row["id"]))
    _count(connection, event, 1)
    return {"after": masks.to_json(after)}


def _rename(connection: sqlite3.Connection, event: Event, row: sqlite3.Row) -> dict[str, Any]:
    before, after = field(event.payload, "before", str), field(event.payload, "after", str)
    found = present(connection, row["dataset"], row["id"])
    if found is None or found["category"] != before:
        raise Conflict("Somebody has renamed this object.", found)
    connection.execute(
        "UPDATE object SET category = ? WHERE dataset = ? AND id = ?",
        (category_row(connection, row["dataset"], after), row["dataset"], row["id"]),
    )
    return {"before": before, "after": " ".join(after.split())}


def _some_mask(event: Event, size: tuple[int, int]) -> Rle:
    after = checked_mask(event.payload.get("after"), size)
    if int(masks.area([after])[0]) == 0:
        raise ApiError("bad_mask", "The mask is empty. Delete the object instead.")
    return after


def _set_mask(connection: sqlite3.Connection, row: sqlite3.Row, mask: Rle) -> None:
    connection.execute(
        "UPDATE object SET counts = ? WHERE dataset = ? AND id = ?", (mask["counts"], row["dataset"], row["id"])
    )


def _count(connection: sqlite3.Connection, event: Event, more: int) -> None:
    connection.execute("UPDATE image SET objects = objects + ? WHERE id = ?", (more, event.image))


def _image(connection: sqlite3.Connection, event: Event) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM image WHERE id = ? AND dataset = ?", (event.image, event.dataset)
    ).fetchone()
    if row is None:
        raise ApiError("not_found", "There is no such image.")
    if row["width"] is None:
        raise ApiError("bad_request", "The size of this image is not known yet; open it first.")
    return row


def _with_references(connection: sqlite3.Connection, annotator: str, event: Event) -> Event:
    """Name undone and redone events by their numbers in the log; offline a client knows its own numbers alone."""
    numbers = {"undoes": event.undoes_no, "redoes": event.redoes_no}
    found: dict[str, Any] = {
        name: repeated(connection, annotator, event.client, number)
        for name, number in numbers.items()
        if number is not None and getattr(event, name) is None
    }
    return replace(event, **found)


def _check_reference(connection: sqlite3.Connection, event: Event, name: str, other: int | None) -> None:
    if other is None:
        return
    row = connection.execute("SELECT dataset, object FROM event WHERE seq = ?", (other,)).fetchone()
    if row is None or (row["dataset"], row["object"]) != (event.dataset, event.object):
        raise ApiError("bad_request", f"{name} names no event of this object.")


def _with_payload(event: Event, payload: dict[str, Any]) -> Event:
    return replace(event, payload=payload)
