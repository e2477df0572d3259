"""Tasks in which people draw: edits of masks that were refused for how they are drawn, and redraws of a sample."""

from typing import TYPE_CHECKING, Final

from labelmelite.errors import ApiError
from labelmelite.loop import handover, showing
from labelmelite.loop.dealing import Group, Wanted
from segloop.files import read_document

if TYPE_CHECKING:
    from labelmelite.loop.state import LoopState

MENDABLE: Final = ("bad_boundary", "partial")
"""Reasons of a no that an edit can put right."""

Dealt = tuple[Group, list[Wanted]]


def edits(session: "LoopState", annotator: str, wanted: list[str]) -> Dealt | None:
    """Return masks that are to be edited: those that somebody names, or else those that were refused as badly drawn."""
    found = _named(session, annotator, wanted) if wanted else _refused(session)
    busy = {key for key, purpose in session.book.holders if purpose == "edit" and session.book.holders[key, purpose]}
    free = [(category, one) for category, one in found if one.key not in busy]
    return _of_one_category(free, session.settings.edits)


def mendable(session: "LoopState") -> int:
    """Return how many masks wait for an edit."""
    return len(_refused(session))


def _refused(session: "LoopState") -> list[tuple[int, Wanted]]:
    latest = {record["mask_key"]: record for record in session.records() if record["purpose"] not in ("gold", "repeat")}
    found = []
    for key, record in latest.items():
        if record["reply"] == "no" and record["reason"] in MENDABLE and key not in session.book.handled:
            row = session.replay.masks.find(key, record["prediction"])
            if row >= 0:
                found.append(_wanted(session, row))
    return found


def _named(session: "LoopState", annotator: str, wanted: list[str]) -> list[tuple[int, Wanted]]:
    rows = []
    for name in wanted[: session.settings.edits]:
        task = session.book.item_tasks.get(name)
        if task is None:
            rows.append(showing.free_row(session.iteration.world, name))
            continue
        if task.annotator != annotator or task.items[name].purpose == "gold":
            raise ApiError("not_found", "There is no such mask here.")
        rows.append(session.replay.masks.find(task.items[name].key, task.items[name].prediction))
    return [_wanted(session, row) for row in rows if row >= 0]


def _wanted(session: "LoopState", row: int) -> tuple[int, Wanted]:
    world = session.iteration.world
    return int(world.category[row]), Wanted(int(world.prediction[row]), session.replay.masks[row], "edit")


def redraws(session: "LoopState") -> Dealt | None:
    """Return masks of the quality sample that nobody has redrawn or is redrawing."""
    path = session.iteration.folder / "quality_sample.json"
    if not path.exists():
        return None
    done = {record["mask_key"] for record in session.book.redraws}
    busy = {key for key, purpose in session.book.holders if purpose == "redraw" and session.book.holders[key, purpose]}
    free = []
    for one in read_document(path)["masks"]:
        key = bytes.fromhex(one["mask_key"])
        if key not in done and key not in busy:
            free.append((int(one["category_id"]), Wanted(int(one["prediction"]), key, "redraw")))
    return _of_one_category(free, session.settings.edits)


def _of_one_category(free: list[tuple[int, Wanted]], size: int) -> Dealt | None:
    if not free:
        return None
    category = free[0][0]
    return (False, category), [one for kind, one in free if kind == category][:size]


def leave(session: "LoopState") -> None:
    """Write what was drawn so far into the files of the run; the caller holds the session's lock."""
    folder, book = session.iteration.answers, session.book
    if book.edits and not session.iteration.taken:
        handover.append_lines(folder / "edits.jsonl", book.edits, "edit_id")
    if book.redraws:
        handover.append_lines(folder / "redraws.jsonl", book.redraws, "redraw_id")
