"""What a page may send as an answer."""

import math
from typing import Any, Final

from labelmelite.errors import ApiError
from labelmelite.events import Event
from labelmelite.http import field
from labelmelite.loop.book import Item, Task
from labelmelite.loop.pictures import Picture
from segloop.annotation.answers import REASONS, REPLIES
from segloop.data import masks
from segloop.data.masks import MaskError

_MOST_SECONDS: Final = 86_400.0


def answer_event(task: Task, client: str, given: Any) -> tuple[Event, Item]:
    """Return the event of an answer, and the item that it is about.

    Raises
    ------
    ApiError
        If a field is missing or of another kind, or the answer is none that this task takes.
    """
    if not isinstance(given, dict):
        raise ApiError("bad_request", "An answer must be a JSON object.")
    number = field(given, "client_no", int)
    item = task.items.get(field(given, "item", str))
    if item is None:
        raise ApiError("not_found", "There is no such item in this task.")
    if not 0 <= number < 1 << 53 or not 0 < len(client) <= 100:
        raise ApiError("bad_request", "Answers are numbered from 0 on, by a client with a name.")
    payload = _reply(task, given) if task.kind == "questions" else _drawing(given)
    event = Event(client, number, "answer", payload, task=task.id, item=item.id, seconds=_seconds(given))
    return event, item


def _seconds(given: dict[str, Any]) -> float:
    seconds = float(field(given, "seconds", (int, float), 0.0))
    if not math.isfinite(seconds) or seconds < 0:
        raise ApiError("bad_request", "The seconds of an answer are a number from 0 on.")
    return min(seconds, _MOST_SECONDS)


def _reply(task: Task, given: dict[str, Any]) -> dict[str, Any]:
    reply, reason = field(given, "reply", str), field(given, "reason", str, None)
    default_used = field(given, "default_used", bool, False)
    layout = field(given, "layout", str, None)
    if reply not in REPLIES.values():
        raise ApiError("bad_request", f"{reply[:20]!r} is no answer; known: {', '.join(REPLIES.values())}.")
    if reason is not None and reason not in REASONS[reply]:
        raise ApiError("bad_request", f"{reason[:40]!r} is no reason of the answer {reply}.")
    if layout not in (None, "filmstrip", "grid"):
        raise ApiError("bad_request", "A layout is filmstrip or grid.")
    if task.audit and reply == "other":
        raise ApiError("bad_request", "This question takes yes or no.")
    if task.audit and default_used:
        raise ApiError("bad_request", "This question needs an answer of its own, no default.")
    return {"reply": reply, "reason": reason, "default_used": default_used, "layout": layout}


def _drawing(given: dict[str, Any]) -> dict[str, Any]:
    if "after" not in given:
        raise ApiError("bad_request", "The field 'after' is missing: a mask, or null.")
    return {"before": given.get("before"), "after": given["after"]}


def checked_drawing(event: Event, picture: Picture, kind: str) -> None:
    """Check the masks of an edit or a redraw against its image, and put them into the form of files.

    Raises
    ------
    ApiError
        `bad_mask` if one is no mask of the image's size, or empty.
    """
    width, height = picture.size
    for name in ("before", "after"):
        value = event.payload[name]
        if value is None:
            continue
        try:
            rle = masks.check(value, (height, width))
        except MaskError as error:
            raise ApiError("bad_mask", f"This mask cannot be saved: {error}.") from None
        if name == "after" and not masks.area([rle])[0]:
            raise ApiError("bad_mask", "This mask is empty. Say that there is no object instead.")
        event.payload[name] = masks.to_json(rle)
    if kind == "edits":
        # What is changed is the predicted mask, whatever the page says.
        event.payload["before"] = masks.to_json(picture.mask)


__all__ = ["answer_event", "checked_drawing"]
