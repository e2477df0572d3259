"""One iteration, served to several annotators at once: what the routes call."""

import secrets
import sqlite3
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from labelmelite import http
from labelmelite.clock import iso
from labelmelite.errors import ApiError
from labelmelite.images import Pixels
from labelmelite.loop import drawn, handover, log, showing
from labelmelite.loop.answering import answer_event, checked_drawing
from labelmelite.loop.book import Item, Kind, LogEvent, Task
from labelmelite.loop.dealing import Group, Wanted
from labelmelite.loop.forest import Forest, judged
from labelmelite.loop.iteration import load_iteration
from labelmelite.loop.pictures import Picture
from labelmelite.loop.settings import LoopSettings
from labelmelite.loop.state import LoopState
from labelmelite.settings import Question
from labelmelite.store import Store

KINDS: Final = ("questions", "edits", "redraws")


class LoopSession(LoopState):
    """Deals out the questions of an iteration, and hands its answers over when the policy has no more; see `Work`."""

    _forest: tuple[tuple[int, int, bool], Forest] | None = None

    # --- what routes call

    def next_task(self, annotator: str, kind: str, layout: str | None, wanted: list[str]) -> dict[str, Any]:
        """Return {"task", "message", "complete"}: the task that somebody has begun, or a new one."""
        if kind not in KINDS:
            raise ApiError("bad_request", f"{kind[:40]!r} is no kind of task; known: {', '.join(KINDS)}.")
        if layout not in (None, "filmstrip", "grid"):
            raise ApiError("bad_request", "A layout is filmstrip or grid.")
        self._check_well()
        task = self.write(lambda c: self._begin(c, annotator, cast(Kind, kind), layout, wanted))
        if task is None and kind == "questions" and not self.thinking.idle and self.wait(self.settings.patience):
            task = self.write(lambda c: self._begin(c, annotator, cast(Kind, kind), layout, wanted))
        message = "" if task is not None else self._why_nothing(annotator, cast(Kind, kind))
        return {"task": task and self._shown(task), "message": message, "complete": self.complete}

    def described(self) -> dict[str, Any]:
        """Return what pages show of the loop: the name of the run, and the iteration."""
        return {"run": self.iteration.run.resolve().name, "iteration": self.iteration.number}

    def preview(self, layout: str | None) -> dict[str, Any]:
        """Return what a task looks like, for somebody who has not accepted it: nothing is leased or saved."""
        with self.lock:
            rows = self.thinking.open.decision.question_row[: self.settings.questions]
            category = int(self.iteration.world.category[rows[0]]) if len(rows) else 0
            rows = rows[self.iteration.world.category[rows] == category]
        found = self.pictures.many(self.iteration.world.prediction[rows].tolist())
        now = self.store.clock.now()
        task = Task(
            "preview", 0, "", "questions", True, category, {}, {"layout": layout or self.question.layout}, now, now
        )
        shown = showing.task_of(task, self.iteration, {}, self.question, self.gold.examples(category))
        name = self.iteration.categories.get(category, "")
        ids = self.iteration.world.prediction[rows].tolist()
        items = [showing.item_of(f"{showing.FREE}{one}", each, name) for one, each in zip(ids, found, strict=True)]
        return {"task": shown | {"items": items}, "message": "", "complete": self.complete}

    def answer(self, annotator: str, task: str, client: str, answers: list[Any]) -> list[dict[str, Any]]:
        """Save answers one by one and return an acknowledgement for each."""
        return self.write(lambda c: self._save(c, annotator, task, client, answers))

    def renew(self, annotator: str, task: str) -> dict[str, Any]:
        """Keep a task for longer; nothing is written, because a restart renews all tasks."""
        with self.lock:
            owned = self._task_of(annotator, task)
            if owned.end is not None:
                raise _gone()
            owned.expires = self.store.clock.now() + self.settings.lease_seconds
            return {"expires": iso(owned.expires)}

    def submit(self, annotator: str, task: str, seconds: float, submission: str = "") -> dict[str, Any]:
        """End a task; return {"accepted", "message", "submitted"}. A task that was too fast is set aside."""

        def end(connection: sqlite3.Connection) -> tuple[Task, int]:
            with self.lock:
                owned = self._task_of(annotator, task)
                fast = self._too_fast(owned, seconds)
                if owned.end is None:
                    self.end(connection, owned, "aside" if fast else "submitted", seconds, submission)
                elif owned.end == "expired" and owned.submission is None and owned.whole and not fast:
                    # Its answers count already; whoever gave all of them has done the task, if a little late.
                    self.end(connection, owned, "submitted", seconds, submission)
                return owned, self.book.submitted(annotator, submission)

        owned, submitted = self.write(end)
        self.thinking.ask()
        if owned.end == "aside":
            text = "That was faster than anybody can look at so many masks. These answers were set aside."
            return {"accepted": False, "message": text, "submitted": submitted}
        return {"accepted": True, "message": "Thank you.", "submitted": submitted}

    def give_back(self, annotator: str, task: str) -> None:
        """End a task before all of it is answered; what was answered counts."""

        def end(connection: sqlite3.Connection) -> None:
            with self.lock:
                owned = self._task_of(annotator, task)
                if owned.end is None:
                    self.end(connection, owned, "returned", None)

        self.write(end)
        self.thinking.ask()

    def place(self, annotator: str, item: str) -> tuple[str, str]:
        """Return where the image of an item lies."""
        path = self.iteration.run / self.picture(annotator, item).file_name
        return str(path.parent), path.name

    def crop(self, annotator: str, item: str, out: int, pixels: Pixels) -> bytes:
        """Return the plain crop of an item as JPEG."""
        picture = self.picture(annotator, item)
        crop = picture.crop
        return pixels.crop(
            str(self.iteration.run.resolve()), picture.file_name, crop["x"], crop["y"], crop["side"], out
        )

    def image(self, annotator: str, item: str, side: int | None, pixels: Pixels) -> tuple[bytes, str]:
        """Return the whole image of an item and its media type."""
        return pixels.upright(*self.place(annotator, item), side)

    def picture(self, annotator: str, item: str) -> Picture:
        """Return what is shown of an item: one of somebody's own tasks, or a prediction of the tree or the map.

        Raises
        ------
        ApiError
            If there is no such item.
        """
        with self.lock:
            task = self.book.item_tasks.get(item)
            if task is not None and task.annotator == annotator:
                return self.picture_of(task.items[item])
        example = self.gold.example(item)
        if example is not None:
            return example
        return self.pictures.of(int(self.iteration.world.prediction[self.free_row(item)]))

    def free_row(self, item: str) -> int:
        """Return the row of the world of an item outside any task; see `showing.free_row`."""
        return showing.free_row(self.iteration.world, item)

    def pick(self, annotator: str, items: list[str], name: str) -> dict[str, int]:
        """Put masks that somebody picked before the policy's own questions; those whose answer is known are left out.

        Raises
        ------
        ApiError
            If an audit has begun: what it is about must stand.
        """
        rows = sorted({self.free_row(item) for item in items})

        def work(connection: sqlite3.Connection) -> int:
            with self.lock:
                if self.iteration.complete or self.thinking.audited:
                    raise ApiError(
                        "conflict", "An audit has begun or all is answered: what it is about must stand now."
                    )
                fresh = [row for row in rows if not self.thinking.known[row]]
                if fresh:
                    keys = [
                        {"prediction": str(self.iteration.world.prediction[row]), "key": self.replay.masks[row].hex()}
                        for row in fresh
                    ]
                    payload = {"iteration": self.iteration.number, "name": name, "items": keys}
                    now = self.store.clock.now()
                    self.book.apply(log.by_server(connection, annotator, now, "pick", None, payload))
                return len(fresh)

        queued = self.write(work)
        return {"queued": queued, "known": len(rows) - queued}

    def mark_gold(self, task: str, item: str, reply: str) -> None:
        """Make an answered mask a gold mask with this truth, or (`none`) no gold mask any more."""
        with self.lock:
            owned = self.book.tasks.get(task)
            if owned is None or item not in owned.items:
                raise ApiError("not_found", "There is no such item.")
            self.gold.mark(owned.items[item].key, reply)

    def forest(self) -> Forest:
        """Return the tree with what is known now; made once for each new state."""
        state = (len(self.records()), self.thinking.round, self.iteration.taken)
        with self.lock:
            if self._forest is None or self._forest[0] != state:
                self._forest = (state, Forest(self, judged(self)))
            return self._forest[1]

    # --- in the writer's thread

    def _begin(
        self, connection: sqlite3.Connection, annotator: str, kind: Kind, layout: str | None, wanted: list[str]
    ) -> Task | None:
        with self.lock:
            now = self.store.clock.now()
            self.expire(connection, now)
            task = self.book.of(annotator, kind)
            if task is not None:
                task.expires = now + self.settings.lease_seconds
                return task
            if kind == "redraws":
                return self._deal(connection, annotator, kind, layout, drawn.redraws(self))
            if self.iteration.taken:
                return None
            if kind == "edits":
                if self.complete and wanted:
                    raise ApiError("conflict", "All is answered: only masks that were refused can be edited now.")
                return self._deal(connection, annotator, kind, layout, drawn.edits(self, annotator, wanted))
            if self.complete or self._gated(annotator):
                return None
            dealt = self.dealer.deal(
                self.thinking.open, self.book, annotator, self.settings.questions, self._pickable()
            )
            return self._deal(connection, annotator, kind, layout, dealt)

    def _deal(
        self,
        connection: sqlite3.Connection,
        annotator: str,
        kind: Kind,
        layout: str | None,
        dealt: tuple[Group, list[Wanted]] | None,
    ) -> Task | None:
        if dealt is None or not dealt[1]:
            return None
        (audit, category), wanted = dealt
        now, name = self.store.clock.now(), secrets.token_hex(8)
        annotation = self.iteration.config.annotation
        content = {
            "iteration": self.iteration.number,
            "kind": kind,
            "audit": audit,
            "category": category,
            "layout": layout or self.question.layout,
            "default": self.question.default,
            "t_iou": annotation.t_iou,
            "text_version": self.question.text_version,
            "wage": annotation.hourly_wage,
            "batch": self.thinking.round,
            "dealt": now,
            "expires": now + self.settings.lease_seconds,
            "items": [one.to_json() for one in wanted],
        }
        self.book.apply(log.by_server(connection, annotator, now, "task", name, content))
        return self.book.tasks[name]

    def _save(
        self, connection: sqlite3.Connection, annotator: str, name: str, client: str, answers: list[Any]
    ) -> list[dict[str, Any]]:
        acks: list[dict[str, Any]] = []
        fresh: list[LogEvent] = []
        with self.lock:
            task = self._task_of(annotator, name)
            for given in answers:
                number = http.echoed(given)
                try:
                    acks.append({"client_no": number, "seq": self._save_one(connection, task, client, given, fresh)})
                except ApiError as error:
                    acks.append({"client_no": number, **error.to_json()})
            for event in fresh:
                self.book.apply(event)
            if fresh:
                task.expires = max(task.expires, self.store.clock.now() + self.settings.lease_seconds)
                if task.end is not None:
                    if task.kind == "questions":
                        handover.reopen(self.iteration)
                    self.thinking.ask()
        return acks

    def _save_one(
        self, connection: sqlite3.Connection, task: Task, client: str, given: Any, fresh: list[LogEvent]
    ) -> int:
        event, item = answer_event(task, client, given)
        known = log.repeated(connection, task.annotator, event.client, event.client_no)
        if known is not None:
            return known
        if task.kind == "redraws" or not self.iteration.taken:
            self._check_late(task, item)
        else:
            raise ApiError("conflict", "The run has gone on with these answers; they can no longer be changed.")
        if task.kind != "questions":
            checked_drawing(event, self.picture_of(item), task.kind)
        fresh.append(log.write(connection, task.annotator, self.store.clock.now(), event))
        return fresh[-1].seq

    def _check_late(self, task: Task, item: Item) -> None:
        """Let a first answer to a task that has ended pass only while nobody else has given or will give it."""
        if task.end is None or item.replies or task.kind != "questions":
            return
        question = (item.key, item.purpose)
        needed = self.iteration.config.annotation.audit.votes if item.purpose == "audit" else 1
        taken = len(self.book.voters.get(question, ())) + len(self.book.holders.get(question, ()))
        if self.complete or taken >= needed:
            raise _gone()

    def _too_fast(self, task: Task, seconds: float) -> bool:
        # A page that was loaded again has counted from 0 on; what its answers took stands in them.
        elapsed = min(max(seconds, task.spent), self.store.clock.now() - task.dealt)
        return task.kind == "questions" and elapsed < self.settings.least_seconds * task.answered

    # --- what is shown

    def _shown(self, task: Task) -> dict[str, Any]:
        with self.lock:
            items = list(task.items.values())
        self.pictures.many([item.prediction for item in items if item.key not in self.gold.pictures])
        found = {item.id: self.picture_of(item) for item in items}
        return showing.task_of(task, self.iteration, found, self.question, self.gold.examples(task.category))

    def picture_of(self, item: Item) -> Picture:
        """Return what is shown of an item of a task."""
        return self.gold.pictures.get(item.key) or self.pictures.of(item.prediction)

    def _task_of(self, annotator: str, task: str) -> Task:
        owned = self.book.tasks.get(task)
        if owned is None or owned.annotator != annotator:
            raise ApiError("not_found", "There is no such task of yours.")
        return owned

    def _pickable(self) -> npt.NDArray[np.bool_] | None:
        """Return the rows whose answer is known; None once an audit has begun, after which no picks are asked."""
        return None if self.thinking.audited else self.thinking.known

    def _gated(self, annotator: str) -> bool:
        if self.settings.gate is None:
            return False
        right = self.gold.judged(self.book.gold[annotator])[-self.settings.gate_window :]
        return len(right) >= self.settings.gate_least and sum(right) < self.settings.gate * len(right)

    def _why_nothing(self, annotator: str, kind: Kind) -> str:
        with self.lock:
            if kind == "redraws":
                return "Nothing is to be redrawn now."
            if kind == "edits" and not self.iteration.taken:
                return "No mask waits for an edit now."
            if self.complete:
                return "All questions of this iteration are answered. Thank you."
            if self._gated(annotator):
                return "Thank you for your work. There are no more questions for you in this project."
            if not self.thinking.idle:
                return "The next questions are being chosen; this takes a few seconds."
            if self.still_open():
                return "Others are answering what is left, or somebody else has to. Please look in again later."
            return "Nothing is open now."

    def _check_well(self) -> None:
        if self.thinking.failure is not None:
            raise ApiError("unavailable", f"The next questions cannot be chosen: {self.thinking.failure}")


def open_session(
    run: Path, number: int, store: Store, settings: LoopSettings | None = None, question: Question | None = None
) -> LoopSession:
    """Read an iteration and go on where its database and its files stand."""
    return LoopSession(load_iteration(run, number), store, settings, question)


def _gone() -> ApiError:
    return ApiError("gone", "The time of this task is over; what you had answered counts. Ask for a new one.")
