"""Files of questions that were made elsewhere, in the format of the thesis's author, answered without the loop.

A bundle is a COCO dict for one page of questions. An annotation may say what is asked of it (`current_task`, or
`completed_task` of an earlier round: `yesno` or `edit`), and hold the truth of a hidden test, which stays here. Every
person answers every bundle for themselves; who has submitted leaves a file of the same form, with
`bundle_info` and a `completed_task` an annotation.
"""

import hashlib
import json
import re
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from labelmelite import http
from labelmelite.clock import iso
from labelmelite.crowd.answered import Answered, answered_bundle, written
from labelmelite.errors import ApiError
from labelmelite.events import BUNDLE, Event, append, repeated
from labelmelite.images import Pixels
from labelmelite.loop import showing
from labelmelite.loop.answering import answer_event, checked_drawing
from labelmelite.loop.book import Item, Task
from labelmelite.loop.pictures import Picture
from labelmelite.settings import Question
from labelmelite.sources.coco import CocoSource
from labelmelite.store import Store
from segloop.data import masks
from segloop.errors import SegloopError
from segloop.files import read_json

ITEMS: Final = 30
"""Of one task."""

_ANSWER: Final = "bundle_answer"
_SUBMIT: Final = "bundle_submit"
_LEAST_SECONDS: Final = 0.7


@dataclass(frozen=True)
class _Asked:
    """One mask of the bundle."""

    number: int
    category: int
    kind: str
    file_name: str
    picture: Picture


