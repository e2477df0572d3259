"""Which questions go into the next task of an annotator; nothing here is written down or remembered."""

import math
import random
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmelite.loop.book import Book
from segloop.annotation.answers import PURPOSES
from segloop.annotation.policies.base import AUDIT, Decision
from segloop.annotation.recorded import MaskRows
from segloop.annotation.world import World
from segloop.randomness import seed_of

Rows = npt.NDArray[np.int64]
Group = tuple[bool, int]
"""Whether the questions are an audit's, and their category: what one task may hold."""


@dataclass(frozen=True)
class Wanted:
    """A question to be dealt."""

    prediction: int
    key: bytes
    purpose: str
    node: int | None = None
    draw: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the question as an item of a task, under a name that says nothing."""
        return {
            "id": secrets.token_hex(8),
            "prediction": str(self.prediction),
            "key": self.key.hex(),
            "purpose": self.purpose,
            "node": self.node,
            "draw": self.draw,
        }


@dataclass(frozen=True)
class Gold:
    """A mask whose truth is known."""

    key: bytes
    prediction: int
    good: bool


@dataclass
class OpenQuestions:
    """The questions of a decision, by what may share a task, each group in the order of the policy."""

    decision: Decision
    groups: dict[Group, Rows] = field(default_factory=dict)

    @staticmethod
    def of(decision: Decision, world: World) -> "OpenQuestions":
        """Return the questions of a decision."""
        audit = decision.question_purpose == AUDIT
        kinds = world.category[decision.question_row].astype(np.int64) * 2 + audit
        # Audits come first: the sooner they are answered, the sooner it is known whether anything is certified.
        found: dict[Group, Rows] = {}
        _, first = np.unique(kinds, return_index=True)
        for place in np.sort(first).tolist():
            kind = int(kinds[place])
            found[bool(kind % 2), kind // 2] = np.flatnonzero(kinds == kind)
        return OpenQuestions(decision, found)

    @property
    def audits(self) -> bool:
        """Whether an audit is among them."""
        return any(audit for audit, _ in self.groups)


class Dealer:
    """Chooses the items of tasks.

    Parameters
    ----------
    votes
        Annotators who are asked each question of an audit.
    gold, repeats
        One gold question, and one repeat, for so many others; None: none.
    """

    def __init__(
        self,
        world: World,
        masks: MaskRows,
        *,
        votes: int,
        gold: int | None,
        repeats: int | None,
        known_gold: Mapping[int, list[Gold]],
    ) -> None:
        self._world, self._masks = world, masks
        self._votes, self._gold, self._repeats = votes, gold, repeats
        self.known_gold = known_gold

    def deal(
        self, open_questions: OpenQuestions, book: Book, annotator: str, size: int, known: npt.NDArray[np.bool_] | None
    ) -> tuple[Group, list[Wanted]] | None:
        """Return what an annotator is asked next, in the order of showing; None if nothing is open for this person.

        Parameters
        ----------
        size
            At most so many questions.
        known : bool [N]
            Rows whose answer is known; they are not asked because somebody picked them. None: no picks are asked.
        """
        picked = {} if known is None else self._picked(open_questions, book, known)
        groups: dict[Group, Iterator[Wanted]] = {group: self._asked(open_questions, group) for group in picked}
        for group in open_questions.groups:
            groups.setdefault(group, self._asked(open_questions, group))
        for group in self._in_turn(groups, book, annotator):
            wanted: dict[bytes, Wanted] = {}
            for one in (*picked.get(group, ()), *self._free(groups[group], book, annotator, size)):
                if len(wanted) < size and self._is_free(one, book, annotator):
                    wanted.setdefault(one.key, one)
            if wanted:
                return group, self._shuffled(list(wanted.values()), group, book, annotator)
        return None

    def picked(self, open_questions: OpenQuestions, book: Book, known: npt.NDArray[np.bool_]) -> bool:
        """Return whether a mask that somebody picked is not known yet."""
        return bool(self._picked(open_questions, book, known))

    def count(self, open_questions: OpenQuestions, book: Book, since: Rows) -> int:
        """Return how many answers the present questions still need.

        Parameters
        ----------
        since
            Rows of the world that were answered after the policy decided.
        """
        total = 0
        for group, places in open_questions.groups.items():
            audit, _ = group
            if audit:
                given = (len(book.voters.get((one.key, one.purpose), ())) for one in self._asked(open_questions, group))
                total += sum(max(0, self._votes - votes) for votes in given)
            else:
                total += int(np.count_nonzero(~np.isin(open_questions.decision.question_row[places], since)))
        return total

    def _in_turn(self, groups: Mapping[Group, Any], book: Book, annotator: str) -> list[Group]:
        """Return the groups in the order of trying: the category that somebody is used to comes first."""
        last = next((task for task in reversed(book.tasks.values()) if task.annotator == annotator), None)
        order = list(groups)
        if last is not None and (last.audit, last.category) in groups:
            order.remove((last.audit, last.category))
            order.insert(0, (last.audit, last.category))
        return order

    def _asked(self, open_questions: OpenQuestions, group: Group) -> Iterator[Wanted]:
        decision = open_questions.decision
        for place in open_questions.groups.get(group, np.zeros(0, np.int64)).tolist():
            row = int(decision.question_row[place])
            node = int(decision.question_node[place])
            yield Wanted(
                prediction=int(self._world.prediction[row]),
                key=self._masks[row],
                purpose=PURPOSES[int(decision.question_purpose[place])],
                node=None if node < 0 else node,
                draw=int(decision.question_draw[place]),
            )

    def _free(self, questions: Iterator[Wanted], book: Book, annotator: str, size: int) -> Iterator[Wanted]:
        for one in questions:
            if size == 0:
                return
            if self._is_free(one, book, annotator):
                size -= 1
                yield one

    def _is_free(self, one: Wanted, book: Book, annotator: str) -> bool:
        """Return whether a question needs one more answer that this annotator may give."""
        answered = book.voters.get((one.key, one.purpose), set())
        holders = book.holders.get((one.key, one.purpose), [])
        needed = self._votes if one.purpose == "audit" else 1
        return annotator not in answered and annotator not in holders and len(answered) + len(holders) < needed

    def _picked(
        self, open_questions: OpenQuestions, book: Book, known: npt.NDArray[np.bool_]
    ) -> dict[Group, list[Wanted]]:
        """Return what people picked and nobody knows yet."""
        found: dict[Group, list[Wanted]] = {}
        if not book.picks:
            return found
        asked = set(open_questions.decision.question_row.tolist())
        for key, prediction in book.picks.items():
            row = self._masks.find(key, prediction)
            if row >= 0 and not known[row] and row not in asked:
                group = (False, int(self._world.category[row]))
                found.setdefault(group, []).append(Wanted(prediction, key, "decide"))
        return found

    # --- what measures the annotator

    def _shuffled(self, wanted: list[Wanted], group: Group, book: Book, annotator: str) -> list[Wanted]:
        """Return the questions with gold and repeats among them, in random order."""
        mixed = list(wanted)
        for purpose, every, candidates in (
            ("gold", self._gold, self._gold_for(group, book, annotator)),
            ("repeat", self._repeats, self._repeats_for(group, book, annotator)),
        ):
            if every is None:
                continue
            keys = {one.key for one in mixed}
            count = self._due(purpose, every, len(wanted), book, annotator)
            free = [one for one in candidates if one.key not in keys]
            mixed += free[: min(count, math.ceil(len(wanted) / 3))]
        random.SystemRandom().shuffle(mixed)
        return mixed

    def _due(self, purpose: str, every: int, more: int, book: Book, annotator: str) -> int:
        """Return how many are due; each annotator has a phase, so that small tasks hold some, too."""
        dealt = book.dealt[annotator]
        others = sum(count for name, count in dealt.items() if name not in ("gold", "repeat"))
        phase = (seed_of("phase", purpose, annotator) % 1000) / 1000
        return max(0, int((others + more) / every + phase) - dealt[purpose])

    def _gold_for(self, group: Group, book: Book, annotator: str) -> list[Wanted]:
        seen = book.seen[annotator, "gold"]
        known = [one for one in self.known_gold.get(group[1], ()) if one.key not in seen]
        # Where several have to agree, all get the same masks; else each has an order of their own.
        who = annotator if self._votes == 1 else ""
        order = sorted(known, key=lambda one: seed_of("gold", who, one.key.hex()))
        asked = {key for key, purpose in book.holders if purpose != "gold" and book.holders[key, purpose]}
        return [Wanted(one.prediction, one.key, "gold") for one in order if one.key not in asked]

    def _repeats_for(self, group: Group, book: Book, annotator: str) -> list[Wanted]:
        """Return what somebody has answered before, not in the last task, in random order."""
        seen = book.seen[annotator, "repeat"]
        found = [
            Wanted(item.prediction, item.key, "repeat")
            for task, item in list(book.own(annotator))
            if task.end in ("submitted", "expired", "returned")
            and task.category == group[1]
            and item.purpose not in ("gold", "repeat")
            and item.key not in seen
        ]
        random.SystemRandom().shuffle(found)
        return found
