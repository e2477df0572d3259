import json
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labelmelite import events
from labelmelite.errors import ApiError
from labelmelite.events import Conflict, Event
from labelmelite.schema import SCHEMA
from labelmelite.store import Store
from segloop.data import masks

from .conftest import SIZE, Page, rectangle

A, B, C = rectangle(2, 3, 5, 6), rectangle(2, 3, 5, 7), rectangle(0, 0, 1, 1)
PIECES = {"size": [24, 32], "counts": "n\u00e9"}


def test_every_kind_changes_the_object_and_undo_restores_every_bit(page: Page) -> None:
    start = page.object()
    (edit,) = page.send(page.event("edit", {"before": A, "after": B}))
    assert page.object() == {**start, "mask": B, "seq": edit["seq"]}
    (rename,) = page.send(page.event("rename", {"before": "cat", "after": "small   cat"}))
    assert page.object()["category"] == "small cat"
    (delete,) = page.send(page.event("delete", {"before": B}))
    assert page.object() is None
    undone = page.send(
        page.event("restore", {"after": B}, undoes=delete["seq"]),
        page.event("rename", {"before": "small cat", "after": "cat"}, undoes=rename["seq"]),
        page.event("edit", {"before": B, "after": A}, undoes=edit["seq"]),
        page.event("edit", {"before": A, "after": B}, redoes=edit["seq"]),
        page.event("edit", {"before": B, "after": A}, undoes=edit["seq"]),
    )
    assert [ack["seq"] for ack in undone] == [4, 5, 6, 7, 8]
    assert page.object() == {**start, "seq": 8}


def test_a_new_object_and_a_new_category(page: Page) -> None:
    page.send(page.event("create", {"category": "  zebra ", "after": C}, "new"))
    made = page.object("new")
    assert (made["category"], made["category_id"], made["mask"]) == ("zebra", 8, C)
    assert page.get("/api/datasets/1/images/1").json()["state"] == "started"
    assert page.get("/api/datasets/1/images").json()["images"][0]["objects"] == 3


def test_a_repeat_gets_its_first_number_and_changes_nothing(page: Page) -> None:
    event = page.event("edit", {"before": A, "after": B})
    assert page.send(event) == page.send(event) == [{"client_no": 1, "seq": 1}]
    back = page.event("edit", {"before": B, "after": A})
    assert page.send(back, event) == [{"client_no": 2, "seq": 2}, {"client_no": 1, "seq": 1}]
    assert page.object()["mask"] == A
    assert len(page.get("/api/datasets/1/images/1/events").json()) == 2


def test_clients_of_two_people_may_have_one_name(join: Callable[..., Page]) -> None:
    one, two = join("annotator", "one"), join("annotator", "two")
    two.name = one.name
    assert one.send(one.event("edit", {"before": A, "after": B}))[0]["seq"] == 1
    assert two.send(two.event("edit", {"before": B, "after": A}))[0]["seq"] == 2


