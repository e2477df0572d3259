"""How far an iteration is: what was answered, what remains, what it costs, and how those who answer are doing."""

import math
import sqlite3
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from labelmelite.loop import drawn, showing
from segloop.annotation.policies import Decision
from segloop.annotation.verdicts import ACCEPTED

if TYPE_CHECKING:
    from labelmelite.loop.session import LoopSession

_ACTIVE: Final = 300.0
"""Seconds for which somebody counts as being at work after the last answer."""


def progress(session: "LoopSession", owner: bool) -> dict[str, Any]:
    """Return the progress of docs/labelmelite-api.md."""
    with session.lock:
        records, book, reached = session.records(), session.book, session.thinking.reached
        expected = session.thinking.expected
        still = session.still_open()
    decision, annotation = reached.decision, session.iteration.config.annotation
    answered = len(records)
    done = session.complete or session.iteration.taken
    remaining, low, high = (0, 0, 0) if done else _remaining(session, answered, still)
    seconds = sum(record["seconds"] or 0.0 for record in records)
    accepted = int(np.count_nonzero(decision.verdict == ACCEPTED))
    return {
        "iteration": session.iteration.number,
        "policy": annotation.policy,
        "answered": answered,
        "open": still,
        "remaining": remaining,
        "remaining_range": [low, high],
        "expected_masks": accepted if done else None if expected is None else round(expected.masks),
        "accepted_so_far": accepted,
        "seconds": seconds,
        "dollars": sum(record["price"] or 0.0 for record in records),
        "edits": {"waiting": drawn.mendable(session), "drawn": len(book.edits)},
        "audits": [asdict(one) for one in decision.certificates],
        "voided_audits": reached.voided,
        "set_aside": len(book.aside),
        "annotators": _annotators(session) if owner else [],
        "complete": done,
        "message": _message(session, decision, done),
    }


def _remaining(session: "LoopSession", answered: int, still: int) -> tuple[int | None, int, int | None]:
    """Return the expected number of answers, the fewest and the most; None where nothing bounds them."""
    expected = session.thinking.expected
    if expected is not None:
        since = answered - session.thinking.expected_at
        return (
            max(still, round(expected.questions) - since),
            max(still, expected.low - since),
            max(still, expected.high - since),
        )
    if session.thinking.reached.decision.done:
        return still, still, still
    annotation, masks = session.iteration.config.annotation, len(session.iteration.world)
    most: int | None = annotation.questions
    if most is None and annotation.policy == "certified":
        most = int(20 * math.sqrt(masks))
    if most is None and annotation.policy != "score_audit":
        most = masks
    return None, still, None if most is None else max(still, most - answered)


def _message(session: "LoopSession", decision: Decision, done: bool) -> str:
    if session.thinking.failure is not None:
        return f"The next questions cannot be chosen: {session.thinking.failure}"
    if done:
        return "All questions are answered. Run the command that started the loop again; it goes on from here."
    if decision.done:
        return "The policy has no more questions; the tasks that people have begun are still waited for."
    return ""


def _annotators(session: "LoopSession") -> list[dict[str, Any]]:
    names = session.store.read_now(_names)
    records, now = session.records(), session.store.clock.now()
    with session.lock:
        begun = {task.annotator for task in session.book.open.values() if task.expires > now}
        recent = {task.annotator for task in session.book.tasks.values() if task.dealt > now - _ACTIVE}
        gold = {name: session.gold.judged(answers) for name, answers in session.book.gold.items()}
    found = []
    for who in sorted({record["annotator"] for record in records} | begun):
        own = [record for record in records if record["annotator"] == who]
        spent = [record["seconds"] for record in own if record["seconds"] is not None]
        paid = sum(record["price"] or 0.0 for record in own)
        right = gold.get(who, [])
        found.append(
            {
                "id": who,
                "name": names.get(who),
                "answers": len(own),
                "gold": len(right),
                "gold_right": sum(right),
                "median_seconds": median(spent) if spent else None,
                "wage": paid / sum(spent) * 3600 if spent and sum(spent) else None,
                "active": who in begun or who in recent,
            }
        )
    return found


def _names(connection: sqlite3.Connection) -> dict[str, str]:
    return {row["annotator"]: row["name"] for row in connection.execute("SELECT annotator, name FROM name")}


def review(session: "LoopSession", annotator: str, offset: int, limit: int) -> dict[str, Any]:
    """Return somebody's own answers, newest first."""
    with session.lock:
        own = list(session.book.own(annotator))
        some = own[offset : offset + limit]
        changeable = not session.iteration.taken
        answers = []
        for task, item in some:
            name = session.iteration.categories.get(task.category, str(task.category))
            last = item.replies[-1]
            shown = showing.item_of(item.id, session.picture_of(item), name)
            answers.append(
                {
                    "task": task.id,
                    "item": shown | {"answer": showing.answer_of(last)},
                    "category": name,
                    "third": not task.audit,
                    "reply": last.payload["reply"],
                    "reason": last.payload["reason"],
                    "time": last.time,
                    "changeable": changeable,
                }
            )
        return {"total": len(own), "answers": answers}
