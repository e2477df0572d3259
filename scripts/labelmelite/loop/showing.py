"""Tasks and items as pages get them: everything that is drawn, and nothing that tells gold from the rest."""

from typing import Any, Final

import numpy as np

from labelmelite.clock import iso
from labelmelite.errors import ApiError
from labelmelite.loop.book import Item, LogEvent, Task
from labelmelite.loop.iteration import Iteration
from labelmelite.loop.pictures import Picture
from labelmelite.settings import Question
from segloop.annotation.world import World
from segloop.data import masks

FREE: Final = "p"
"""Begins the name of an item that stands outside any task: a prediction of the tree or of the map."""


def free_row(world: World, item: str) -> int:
    """Return the row of the world of an item outside any task.

    Raises
    ------
    ApiError
        If there is no such item.
    """
    digits = item.removeprefix(FREE)
    if item.startswith(FREE) and digits.isascii() and digits.isdigit() and len(digits) < 20:
        row = int(world.rows_of(np.array([int(digits)], np.uint64))[0])
        if row >= 0:
            return row
    raise ApiError("not_found", "There is no such mask here.")


def item_of(name: str, picture: Picture, category: str, score: float | None = None) -> dict[str, Any]:
    """Return an item of docs/labelmelite-api.md without an answer."""
    described = f"{category}, score {score:.2f}" if score is not None else category
    return {
        "id": name,
        "alt": described,
        "width": picture.size[0],
        "height": picture.size[1],
        "box": picture.box,
        "mask": masks.to_json(picture.mask),
        "crop": picture.crop,
        "crop_url": f"/api/items/{name}/crop",
        "image_url": f"/api/items/{name}/image",
        "answer": None,
    }


def task_of(
    task: Task,
    iteration: Iteration,
    pictures: dict[str, Picture],
    question: Question,
    examples: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Return a task of docs/labelmelite-api.md."""
    category = iteration.categories.get(task.category, str(task.category))
    items = [_shown(task, item, pictures[item.id], category) for item in task.items.values()]
    return {
        "id": task.id,
        "kind": task.kind,
        "layout": task.content["layout"],
        "default": "none" if task.audit else task.content["default"],
        "third": not task.audit,
        "advance": question.advance,
        "expires": iso(task.expires),
        "category": {"id": task.category, "name": category, "definition": iteration.definitions.get(task.category, "")},
        "text": question.text.replace("{category}", category),
        "rule": question.rule,
        "examples": examples,
        "items": items,
    }


def _shown(task: Task, item: Item, picture: Picture, category: str) -> dict[str, Any]:
    shown = item_of(item.id, picture, category) | {"answer": answer_of(item.replies[-1]) if item.replies else None}
    if task.kind == "edits":
        shown["object"] = item.id
    elif task.kind == "redraws":
        del shown["mask"]
    return shown


def answer_of(event: LogEvent) -> dict[str, Any]:
    """Return an answer as it was sent."""
    return event.payload | {"seconds": event.seconds, "time": event.time}
