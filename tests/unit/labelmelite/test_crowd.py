import csv
import io
import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from labelmelite import crowd, events
from labelmelite.app import create_app
from labelmelite.crowd import pay
from labelmelite.errors import ApiError
from labelmelite.events import Event
from labelmelite.forgetting import forget
from labelmelite.importing import import_source
from labelmelite.security import Person
from labelmelite.settings import Settings, Study
from labelmelite.sources.coco import CocoSource
from labelmelite.store import FILE, Store

from .conftest import Page, rectangle

STUDY = Study("PROLIFIC_PID", "STUDY_ID", "SESSION_ID", "https://platform.example/done?cc=ABC&id={submission}", tasks=2)
MTURK = {
    "assignmentId": "A1",
    "hitId": "H1",
    "workerId": "W1",
    "turkSubmitTo": "https://workersandbox.mturk.com",
    "token": "t",
}


@pytest.fixture
def open_one(coco: Path, store: Store, settings: Settings) -> Iterator[TestClient]:
    import_source(store, CocoSource(coco, settings.roots[0]))
    made = replace(settings, adapter="study", study=STUDY, submit_hosts=("http://127.0.0.1:9",))
    with TestClient(create_app(made, store), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def link(open_one: TestClient, store: Store) -> Callable[[str], str]:
    guard = open_one.app.state.guard  # type: ignore[attr-defined]
    return lambda kind: str(store.write_now(lambda c: guard.invite(c, "all", "annotator", 1, kind)["token"]))


def enter(client: TestClient, token: str, given: dict[str, Any]) -> Any:
    response = client.post("/api/session", json={"token": token, "crowd": given})
    client.cookies.clear()
    return response


def test_participants_of_a_study(open_one: TestClient, link: Callable[[str], str], store: Store) -> None:
    token = link("study")
    given = {"PROLIFIC_PID": "person-1", "STUDY_ID": "s", "SESSION_ID": "x1"}
    first, again = (enter(open_one, token, given).json() for _ in range(2))
    other = enter(open_one, token, given | {"PROLIFIC_PID": "person-2"}).json()
    assert first["annotator"]["id"] == again["annotator"]["id"] != other["annotator"]["id"]
    assert first["annotator"]["role"] == "annotator" and first["adapter"] == "study" and not first["preview"]
    # The platform's id stands in the pay list alone.
    for path in store.folder.glob(f"{FILE}*"):
        assert b"person-1" not in path.read_bytes()
    assert stat.S_IMODE((store.folder / pay.FILE).stat().st_mode) == 0o600
    found = pay.read(store.folder)
    assert [visit["worker"] for visit in found[first["annotator"]["id"]]] == ["person-1", "person-1"]


@pytest.mark.parametrize("given", [{}, {"PROLIFIC_PID": ""}, {"PROLIFIC_PID": 5}, {"PROLIFIC_PID": "x" * 201}, None])
def test_a_platform_that_does_not_say_who_it_is(
    open_one: TestClient, link: Callable[[str], str], given: dict[str, Any] | None
) -> None:
    response = open_one.post("/api/session", json={"token": link("study"), "crowd": given})
    assert response.status_code == 400


def test_one_person_on_two_platforms_or_projects_is_two(
    open_one: TestClient, link: Callable[[str], str], tmp_path: Path
) -> None:
    guard = open_one.app.state.guard  # type: ignore[attr-defined]
    ids = {
        guard.store.write_now(lambda c, kind=kind: guard.outside(c, kind, crowd.Visitor("same", {})))
        for kind in ("study", "mturk")
    }
    assert len(ids) == 2
    other = Store(tmp_path / "other")
    assert create_app(Settings(data=tmp_path / "other"), other).state.guard.salt != guard.salt
    other.close()


def test_mturk_previews_cannot_answer(open_one: TestClient, link: Callable[[str], str], store: Store) -> None:
    preview = {"assignmentId": crowd.PREVIEW, "hitId": "H1"}
    session = enter(open_one, link("mturk"), preview).json()
    assert session["preview"] and session["annotator"]["role"] == "reader"
    page = Page(open_one, session)
    assert page.post("/api/events", {"client": "c", "events": []}).status_code == 403
    assert not (store.folder / pay.FILE).exists()


def test_mturk_workers(open_one: TestClient, link: Callable[[str], str]) -> None:
    session = enter(open_one, link("mturk"), MTURK).json()
    assert session["adapter"] == "mturk" and not session["preview"]
    page = Page(open_one, session)
    before = rectangle(2, 3, 5, 6)
    assert "seq" in page.send(page.event("edit", {"before": before, "after": rectangle(2, 3, 5, 7)}))[0]


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "https://www.mturk.com.evil.example", "javascript:alert(1)", "", "http://www.mturk.com"],
)
def test_the_form_goes_to_mturk_alone(open_one: TestClient, link: Callable[[str], str], target: str) -> None:
    response = enter(open_one, link("mturk"), MTURK | {"turkSubmitTo": target})
    assert response.status_code in (400, 403)


def person(**crowd_said: Any) -> Person:
    return Person("p1", "annotator", "study", "csrf", crowd_said)


