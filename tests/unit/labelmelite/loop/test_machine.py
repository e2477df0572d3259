"""Whatever people, leases and power cuts do, no answer is lost or counted twice, and the replay agrees."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from labelmelite.loop.settings import LoopSettings

from .conftest import Served, with_answers

PEOPLE = ["ann", "ben", "cem"]
POLICIES: list[dict[str, Any]] = [
    {"policy": "thesis", "start": "top:5"},
    {"policy": "per_mask", "questions": 20, "gold": None, "repeats": 4},
    {"policy": "thesis", "start": "top:6", "audit": {"questions": 6, "votes": 3, "precision": 0.5}},
]


class Annotation(RuleBasedStateMachine):
    """People who answer as they like, in any order, while the server is killed and tasks run out."""

    waiting: Any = None
    truth: Any = None

    @initialize(values=st.sampled_from(POLICIES))
    def begin(self, values: dict[str, Any]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        chosen = LoopSettings(least_seconds=0.0, questions=4, lease_seconds=60.0, patience=0.0, forecast=0, gate=None)
        self.served = Served(with_answers(self.waiting, folder, **values), folder, chosen, self.truth)
        self.begun: dict[str, Any] = {}
        self.said: dict[tuple[str, str], str] = {}
        """The last reply that was acknowledged, by task and item."""
        self.sent: list[tuple[str, Any, dict[str, Any], int]] = []

    @rule(who=st.sampled_from(PEOPLE))
    def take(self, who: str) -> None:
        task = self.served.task(who)
        if task is not None:
            self.begun[who] = task

    @rule(who=st.sampled_from(PEOPLE), reply=st.sampled_from(["yes", "no"]), place=st.integers(0, 30))
    def answer(self, who: str, reply: str, place: int) -> None:
        task = self.begun.get(who)
        if task is None:
            return
        item = task["items"][place % len(task["items"])]
        given = self.served.say(item, reply)
        self._send(who, task, given)

    @precondition(lambda self: bool(self.sent))
    @rule(place=st.integers(0, 1000))
    def send_again(self, place: int) -> None:
        who, task, given, seq = self.sent[place % len(self.sent)]
        assert self.served.send(who, task, given)[0]["seq"] == seq

    def _send(self, who: str, task: Any, given: dict[str, Any]) -> None:
        ack = self.served.send(who, task, given)[0]
        if "seq" in ack:
            self.said[task["id"], given["item"]] = given["reply"]
            self.sent.append((who, task, given, ack["seq"]))
        else:
            assert ack["error"]["code"] == "gone"

    @rule(who=st.sampled_from(PEOPLE))
    def submit(self, who: str) -> None:
        if who in self.begun:
            assert self.served.session.submit(who, self.begun[who]["id"], 50.0)["accepted"]

    @rule(who=st.sampled_from(PEOPLE))
    def give_back(self, who: str) -> None:
        if who in self.begun:
            self.served.session.give_back(who, self.begun[who]["id"])

    @rule()
    def wait_long(self) -> None:
        self.served.time.seconds += 61

    @rule()
    def kill(self) -> None:
        self.served.kill()

    @rule()
    def think(self) -> None:
        assert self.served.session.wait()

    def teardown(self) -> None:
        if not hasattr(self, "served"):
            return
        try:
            self.served.time.seconds += 61
            self.served.finish(*PEOPLE)
            self._check()
        finally:
            self.served.close()
            self.folder.cleanup()

    def _check(self) -> None:
        session = self.served.session
        records = session.records()
        assert len({record["answer_id"] for record in records}) == len(records)
        latest = {(one["mask_key"], one["annotator"], one["purpose"]): one["reply"] for one in records}
        for (task, name), reply in self.said.items():
            owned = session.book.tasks[task]
            item = owned.items[name]
            if item.purpose != "repeat":
                assert latest[item.key, owned.annotator, item.purpose] == reply
        votes = session.iteration.config.annotation.audit.votes
        for (key, purpose), people in session.book.voters.items():
            assert len(people) <= (votes if purpose == "audit" else 1 + (purpose == "repeat") * 2), (key, purpose)
        changes = Counter((one["mask_key"], one["annotator"], one["purpose"]) for one in records)
        assert sum(count - 1 for count in changes.values()) <= len(self.sent)
        decided, verdicts = self.served.verdicts(), self.served.replayed()
        found = dict(zip(verdicts.prediction.tolist(), verdicts.verdict.tolist(), strict=True))
        assert {one: found[one] for one in decided} == decided


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_answer_is_lost_or_doubled(waiting, truth):
    machine = type("Waiting", (Annotation,), {"waiting": waiting, "truth": truth})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