def test_two_tabs_edit_one_object(join: Callable[..., Page]) -> None:
    one, two = join("annotator", "one"), join("annotator", "two")
    one.send(one.event("edit", {"before": A, "after": B}))
    (ack,) = two.send(two.event("edit", {"before": A, "after": C}))
    assert ack["error"] == {"code": "conflict", "message": "Somebody has changed this object."}
    assert ack["present"] == one.object() and ack["present"]["mask"] == B
    one.send(one.event("delete", {"before": B}))
    (ack,) = two.send(two.event("edit", {"before": B, "after": C}))
    assert ack["error"]["code"] == "conflict" and ack["present"] is None
    (ack,) = two.send(two.event("restore", {"after": B}))
    assert "seq" in ack
    (ack,) = one.send(one.event("restore", {"after": B}))
    assert ack["error"]["code"] == "conflict" and ack["present"]["mask"] == B


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        ("edit", {"before": A, "after": {"size": [32, 24], "counts": A["counts"]}}, "bad_mask"),
        ("edit", {"before": A, "after": {"size": [24, 32], "counts": "0"}}, "bad_mask"),
        ("edit", {"before": A, "after": {"size": [24, 32], "counts": "\x00\x7f"}}, "bad_mask"),
        ("edit", {"before": A, "after": {"size": [24, 32], "counts": [1 << 70]}}, "bad_mask"),
        ("edit", {"before": A, "after": {"size": [1 << 40, 1 << 40], "counts": "0"}}, "bad_mask"),
        ("edit", {"before": A, "after": PIECES}, "bad_mask"),
        ("edit", {"before": A, "after": rectangle(0, 0, 0, 0)}, "bad_mask"),
        ("edit", {"before": A, "after": None}, "bad_mask"),
        ("edit", {"after": B}, "bad_mask"),
        ("edit", {"before": B, "after": A}, "conflict"),
        ("create", {"category": "cat", "after": B}, "conflict"),
        ("restore", {"after": B}, "conflict"),
        ("rename", {"before": "dog", "after": "cat"}, "conflict"),
        ("rename", {"before": "cat", "after": ""}, "bad_request"),
        ("rename", {"before": "cat", "after": "x" * 201}, "bad_request"),
        ("rename", {"before": "cat", "after": "a\u0000b"}, "bad_request"),
        ("explode", {}, "bad_request"),
        ("edit", [], "bad_request"),
    ],
)
def test_a_bad_event_is_refused_by_itself(page: Page, kind: str, payload: Any, code: str) -> None:
    acks = page.send(
        page.event("create", {"category": "cat", "after": C}, "x"),
        page.event(kind, payload),
        page.event("edit", {"before": A, "after": B}),
    )
    assert [ack.get("error", {}).get("code") for ack in acks] == [None, code, None]
    assert page.object()["mask"] == B and page.object("x")["mask"] == C


@pytest.mark.parametrize(
    "change",
    [
        {"client_no": -1},
        {"client_no": True},
        {"client_no": 1.5},
        {"client_no": 1 << 70},
        {"image": 2},
        {"image": 99},
        {"dataset": 99},
        {"object": ""},
        {"object": "x" * 101},
        {"object": 5},
        {"undoes": 99},
        {"seconds": "long"},
        {"tool": 1},
        {"tool": "\ud800"},
        {"object": "\ud800"},
    ],
)
def test_a_malformed_event_is_refused(page: Page, change: dict[str, Any]) -> None:
    (ack,) = page.send(page.event("edit", {"before": A, "after": B}) | change)
    assert ack["error"]["code"] in ("bad_request", "not_found")
    assert page.object()["mask"] == A


def test_undo_names_an_event_of_its_own_object(page: Page) -> None:
    (ack,) = page.send(page.event("create", {"category": "cat", "after": C}, "x"))
    (refused,) = page.send(page.event("edit", {"before": A, "after": B}, undoes=ack["seq"]))
    assert refused["error"]["message"] == "undoes names no event of this object."


def test_undo_may_name_an_event_of_its_client_that_has_no_number_yet(page: Page) -> None:
    first, second = page.event("edit", {"before": A, "after": B}), page.event("edit", {"before": B, "after": A})
    page.send(first, {**second, "undoes_no": first["client_no"]})
    page.send(page.event("edit", {"before": A, "after": B}, redoes_no=77))
    listed = page.get("/api/datasets/1/images/1/events").json()
    assert [(event["undoes"], event["redoes"]) for event in listed] == [
        (None, None),
        (listed[0]["seq"], None),
        (None, None),
    ]


def test_a_mask_in_another_writing_is_the_same_mask(page: Page) -> None:
    height, width = SIZE
    mask = masks.decode(masks.check(A))
    runs, colour = [0], False
    for value in mask.T.reshape(-1).tolist():
        if value == colour:
            runs[-1] += 1
        else:
            runs, colour = [*runs, 1], value
    (ack,) = page.send(page.event("edit", {"before": {"size": [height, width], "counts": runs}, "after": B}))
    assert "seq" in ack