def test_where_people_go_in_the_end(settings: Settings) -> None:
    study = replace(settings, study=STUDY)
    somebody = person(adapter="study", submission="x & y")
    assert crowd.completion(study, somebody, 1) is None
    assert crowd.completion(study, somebody, 2) == "https://platform.example/done?cc=ABC&id=x+%26+y"
    assert crowd.completion(settings, somebody, 9) is None
    assert crowd.completion(study, person(), 9) is None
    visitor = crowd.visitor(settings, "mturk", MTURK)
    worker = person(adapter="mturk", **visitor.kept)
    assert crowd.completion(settings, worker, 1) == "https://workersandbox.mturk.com/mturk/externalSubmit"
    assert crowd.completion(settings, worker, 0) is None
    assert crowd.form(worker) == {"assignmentId": "A1", "annotator": "p1"}
    assert crowd.form(somebody) == {}


def test_the_pay_list(open_one: TestClient, link: Callable[[str], str], store: Store) -> None:
    session = enter(open_one, link("study"), {"PROLIFIC_PID": "=cmd()", "SESSION_ID": "x1"}).json()
    page = Page(open_one, session)
    a, b = rectangle(2, 3, 5, 6), rectangle(2, 3, 5, 7)
    page.send(
        page.event("edit", {"before": a, "after": b}, seconds=3000),
        page.event("edit", {"before": b, "after": a}, seconds=300),
    )
    guard = open_one.app.state.guard  # type: ignore[attr-defined]
    owner = open_one.post("/api/session", json={"token": store.write_now(guard.invite_owner)}).json()
    open_one.cookies.clear()
    text = Page(open_one, owner).get("/api/pay").text
    rows = {row["annotator"]: row for row in csv.DictReader(io.StringIO(text))}
    row = rows[session["annotator"]["id"]]
    assert (row["worker"], row["submissions"]) == ("'=cmd()", "x1")
    assert (row["events"], row["hours"], row["dollars"]) == ("2", "0.3333", "5.00")


def test_an_item_that_was_answered_again_is_paid_once(store: Store) -> None:
    def put(number: int, item: str, seconds: float, **payload: Any) -> None:
        event = Event("c", number, "answer", payload, task="t", item=item, seconds=seconds)
        store.write_now(lambda c: events.append(c, "p", 0.0, event))

    store.write_now(lambda c: c.execute("INSERT INTO annotator (id, role, created) VALUES ('p', 'annotator', 0)"))
    for number, (item, seconds) in enumerate([("i", 10.0), ("i", 12.0), ("i", 14.0), ("j", 1000.0)]):
        put(number, item, seconds, reply="yes")
    put(9, "k", 1000.0, after=None)
    (row,) = csv.DictReader(io.StringIO(store.read_now(lambda c: pay.table(c, {}, 36.0))))
    assert (row["tasks"], row["events"], row["dollars"]) == ("1", "5", f"{(14 + 120 + 900) / 100:.2f}")


def test_forgetting_somebody(open_one: TestClient, link: Callable[[str], str], store: Store) -> None:
    given = {"PROLIFIC_PID": "person-1", "SESSION_ID": "x1"}
    gone, stays = (
        enter(open_one, link("study"), given | {"PROLIFIC_PID": name}).json()["annotator"]["id"] for name in ("a", "b")
    )
    with (store.folder / pay.FILE).open("a") as file:
        file.write('{"cut off')
    assert forget(store.folder, gone)
    assert set(pay.read(store.folder)) == {stays}
    assert not forget(store.folder, gone)
    assert not forget(store.folder / "nowhere", gone)
    assert stat.S_IMODE((store.folder / pay.FILE).stat().st_mode) == 0o600
    # Should the person come again, it is as somebody new.
    assert enter(open_one, link("study"), given | {"PROLIFIC_PID": "a"}).json()["annotator"]["id"] != gone


def test_a_pay_list_on_a_full_disk(settings: Settings, tmp_path: Path) -> None:
    visitor = crowd.Visitor("w", {})
    with pytest.raises(ApiError) as caught:
        pay.note(tmp_path / "missing", 0.0, person(), "study", visitor)
    assert caught.value.code == "storage"


def test_names_of_parameters_are_settings(settings: Settings) -> None:
    given = {"participant": "p", "study": "s", "submission": "u", "more": json.dumps([1])}
    assert crowd.visitor(settings, "study", given) == crowd.Visitor("p", {"study": "s", "submission": "u"})


def test_links_of_platforms(open_one: TestClient, store: Store, settings: Settings) -> None:
    guard = open_one.app.state.guard  # type: ignore[attr-defined]
    owner = Page(open_one, open_one.post("/api/session", json={"token": store.write_now(guard.invite_owner)}).json())
    made = owner.post("/api/invites", {"name": "spring", "kind": "study", "days": 30}).json()
    assert made["link"] == f"http://127.0.0.1/study?token={made['token']}"
    refused = owner.post("/api/invites", {"kind": "mturk"})
    assert refused.status_code == 400 and "--adapter mturk" in refused.json()["error"]["message"]
    for wrong in ({"kind": "study", "role": "owner"}, {"kind": "x"}, {"days": 0}, {"days": 1000}, {"role": "king"}):
        assert owner.post("/api/invites", wrong).status_code == 400
    public = replace(settings, adapter="mturk", public="https://label.example.org/")
    with TestClient(create_app(public, store), base_url="https://label.example.org") as other:
        session = other.post("/api/session", json={"token": store.write_now(guard.invite_owner)}).json()
        made = Page(other, session).post("/api/invites", {"kind": "mturk"}).json()
        assert made["link"] == f"https://label.example.org/mturk?token={made['token']}"
