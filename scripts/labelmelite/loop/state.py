"""What is known of an iteration that is served, and how it is kept.

Everything that changes runs in the writer's thread of the database, one after the other: events are appended to the log
and taken into the book in the same order, so that a restart finds the same book. A thread of its own asks the policy
again whenever a task has ended; meanwhile the questions that are already there are dealt out.
"""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from labelmelite.clock import iso
from labelmelite.loop import drawn, handover, log
from labelmelite.loop.book import Book, LogEvent, Task
from labelmelite.loop.dealing import Dealer, OpenQuestions
from labelmelite.loop.gold import GoldMasks
from labelmelite.loop.iteration import Iteration
from labelmelite.loop.pictures import Pictures
from labelmelite.loop.settings import LoopSettings
from labelmelite.loop.thinking import Thinking
from labelmelite.settings import Question
from labelmelite.store import Store
from segloop.annotation.answers import COUNTED_PURPOSES
from segloop.annotation.people import Record, read_records

Result = TypeVar("Result")


class LoopState:
    """The book of an iteration, its policy at work, and the files that the answers leave in.

    Parameters
    ----------
    iteration
        What is asked about.
    store
        The server's database.
    settings, question
        How tasks are dealt out, and what people read.
    """

    def __init__(
        self, iteration: Iteration, store: Store, settings: LoopSettings | None = None, question: Question | None = None
    ) -> None:
        self.iteration, self.store = iteration, store
        self.settings = settings or LoopSettings()
        self.question = replace(question or Question(), t_iou=iteration.config.annotation.t_iou)
        self.pictures = Pictures(iteration.run)
        self.lock = threading.RLock()
        annotation = iteration.config.annotation
        self.gold = GoldMasks(iteration)
        self.thinking = Thinking(iteration, self.records, self._after_deciding, self._tick, self.settings.forecast)
        self.replay = self.thinking.replay
        self.dealer = Dealer(
            iteration.world,
            self.replay.masks,
            votes=annotation.audit.votes,
            gold=annotation.gold,
            repeats=annotation.repeats,
            known_gold=self.gold.by_category,
        )
        self._from_file = self._read_file()
        self.book = self._fold(store.read_now(lambda c: list(log.read(c))))
        self.thinking.start()

    def close(self) -> None:
        """End the thread and leave what was answered so far in the files of the run."""
        self.thinking.close()
        with self.lock:
            if self.book.records or self.book.aside:
                self.leave()

    def still_open(self) -> int:
        """Return how many answers the questions of the last decision still need."""
        with self.lock:
            fresh = self.records()[len(self.thinking.reached.rows) :]
            since = self.replay.masks.match([one for one in fresh if one["purpose"] in COUNTED_PURPOSES])
            return self.dealer.count(self.thinking.open, self.book, since)

    def picked(self) -> bool:
        """Return whether a mask that somebody picked is still to be asked."""
        return not self.thinking.audited and self.dealer.picked(self.thinking.open, self.book, self.thinking.known)

    @property
    def complete(self) -> bool:
        """Whether the answers were handed over."""
        return self.iteration.complete or self.iteration.taken

    def records(self) -> list[Record]:
        """Return all records in the order that counts: those of the file first, then those that it lacks."""
        with self.lock:
            known = {record["answer_id"] for record in self._from_file}
            return [*self._from_file, *(one for one in self.book.records if one["answer_id"] not in known)]

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until the policy has thought about everything that has ended; tell whether it has."""
        return self.thinking.wait(seconds)

    def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work` in the writer's thread and return what it returns, once it is on the disk."""

        def checked(connection: sqlite3.Connection) -> Result:
            self._verify(connection)
            return work(connection)

        try:
            return cast(Result, self.store.write_now(checked))
        except Exception:
            self.store.write_now(self._verify)
            raise

    def _verify(self, connection: sqlite3.Connection) -> None:
        """Read the book again if it has taken an event that the disk did not, as when the disk is full.

        A failure undoes the events that came last, so that it is enough to look for the last one.
        """
        with self.lock:
            if self.book.last is not None and not log.holds(connection, self.book.last):
                self.book = self._fold(list(log.read(connection)))

    def end(
        self, connection: sqlite3.Connection, task: Task, how: str, seconds: float | None, submission: str = ""
    ) -> None:
        """End a task; what was answered in it counts from here on, unless it is set `aside`."""
        now = self.store.clock.now()
        payload = {"how": how, "seconds": seconds} | ({"submission": submission} if submission else {})
        self.book.apply(log.by_server(connection, task.annotator, now, "close", task.id, payload))

    def expire(self, connection: sqlite3.Connection, now: float) -> None:
        """End the tasks whose lease ran out."""
        late = [task for task in self.book.open.values() if task.expires < now]
        for task in late:
            self.end(connection, task, "expired", None)
        if late:
            self.thinking.ask()

    def _tick(self) -> None:
        self.write(self._expire_now)

    def _expire_now(self, connection: sqlite3.Connection) -> None:
        with self.lock:
            self.expire(connection, self.store.clock.now())

    def _look_ahead(self, open_questions: OpenQuestions) -> None:
        """Read what the next tasks will show before somebody waits for it."""
        several = 4 * self.settings.questions
        for places in open_questions.groups.values():
            rows = open_questions.decision.question_row[places[:several]]
            self.pictures.many([int(one) for one in self.iteration.world.prediction[rows]])

    def _after_deciding(self) -> None:
        """Leave drawn masks in their files; hand over if nothing is open any more."""
        self._look_ahead(self.thinking.open)
        # What leaves in files is on the disk of the server.
        self.write(lambda connection: None)
        with self.lock:
            drawn.leave(self)
            self._reopen()
            # Edits too: one of a mask that nobody has answered says that it is no good.
            begun = any(one.kind != "redraws" for one in self.book.open.values())
            done = self.thinking.reached.decision.done and not begun and not self.picked()
            current = len(self.thinking.reached.rows) == len(self.records())
            if done and current and not self.complete and not self.iteration.taken:
                self.leave()
                # Somebody may have put other lines there meanwhile.
                again = self.replay([*self._from_file])
                if again.decision.done:
                    handover.complete(self.iteration, again, iso(self.store.clock.now()))
                else:
                    self.thinking.ask()

    def leave(self) -> None:
        """Write what was answered so far into the files of the run, unless it has gone on."""
        if not self.iteration.taken:
            self._reopen()
            handover.leave_answers(self.iteration, self.records(), self.book.aside)
            self._from_file = self._read_file()

    def _reopen(self) -> None:
        """Take `complete.json` back if there are answers that it does not vouch for: nothing is appended beside it."""
        if self.iteration.complete and not self.iteration.taken and len(self.records()) > len(self._from_file):
            handover.reopen(self.iteration)

    def _read_file(self) -> list[Record]:
        path = self.iteration.answers / "answers.jsonl"
        return read_records(path) if path.exists() else []

    def _fold(self, events: list[LogEvent]) -> Book:
        book = Book(self.iteration.number, self.settings.most_seconds)
        for event in events:
            book.apply(event)
        for record in self._from_file:
            book.voters[record["mask_key"], record["purpose"]].add(record["annotator"])
        now = self.store.clock.now()
        for task in book.open.values():
            # Nobody could renew it while the server was down.
            task.expires = max(task.expires, now + self.settings.lease_seconds)
        return book