class BundleSession:
    """Asks the questions of a bundle; see `labelmelite.work.Work`.

    Parameters
    ----------
    bundle
        The file.
    root
        Folder or URL base of its images.
    """

    def __init__(self, bundle: Path, root: str, store: Store, question: Question) -> None:
        self.value = read_json(bundle)
        self.store, self.root = store, root
        source = CocoSource(bundle, root, kind="bundle", value=self.value)
        info = self.value.get("bundle_info")
        self.info: dict[str, Any] = info if isinstance(info, dict) else {}
        self.name = safe_name(str(self.info.get("bundle_id") or bundle.stem))
        self.question = _worded(question, self.info)
        self._categories = {one.number: one for one in source.categories()}
        self._asked = _asked(self.value, source)
        self._tasks = _tasks(self._asked)
        # An audit of the loop takes yes or no, and no default.
        self._third = self.info.get("third") is not False
        self._lock = threading.Lock()
        if not self._asked:
            raise SegloopError(f"{bundle} holds no mask that can be asked about: {source.skipped[:3]}")

    def described(self) -> dict[str, Any] | None:
        """Return nothing: there is no loop."""
        return None

    def close(self) -> None:
        """Leave nothing: what was submitted is written already."""

    def next_task(self, annotator: str, kind: str, layout: str | None, wanted: list[str]) -> dict[str, Any]:
        """Return the first task of a kind that this person has not submitted."""
        done = self._submitted(annotator)
        for name, items in self._tasks.items():
            if name not in done and self._asked[items[0]].kind == kind:
                return {"task": self._shown(annotator, name, layout), "message": "", "complete": False}
        complete = len(done) == len(self._tasks)
        message = "You have answered everything. Thank you." if complete else "There is nothing of this kind to do."
        return {"task": None, "message": message, "complete": complete}

    def preview(self, layout: str | None) -> dict[str, Any]:
        """Return what a task looks like."""
        return {"task": self._shown("", next(iter(self._tasks)), layout), "message": "", "complete": False}

    def answer(self, annotator: str, task: str, client: str, answers: list[Any]) -> list[dict[str, Any]]:
        """Save answers one by one."""
        shell = self._task(annotator, task)

        def save(connection: sqlite3.Connection) -> list[dict[str, Any]]:
            return [self._save(connection, annotator, shell, client, one) for one in answers]

        acks: list[dict[str, Any]] = self.store.write_now(save)
        return acks

    def renew(self, annotator: str, task: str) -> dict[str, Any]:
        """Return the end of a task: it has none, because nobody else is asked instead."""
        self._task(annotator, task)
        return {"expires": iso(self.store.clock.now() + 86_400)}

    def submit(self, annotator: str, task: str, seconds: float, submission: str = "") -> dict[str, Any]:
        """End a task; with the last one, write the answered bundle."""
        shell = self._task(annotator, task)
        answers = self._answers(annotator)
        missing = sum(name not in answers for name in shell.items)
        if missing:
            raise ApiError("bad_request", f"{missing} masks of this task have no answer yet.")
        # A page that was loaded again has counted from 0 on; what its answers took stands in them.
        spent = max(seconds, sum(answers[name].seconds for name in shell.items))
        if spent < _LEAST_SECONDS * len(shell.items):
            return {"accepted": False, "message": "That was too fast. Look again, then submit.", "submitted": 0}
        payload = {"bundle": self.name} | ({"submission": submission} if submission else {})
        event = Event("bundle", 0, _SUBMIT, payload, task=task, seconds=None)
        self.store.write_now(lambda c: self._append_once(c, annotator, event))
        done = self._submitted(annotator)
        if len(done) == len(self._tasks):
            self._write(annotator)
        now = sum(said == submission for said in done.values())
        return {"accepted": True, "message": "Thank you.", "submitted": now}

    def give_back(self, annotator: str, task: str) -> None:
        """Do nothing: the task stays this person's."""
        self._task(annotator, task)

    def place(self, annotator: str, item: str) -> tuple[str, str]:
        """Return where the image of an item lies."""
        return self.root, self._of(item).file_name

    def crop(self, annotator: str, item: str, out: int, pixels: Pixels) -> bytes:
        """Return the plain crop of an item as JPEG."""
        one = self._of(item)
        crop = one.picture.crop
        return pixels.crop(self.root, one.file_name, crop["x"], crop["y"], crop["side"], out)

    def image(self, annotator: str, item: str, side: int | None, pixels: Pixels) -> tuple[bytes, str]:
        """Return the whole image of an item and its media type."""
        return pixels.upright(self.root, self._of(item).file_name, side)

    # --- inside

    def _of(self, item: str) -> _Asked:
        if item not in self._asked:
            raise ApiError("not_found", "There is no such mask.")
        return self._asked[item]

    def _task(self, annotator: str, task: str) -> Task:
        if task not in self._tasks:
            raise ApiError("not_found", "There is no such task.")
        items = {name: Item(name, 0, b"", "decide", None, None) for name in self._tasks[task]}
        first = self._asked[self._tasks[task][0]]
        kind: Any = first.kind
        now = self.store.clock.now()
        content = {"layout": self.question.layout, "default": self.question.default}
        return Task(task, 0, annotator, kind, not self._third, first.category, items, content, now, now + 86_400)

    def _shown(self, annotator: str, name: str, layout: str | None) -> dict[str, Any]:
        task = self._task(annotator, name)
        category = self._categories[task.category]
        answers = self._answers(annotator) if annotator else {}
        items = []
        for one in task.items:
            shown = showing.item_of(one, self._asked[one].picture, category.name)
            shown["answer"] = answers[one].payload if one in answers else None
            items.append(shown | ({"object": one} if task.kind == "edits" else {}))
        return {
            "id": name,
            "kind": task.kind,
            "layout": layout or self.question.layout,
            "default": self.question.default if self._third else "none",
            "third": self._third,
            "advance": self.question.advance,
            "expires": iso(task.expires),
            "category": {"id": category.number, "name": category.name, "definition": category.definition},
            "text": self.question.text.replace("{category}", category.name),
            "rule": self.question.rule,
            "examples": {"yes": [], "no": []},
            "items": items,
        }

    def _save(
        self, connection: sqlite3.Connection, annotator: str, task: Task, client: str, given: Any
    ) -> dict[str, Any]:
        number = http.echoed(given)
        try:
            event, item = answer_event(task, client, given)
            if task.kind != "questions":
                checked_drawing(event, self._asked[item.id].picture, task.kind)
        except ApiError as error:
            return {"client_no": number, **error.to_json()}
        known = repeated(connection, annotator, client, event.client_no)
        if known is not None:
            return {"client_no": number, "seq": known}
        event = Event(
            client, event.client_no, _ANSWER, event.payload, task=task.id, item=item.id, seconds=event.seconds
        )
        return {"client_no": number, "seq": append(connection, annotator, self.store.clock.now(), event)}

    def _append_once(self, connection: sqlite3.Connection, annotator: str, event: Event) -> None:
        client = f"{BUNDLE}{event.task}"
        if repeated(connection, annotator, client, 0) is None:
            append(
                connection, annotator, self.store.clock.now(), Event(client, 0, _SUBMIT, event.payload, task=event.task)
            )

    def _submitted(self, annotator: str) -> dict[str, str]:
        """Return the tasks that somebody has submitted, each with the submission of a platform that it was in."""
        sql = "SELECT task, payload FROM event WHERE annotator = ? AND kind = ?"
        rows = self.store.read_now(lambda c: c.execute(sql, (annotator, _SUBMIT)).fetchall())
        return {
            row["task"]: json.loads(row["payload"]).get("submission", "") for row in rows if row["task"] in self._tasks
        }

    def _answers(self, annotator: str) -> dict[str, Answered]:
        """Return the last answer of somebody to each item, with the longest time that one says: pages send totals."""
        sql = "SELECT item, payload, seconds FROM event WHERE annotator = ? AND kind = ? ORDER BY seq"
        found: dict[str, Answered] = {}
        for row in self.store.read_now(lambda c: c.execute(sql, (annotator, _ANSWER)).fetchall()):
            before = found[row["item"]].seconds if row["item"] in found else 0.0
            found[row["item"]] = Answered(json.loads(row["payload"]), max(before, row["seconds"] or 0.0))
        return found

    def _write(self, annotator: str) -> None:
        answers = {
            self._asked[name].number: one for name, one in self._answers(annotator).items() if name in self._asked
        }
        value = answered_bundle(self.value, answers, self.name, annotator, iso(self.store.clock.now()))
        with self._lock:
            written(self.store.folder / "bundles", value)