def test_time_of_an_event_is_bounded(page: Page) -> None:
    page.send(page.event("edit", {"before": A, "after": B}, seconds=1e300))
    assert page.get("/api/datasets/1/images/1/events").json()[0]["seconds"] == events.MAX_SECONDS


def test_scripts_in_names_stay_text(page: Page) -> None:
    name = "<script>alert(1)</script>\"'&"
    page.send(page.event("create", {"category": name, "after": C}, "<img src=x onerror=alert(1)>"))
    response = page.get("/api/datasets/1/images/1")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["objects"][-1]["category"] == name
    for path in ("/", "/d/1"):
        assert name not in page.get(path).text


class Log(RuleBasedStateMachine):
    """Random events of random clients; a model in memory says what must be there."""

    def __init__(self) -> None:
        super().__init__()

        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.executescript(SCHEMA)
        self.db.execute("INSERT INTO dataset VALUES (1, 'd', 'coco', 's', 'f', 'r', '{}', 0, 1)")
        self.db.execute("INSERT INTO category (dataset, number, name) VALUES (1, 1, 'cat')")
        self.db.execute("INSERT INTO image (dataset, number, file_name, width, height) VALUES (1, 1, 'a', 4, 3)")
        self.model: dict[str, tuple[str, bytes] | None] = {}
        self.numbers = {"one": 0, "two": 0}
        self.sent: list[tuple[str, Event, int]] = []

    def send(self, who: str, kind: str, name: str, payload: dict[str, Any]) -> int | None:
        self.numbers[who] += 1
        event = Event("page", self.numbers[who], kind, payload, dataset=1, image=1, object=name)
        try:
            seq = events.accept(self.db, who, 0.0, event)
        except ApiError:
            return None
        self.sent.append((who, event, seq))
        return seq

    who = st.sampled_from(["one", "two"])
    name = st.sampled_from(["a", "b", "c"])
    mask = st.integers(1, (1 << 12) - 1).map(
        lambda bits: masks.to_json(masks.encode(np.array([bits >> n & 1 for n in range(12)], bool).reshape(3, 4)))
    )

    @rule(who=who, name=name, mask=mask)
    def create(self, who: str, name: str, mask: dict[str, Any]) -> None:
        seq = self.send(who, "create", name, {"category": "cat", "after": mask})
        assert (seq is None) == (name in self.model)
        if seq is not None:
            self.model[name] = ("cat", mask["counts"].encode())

    @rule(who=who, name=name, mask=mask, stale=st.booleans())
    def edit(self, who: str, name: str, mask: dict[str, Any], stale: bool) -> None:
        present = self.model.get(name)
        before = mask if stale or present is None else {"size": [3, 4], "counts": present[1].decode()}
        seq = self.send(who, "edit", name, {"before": before, "after": mask})
        assert (seq is not None) == (present is not None and before["counts"].encode() == present[1])
        if seq is not None and present is not None:
            self.model[name] = (present[0], mask["counts"].encode())

    @rule(who=who, name=name)
    def delete(self, who: str, name: str) -> None:
        present = self.model.get(name)
        before = {"size": [3, 4], "counts": "" if present is None else present[1].decode()}
        seq = self.send(who, "delete", name, {"before": before})
        assert (seq is not None) == (present is not None)
        if seq is not None:
            self.model[name] = None

    @rule(who=who, name=name, mask=mask)
    def restore(self, who: str, name: str, mask: dict[str, Any]) -> None:
        deleted = name in self.model and self.model[name] is None
        seq = self.send(who, "restore", name, {"after": mask})
        assert (seq is not None) == deleted
        if seq is not None:
            self.model[name] = (self.category(name), mask["counts"].encode())

    @rule(who=who, name=name, after=st.sampled_from(["cat", "dog"]))
    def rename(self, who: str, name: str, after: str) -> None:
        present = self.model.get(name)
        seq = self.send(who, "rename", name, {"before": "cat", "after": after})
        assert (seq is not None) == (present is not None and present[0] == "cat")
        if seq is not None and present is not None:
            self.model[name] = (after, present[1])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        who, event, seq = data.draw(st.sampled_from(self.sent))
        assert events.accept(self.db, who, 99.0, event) == seq

    def category(self, name: str) -> str:
        sql = "SELECT name FROM category JOIN object ON category.id = category WHERE object.id = ?"
        return str(self.db.execute(sql, (name,)).fetchone()[0])

    @invariant()
    def the_database_is_what_the_model_says(self) -> None:
        rows = self.db.execute(f"{events.OBJECTS} WHERE object.dataset = 1").fetchall()
        found = {row["id"]: None if row["deleted"] else (row["category_name"], bytes(row["counts"])) for row in rows}
        assert found == self.model
        count = self.db.execute("SELECT objects FROM image").fetchone()[0]
        assert count == sum(one is not None for one in self.model.values())

    @invariant()
    def the_log_alone_says_the_same(self) -> None:
        replayed: dict[str, tuple[str, bytes] | None] = {}
        categories: dict[str, str] = {}
        for row in self.db.execute("SELECT * FROM event ORDER BY seq"):
            payload, name = json.loads(row["payload"]), row["object"]
            if row["kind"] == "create":
                categories[name] = payload["category"]
            if row["kind"] == "rename":
                categories[name] = payload["after"]
                replayed[name] = (payload["after"], replayed[name][1])  # type: ignore[index]
            elif row["kind"] == "delete":
                replayed[name] = None
            else:
                replayed[name] = (categories[name], payload["after"]["counts"].encode())
        assert replayed == self.model
        assert self.db.execute("SELECT count(*) FROM event").fetchone()[0] == len({seq for *_, seq in self.sent})

    def teardown(self) -> None:
        self.db.close()


