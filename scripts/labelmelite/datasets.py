"""What the pages ask of the data sets in the database."""

import json
import sqlite3
from typing import Any, Final

from labelmelite import events
from labelmelite.errors import ApiError

STATES: Final = ("untouched", "started", "finished")


def listed(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return all data sets with their progress."""
    rows = connection.execute(
        "SELECT dataset.id, name, kind, count(image.id) AS images, coalesce(sum(objects), 0) AS objects,"
        " coalesce(sum(state = 'finished'), 0) AS finished"
        " FROM dataset LEFT JOIN image ON image.dataset = dataset.id WHERE ready = 1 GROUP BY dataset.id"
    )
    return [dict(row) for row in rows]


def row_of(connection: sqlite3.Connection, dataset: int) -> sqlite3.Row:
    """Return the row of a data set."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM dataset WHERE id = ? AND ready = 1", (dataset,)
    ).fetchone()
    if row is None:
        raise ApiError("not_found", "There is no such data set.")
    return row


def image_row(connection: sqlite3.Connection, dataset: int, image: int) -> sqlite3.Row:
    """Return the row of an image, with the root of its data set."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT image.*, root FROM image JOIN dataset ON dataset.id = dataset"
        " WHERE image.id = ? AND dataset = ? AND ready = 1",
        (image, dataset),
    ).fetchone()
    if row is None:
        raise ApiError("not_found", "There is no such image.")
    return row


def categories(connection: sqlite3.Connection, dataset: int) -> list[dict[str, Any]]:
    """Return the categories of a data set with the number of their objects."""
    row_of(connection, dataset)
    rows = connection.execute(
        "SELECT number AS id, name, definition,"
        " (SELECT count(*) FROM object WHERE category = category.id AND deleted = 0) AS objects"
        " FROM category WHERE dataset = ? ORDER BY name",
        (dataset,),
    )
    return [dict(row) for row in rows]


def images(
    connection: sqlite3.Connection,
    dataset: int,
    *,
    offset: int,
    limit: int,
    category: int | None,
    text: str,
    state: str,
) -> dict[str, Any]:
    """Return one page of the images that a filter leaves."""
    row_of(connection, dataset)
    where, values = _filter(dataset, category, text, state)
    total = connection.execute(f"SELECT count(*) FROM image WHERE {where}", values).fetchone()[0]
    rows = connection.execute(
        f"SELECT id, file_name, width, height, objects, state FROM image WHERE {where} ORDER BY id LIMIT ? OFFSET ?",
        (*values, limit, offset),
    )
    return {"total": total, "images": [dict(row) for row in rows]}


def _filter(dataset: int, category: int | None, text: str, state: str) -> tuple[str, list[Any]]:
    where, values = ["dataset = ?"], [dataset]
    parts: list[Any] = values
    if category is not None:
        where.append(
            "id IN (SELECT image FROM object WHERE deleted = 0 AND category ="
            " (SELECT id FROM category WHERE dataset = ? AND number = ?))"
        )
        parts += [dataset, category]
    if text:
        where.append("file_name LIKE ? ESCAPE '!'")
        for special in "!%_":
            text = text.replace(special, f"!{special}")
        parts.append(f"%{text}%")
    if state:
        if state not in STATES:
            raise ApiError("bad_request", f"The state of an image is one of {', '.join(STATES)}.")
        where.append("state = ?")
        parts.append(state)
    return " AND ".join(where), parts


def image(connection: sqlite3.Connection, dataset: int, number: int) -> dict[str, Any]:
    """Return an image with its objects and its neighbours."""
    row = image_row(connection, dataset, number)
    beside = connection.execute(
        "SELECT (SELECT max(id) FROM image WHERE dataset = ? AND id < ?),"
        " (SELECT min(id) FROM image WHERE dataset = ? AND id > ?)",
        (dataset, number, dataset, number),
    ).fetchone()
    rows = connection.execute(
        f"{events.OBJECTS} WHERE object.image = ? AND deleted = 0 ORDER BY length(object.id), object.id", (number,)
    )
    return {
        **{key: row[key] for key in ("id", "file_name", "width", "height", "state")},
        "previous": beside[0],
        "next": beside[1],
        "objects": [events.to_json(one) for one in rows],
    }


def image_events(connection: sqlite3.Connection, dataset: int, number: int) -> list[dict[str, Any]]:
    """Return the events of an image, in order."""
    image_row(connection, dataset, number)
    rows = connection.execute(
        "SELECT seq, annotator, client, client_no, kind, object, payload, undoes, redoes, seconds, tool, time"
        " FROM event WHERE image = ? ORDER BY seq",
        (number,),
    )
    return [{**dict(row), "payload": json.loads(row["payload"])} for row in rows]


def set_state(connection: sqlite3.Connection, dataset: int, number: int, state: str) -> None:
    """Say how far the work on an image is."""
    if state not in STATES:
        raise ApiError("bad_request", f"The state of an image is one of {', '.join(STATES)}.")
    image_row(connection, dataset, number)
    connection.execute("UPDATE image SET state = ? WHERE id = ?", (state, number))


def set_size(connection: sqlite3.Connection, number: int, width: int, height: int) -> None:
    """Put down the size of an image, once it is known."""
    connection.execute("UPDATE image SET width = ?, height = ? WHERE id = ? AND width IS NULL", (width, height, number))