def _asked(value: dict[str, Any], source: CocoSource) -> dict[str, _Asked]:
    """Return the masks of a bundle by the names that pages know them under."""
    images = {one.number: one for one in source.images()}
    tasks = {str(one.get("id")): one for one in value["annotations"] if isinstance(one, dict)}
    found = {}
    for one in source.objects():
        given = tasks.get(one.id, {})
        wanted = given.get("current_task") or given.get("completed_task")
        wanted = wanted.get("type") if isinstance(wanted, dict) else wanted
        kind = "edits" if wanted == "edit" else "questions"
        height, width = one.mask["size"]
        file_name = images[one.image].file_name
        picture = Picture(file_name, (width, height), masks.boxes([one.mask])[0].tolist(), one.mask)
        item = given.get("item") if isinstance(given.get("item"), str) else None
        name = hashlib.sha256(f"{source.fingerprint} {one.id}".encode()).hexdigest()[:16]
        found[item or name] = _Asked(int(one.id), one.category, kind, file_name, picture)
    return found


def _tasks(asked: dict[str, _Asked]) -> dict[str, list[str]]:
    """Return the items of each task: of one kind and one category, so many at a time."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, one in asked.items():
        groups.setdefault((one.kind, one.category), []).append(name)
    tasks = {}
    for names in groups.values():
        for first in range(0, len(names), ITEMS):
            part = names[first : first + ITEMS]
            tasks[hashlib.sha256(" ".join(part).encode()).hexdigest()[:16]] = part
    return tasks


def _worded(question: Question, info: dict[str, Any]) -> Question:
    """Return the question as the bundle words it, where it does."""
    from dataclasses import replace

    words = {name: info[name] for name in ("text", "rule", "text_version") if isinstance(info.get(name), str)}
    return replace(question, **words)


def safe_name(text: str) -> str:
    """Return text as the name of a file that every file system takes: colons and the like become hyphens."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:100] or "bundle"
