"""A data set as a COCO file: what people see now, with where each mask comes from."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from labelmelite import datasets, events
from segloop.data import masks

_BLOCK: Final = 500


class Export:
    """Writes a data set piece by piece, so that a large one needs little memory.

    Every piece is read by itself, between the changes of people who work meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, dataset: int) -> None:
        row = datasets.row_of(connection, dataset)
        self.dataset = dataset
        self.name: str = row["name"]
        self._head: dict[str, Any] = json.loads(row["info"])
        self._images: dict[int, int] = {}
        self._last = 0
        self._number = 0
        self._taken: set[int] = set()

    def head(self, connection: sqlite3.Connection) -> str:
        """Return everything before the annotations."""
        rows = connection.execute(
            "SELECT id, number, file_name, width, height, state FROM image WHERE dataset = ? ORDER BY id",
            (self.dataset,),
        )
        images = []
        for row in rows:
            self._images[row["id"]] = row["number"]
            images.append(
                {
                    "id": row["number"],
                    "file_name": row["file_name"],
                    "width": row["width"] or 0,
                    "height": row["height"] or 0,
                    "state": row["state"],
                }
            )
        ids = connection.execute("SELECT id FROM object WHERE dataset = ? AND deleted = 0", (self.dataset,))
        self._taken = {int(row["id"]) for row in ids if _is_number(row["id"])}
        self._number = max(self._taken, default=0)
        self._places = sorted(self._images)
        return json.dumps({**self._head, "images": images}, ensure_ascii=False)[:-1] + ', "annotations": ['

    def tail(self, connection: sqlite3.Connection) -> str:
        """Return everything behind the annotations: the categories, with those that were made meanwhile."""
        rows = connection.execute(
            "SELECT number, name, definition FROM category WHERE dataset = ? ORDER BY number", (self.dataset,)
        )
        kinds = [
            {"id": row["number"], "name": row["name"]}
            | ({"definition": row["definition"]} if row["definition"] else {})
            for row in rows
        ]
        return f'], "categories": {json.dumps(kinds, ensure_ascii=False)}}}\n'

    def pieces(self) -> Iterator[list[int]]:
        """Yield groups of images whose annotations are written together."""
        for first in range(0, len(self._places), _BLOCK):
            yield self._places[first : first + _BLOCK]

    def annotations(self, connection: sqlite3.Connection, images: list[int]) -> list[str]:
        """Return the annotations of some images as JSON, one each."""
        found = []
        for image in images:
            rows = connection.execute(
                f"{events.OBJECTS} WHERE object.image = ? AND deleted = 0 ORDER BY length(object.id), object.id",
                (image,),
            ).fetchall()
            rles: list[masks.Rle] = [
                {"size": [row["height"], row["width"]], "counts": bytes(row["counts"])} for row in rows
            ]
            areas, boxes = masks.area(rles).tolist(), masks.boxes(rles).tolist()
            for row, rle, area, box in zip(rows, rles, areas, boxes, strict=True):
                found.append(json.dumps(self._annotation(row, rle, area, box), ensure_ascii=False))
        return found

    def _annotation(self, row: sqlite3.Row, rle: masks.Rle, area: int, box: list[float]) -> dict[str, Any]:
        number, extra = self._id_of(row["id"])
        if row["score"] is not None:
            extra["score"] = row["score"]
        if row["provenance"] is not None:
            extra["provenance"] = json.loads(row["provenance"])
        if row["seq"] is not None:
            extra["last_event"] = row["seq"]
        return {
            "id": number,
            "image_id": self._images[row["image"]],
            "category_id": row["category_number"],
            "segmentation": masks.to_json(rle),
            "area": area,
            "bbox": box,
            "iscrowd": row["crowd"],
            **extra,
        }

    def _id_of(self, name: str) -> tuple[int, dict[str, Any]]:
        """Return the number of an annotation: its own, or a new one for what was drawn here."""
        if _is_number(name):
            return int(name), {}
        self._number += 1
        return self._number, {"object": name}


def _is_number(name: str) -> bool:
    # As files write numbers: "007" is a name.
    return name.isascii() and name.isdigit() and str(int(name)) == name and int(name) < 1 << 53
