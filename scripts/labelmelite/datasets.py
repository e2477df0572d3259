"""Data sets in the database: how they come in from a source, and what the pages ask of them."""

import json
import sqlite3
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from labelmelite import events
from labelmelite.errors import ApiError
from labelmelite.sources.base import Object, Source
from labelmelite.store import Store

_BATCH: Final = 1000
STATES: Final = ("untouched", "started", "finished")


def import_source(store: Store, source: Source) -> int:
    """Read a source into the database, unless it is there already, and return the number of the data set.

    Rows go in small groups, so that answers of people who work meanwhile are not held up; the data set appears once it
    is whole. A set whose file has changed since is read again when nobody has changed anything in it, else it stays.
    """
    known = store.read_now(lambda c: c.execute("SELECT * FROM dataset WHERE source = ?", (source.key,)).fetchone())
    if known is not None and known["ready"]:
        if known["fingerprint"] == source.fingerprint or _touched(store, known["id"]):
            return int(known["id"])
    if known is not None:
        _remove(store, known["id"])
    now = store.clock.now()
    dataset: int = store.write_now(
        lambda c: (
            c.execute(
                "INSERT INTO dataset (name, kind, source, fingerprint, root, info, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (source.name, source.kind, source.key, source.fingerprint, source.root, json.dumps(source.info()), now),
            ).lastrowid
        )
    )
    categories: dict[int, int] = {}
    images: dict[int, int] = {}
    for category in source.categories():
        categories[category.number] = store.write_now(
            lambda c, one=category: (
                c.execute(
                    "INSERT INTO category (dataset, number, name, definition) VALUES (?, ?, ?, ?)",
                    (dataset, one.number, one.name, one.definition),
                ).lastrowid
            )
        )
    for batch in _batches(source.images()):
        rows = [(dataset, one.number, one.file_name, one.width, one.height) for one in batch]
        numbers = store.write_now(lambda c, rows=rows: _insert_images(c, rows))
        images |= dict(zip((one.number for one in batch), numbers, strict=True))
    for objects in _batches(source.objects()):
        values = [_object_row(dataset, one, images, categories) for one in objects]
        store.write_now(lambda c, values=values: c.executemany(_INSERT_OBJECT, values) and None)
    store.write_now(lambda c: _finish(c, dataset))
    return dataset


_INSERT_OBJECT: Final = (
    "INSERT INTO object (dataset, id, image, category, height, width, counts, crowd, score, provenance)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _insert_images(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> list[int]:
    sql = "INSERT INTO image (dataset, number, file_name, width, height) VALUES (?, ?, ?, ?, ?)"
    return [int(connection.execute(sql, row).lastrowid or 0) for row in rows]


def _object_row(dataset: int, one: Object, images: dict[int, int], categories: dict[int, int]) -> tuple[Any, ...]:
    height, width = one.mask["size"]
    provenance = None if one.provenance is None else json.dumps(one.provenance)
    return (
        *(dataset, one.id, images[one.image], categories[one.category], height, width, one.mask["counts"]),
        *(int(one.crowd), one.score, provenance),
    )


def _finish(connection: sqlite3.Connection, dataset: int) -> None:
    connection.execute(
        "UPDATE image SET objects = (SELECT count(*) FROM object WHERE object.image = image.id AND deleted = 0)"
        " WHERE dataset = ?",
        (dataset,),
    )
    connection.execute("UPDATE dataset SET ready = 1 WHERE id = ?", (dataset,))


def _touched(store: Store, dataset: int) -> bool:
    found: bool = store.read_now(
        lambda c: c.execute("SELECT 1 FROM event WHERE dataset = ? LIMIT 1", (dataset,)).fetchone() is not None
    )
    return found


def _remove(store: Store, dataset: int) -> None:
    def remove(connection: sqlite3.Connection) -> None:
        for table in ("object", "image", "category"):
            connection.execute(f"DELETE FROM {table} WHERE dataset = ?", (dataset,))
        connection.execute("DELETE FROM dataset WHERE id = ?", (dataset,))

    store.write_now(remove)


def _batches(values: Iterable[Any]) -> Iterable[list[Any]]:
    iterator = iter(values)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


# --- what pages ask


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
