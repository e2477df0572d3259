"""What follows from the log of events: tasks, who holds them, and the records that they gave.

Nothing here is stored: the same events, in their order, always give the same book. So a server that was killed knows
after its restart what it knew before.

Answers count from the moment that their task ends, by submission or because its lease ran out; what was answered more
than once until then counts as it was answered last. Later answers are changes, and count one by one.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from segloop.annotation.answers import COUNTED_PURPOSES, RECORD_SCHEMA, answer_id
from segloop.annotation.people import Record

Kind = Literal["questions", "edits", "redraws"]
End = Literal["submitted", "expired", "returned", "aside"]

KINDS: Final = ("task", "answer", "close", "pick")
"""Kinds of events that make a book."""


@dataclass(frozen=True)
class LogEvent:
    """A row of the log."""

    seq: int
    annotator: str
    kind: str
    task: str | None
    item: str | None
    payload: dict[str, Any]
    seconds: float | None
    time: str


@dataclass
class Item:
    """One mask of a task, and every reply to it in the order in which they came."""

    id: str
    prediction: int
    key: bytes
    purpose: str
    node: int | None
    draw: int | None
    replies: list[LogEvent] = field(default_factory=list)
    counted: float = 0.0
    """Seconds that stand in records."""

    @property
    def spent(self) -> float:
        """Seconds that it took: a page says with each reply how long it took in all."""
        return max((reply.seconds or 0.0 for reply in self.replies), default=0.0)


@dataclass
class Task:
    """A batch that belongs to one annotator."""

    id: str
    seq: int
    annotator: str
    kind: Kind
    audit: bool
    category: int
    items: dict[str, Item]
    content: dict[str, Any]
    dealt: float
    expires: float
    end: End | None = None
    submission: str | None = None
    """That it was submitted in, as `crowd.submission_of` says; None: it was not."""

    @property
    def answered(self) -> int:
        """Items that have a reply."""
        return sum(bool(item.replies) for item in self.items.values())

    @property
    def whole(self) -> bool:
        """Whether every item has a reply."""
        return self.answered == len(self.items)

    @property
    def spent(self) -> float:
        """Seconds that its items took."""
        return sum(item.spent for item in self.items.values())


Question = tuple[bytes, str]
"""Mask key and purpose."""


class Book:
    """Tasks and records of one iteration.

    Parameters
    ----------
    iteration
        Events of other iterations are passed over.
    most_seconds
        Time on one item beyond this is not counted.
    """

    def __init__(self, iteration: int, most_seconds: float) -> None:
        self.iteration = iteration
        self.most_seconds = most_seconds
        self.last: LogEvent | None = None
        """The event that was taken last."""
        self.tasks: dict[str, Task] = {}
        self.open: dict[str, Task] = {}
        self.item_tasks: dict[str, Task] = {}
        self.records: list[Record] = []
        self.aside: list[Record] = []
        self.edits: list[Record] = []
        self.handled: set[bytes] = set()
        """Masks that somebody was to edit and has, or has said to be right as they are, or none."""
        self.redraws: list[Record] = []
        self.voters: dict[Question, set[str]] = defaultdict(set)
        """Who has answered a question so that it counts."""
        self.holders: dict[Question, list[str]] = defaultdict(list)
        """Who holds a question in an open task."""
        self.picks: dict[bytes, int] = {}
        """Masks that somebody picked to be asked about, in the order of picking."""
        self.dealt: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        """How many items of each purpose each annotator was given."""
        self.seen: dict[tuple[str, str], set[bytes]] = defaultdict(set)
        """Masks that an annotator was given as gold, or as repeats."""
        self.gold: dict[str, list[Record]] = defaultdict(list)
        """Answers to gold questions, by annotator."""
        self._numbers: dict[tuple[bytes, str, str], int] = defaultdict(int)

    # --- folding

    def apply(self, event: LogEvent) -> None:
        """Take one more event; they come in the order of their numbers."""
        self.last = event
        if event.kind == "task":
            self._deal(event)
        elif event.kind == "pick":
            self._pick(event)
        elif event.task in self.tasks:
            task = self.tasks[event.task]
            if event.kind == "close":
                self._end(task, event)
            elif event.item in task.items:
                self._reply(task, task.items[event.item], event)

    def _deal(self, event: LogEvent) -> None:
        content = event.payload
        if content["iteration"] != self.iteration or event.task is None:
            return
        items = {
            one["id"]: Item(
                one["id"], int(one["prediction"]), bytes.fromhex(one["key"]), one["purpose"], one["node"], one["draw"]
            )
            for one in content["items"]
        }
        task = Task(
            id=event.task,
            seq=event.seq,
            annotator=event.annotator,
            kind=content["kind"],
            audit=content["audit"],
            category=content["category"],
            items=items,
            content=content,
            dealt=content["dealt"],
            expires=content["expires"],
        )
        self.tasks[task.id] = self.open[task.id] = task
        for item in items.values():
            self.item_tasks[item.id] = task
            self.holders[item.key, item.purpose].append(task.annotator)
            self.dealt[task.annotator][item.purpose] += 1
            if item.purpose in ("gold", "repeat"):
                self.seen[task.annotator, item.purpose].add(item.key)

    def _pick(self, event: LogEvent) -> None:
        if event.payload["iteration"] == self.iteration:
            for one in event.payload["items"]:
                self.picks.setdefault(bytes.fromhex(one["key"]), int(one["prediction"]))

    def _reply(self, task: Task, item: Item, event: LogEvent) -> None:
        item.replies.append(event)
        if task.end is None:
            return
        if task.end == "aside":
            self._put(self.aside, task, item)
        elif task.kind != "questions":
            self._drawn(task, item)
        elif item.purpose in COUNTED_PURPOSES:
            # Gold and repeats are judged by what was said first; a change of them is kept in the log alone.
            self._put(self.records, task, item)

    def _end(self, task: Task, event: LogEvent) -> None:
        if event.payload["how"] == "submitted" and task.submission is None:
            task.submission = event.payload.get("submission", "")
        if task.end is not None:
            return
        task.end = event.payload["how"]
        del self.open[task.id]
        for item in task.items.values():
            self.holders[item.key, item.purpose].remove(task.annotator)
        answered = [item for item in task.items.values() if item.replies]
        for item in sorted(answered, key=lambda one: one.replies[-1].seq):
            if task.kind != "questions":
                self._drawn(task, item)
            else:
                self._put(self.aside if task.end == "aside" else self.records, task, item)

    # --- records

    def _put(self, target: list[Record], task: Task, item: Item) -> None:
        last, seconds = item.replies[-1], self._fresh_seconds(item)
        number = self._numbers[item.key, task.annotator, item.purpose]
        self._numbers[item.key, task.annotator, item.purpose] += 1
        target.append(
            {
                "schema": RECORD_SCHEMA,
                "answer_id": answer_id(item.key, task.annotator, item.purpose, self.iteration, number),
                "prediction": item.prediction,
                "mask_key": item.key,
                "annotator": task.annotator,
                "purpose": item.purpose,
                "reply": last.payload["reply"],
                "reason": last.payload["reason"],
                "t_iou": task.content["t_iou"],
                "text_version": task.content["text_version"],
                "layout": last.payload.get("layout") or task.content["layout"],
                "default_used": last.payload["default_used"],
                "node": item.node,
                "draw": item.draw,
                "batch": task.content["batch"],
                "seconds": seconds,
                "price": seconds / 3600 * task.content["wage"],
                "time": last.time,
            }
        )
        if target is self.records:
            self.voters[item.key, item.purpose].add(task.annotator)
            if item.purpose == "gold":
                self.gold[task.annotator].append(target[-1])

    def _drawn(self, task: Task, item: Item) -> None:
        """Put down an edit or a redraw; an edit that changes nothing is none."""
        if task.kind == "edits":
            self.handled.add(item.key)
        last = item.replies[-1]
        after = last.payload["after"]
        if task.kind == "edits" and after in (None, last.payload["before"]):
            return
        seconds = self._fresh_seconds(item)
        record: Record = {
            "schema": RECORD_SCHEMA,
            "prediction": item.prediction,
            "mask_key": item.key,
            "annotator": task.annotator,
            "segmentation": after,
            "seconds": seconds,
            "price": seconds / 3600 * task.content["wage"],
            "time": last.time,
        }
        if task.kind == "redraws":
            self.redraws.append({"redraw_id": f"{item.id}-{last.seq}"} | record)
        else:
            self.edits.append({"edit_id": f"{item.id}-{last.seq}"} | record)
            self._refuse(task, item, last)

    def _refuse(self, task: Task, item: Item, last: LogEvent) -> None:
        """Put down that a mask is no good as it was, if nobody has answered it and no audit has begun."""
        answered = any((item.key, purpose) in self.voters for purpose in COUNTED_PURPOSES)
        if answered or any(record["purpose"] == "audit" for record in self.records):
            return
        said = {"reply": "no", "reason": "bad_boundary", "default_used": False}
        event = LogEvent(last.seq, task.annotator, "answer", task.id, item.id, said, 0.0, last.time)
        self._put(self.records, task, replace(item, purpose="decide", replies=[event], counted=0.0))

    def _fresh_seconds(self, item: Item) -> float:
        """Return the seconds of an item that no record holds yet, so that its records add up to what it took."""
        before, item.counted = item.counted, min(item.spent, self.most_seconds)
        return item.counted - before

    # --- questions about it

    def submitted(self, annotator: str, submission: str) -> int:
        """Return how many tasks somebody has submitted in a submission of a platform; "" where there is none."""
        return sum(one.annotator == annotator and one.submission == submission for one in self.tasks.values())

    def of(self, annotator: str, kind: Kind) -> Task | None:
        """Return the task of a kind that somebody has begun, if there is one."""
        for task in self.open.values():
            if task.annotator == annotator and task.kind == kind:
                return task
        return None

    def own(self, annotator: str) -> Iterator[tuple[Task, Item]]:
        """Yield what somebody has answered, newest task first."""
        for task in reversed(self.tasks.values()):
            if task.annotator == annotator and task.kind == "questions":
                for item in task.items.values():
                    if item.replies:
                        yield task, item