@settings(max_examples=60, deadline=None)
@given(masks=st.lists(Log.mask, min_size=2, max_size=12))
def test_undo_after_any_sequence_restores_every_bit(masks: list[dict[str, Any]]) -> None:
    log = Log()
    log.send("one", "create", "a", {"category": "cat", "after": masks[0]})
    done = []
    for before, after in pairwise(masks):
        seq = log.send("one", "edit", "a", {"before": before, "after": after})
        done.append((seq, before, after))
    for seq, before, after in reversed(done):
        log.numbers["one"] += 1
        payload = {"before": after, "after": before}
        undo = Event("page", log.numbers["one"], "edit", payload, dataset=1, image=1, object="a", undoes=seq)
        events.accept(log.db, "one", 0.0, undo)
        found = events.present(log.db, 1, "a")
        assert found is not None and found["mask"] == before
    assert log.db.execute("SELECT count(*) FROM event WHERE undoes IS NOT NULL").fetchone()[0] == len(done)
    log.teardown()


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


FIELDS = st.sampled_from(["client_no", "dataset", "image", "object", "kind", "payload", "x"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(value=ANYTHING)
def test_whatever_comes_is_parsed_or_refused(value: Any) -> None:
    try:
        events.parse(value, "page")
    except ApiError as error:
        assert error.code == "bad_request" and not isinstance(error, Conflict)


def test_a_full_disk_is_told_and_the_same_request_goes_through_later(page: Page, store: Store) -> None:
    def limit(pages: int | None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            most = pages or connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {most}")

        store.write_now(work)

    limit(None)
    checker = np.indices(SIZE).sum(axis=0) % 2 == 0
    after = masks.to_json(masks.encode(checker))
    events_of = [page.event("create", {"category": "cat", "after": after}, f"new {n}") for n in range(20)]
    response = page.post("/api/events", {"client": page.name, "events": events_of})
    assert response.status_code == 507 and response.json()["error"]["code"] == "storage"
    assert "full" in response.json()["error"]["message"]
    saved = len(page.get("/api/datasets/1/images/1/events").json())
    assert saved < 20
    limit(1 << 30)
    acks = page.send(*events_of)
    assert [ack["seq"] for ack in acks] == list(range(1, 21))
    assert len(page.get("/api/datasets/1/images/1/events").json()) == 20
