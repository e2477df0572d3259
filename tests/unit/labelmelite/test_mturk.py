import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from labelmelite import events
from labelmelite.crowd import mturk, pay, submission_of
from labelmelite.crowd.mturk import Offer, Requester, accepted_assignments, price
from labelmelite.events import Event
from labelmelite.security import Person, Visitor
from labelmelite.store import Store, keep
from segloop.cli import main
from segloop.errors import SegloopError


class StandIn(http.server.BaseHTTPRequestHandler):
    """What MTurk's interface does, as far as it is used: JSON 1.1 with the operation in a header."""

    def do_POST(self) -> None:
        value = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        state: dict[str, Any] = self.server.state  # type: ignore[attr-defined]
        status, answer = 200, getattr(self, f"on_{operation}")(state, value)
        if answer is None:
            status, answer = 400, {"__type": "RequestError", "Message": "no such thing"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def on_CreateHITType(self, state: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        state["types"].append(value)
        return {"HITTypeId": str(len(state["types"]))}

    def on_CreateHITWithHITType(self, state: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        one = {**value, "HITId": f"H{len(state['hits'])}"}
        state["hits"].append(one)
        return {"HIT": {"HITId": one["HITId"]}}

    def on_ListHITs(self, state: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        # Pages of two, so that paging is used.
        first = int(value.get("NextToken", 0))
        hits = [{"HITId": one["HITId"], "RequesterAnnotation": one["RequesterAnnotation"]} for one in state["hits"]]
        more = {"NextToken": str(first + 2)} if first + 2 < len(hits) else {}
        return {"HITs": hits[first : first + 2], **more}

    def on_ListAssignmentsForHIT(self, state: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        found = [
            one
            for one in state["assignments"]
            if one["HITId"] == value["HITId"] and one["AssignmentStatus"] in value["AssignmentStatuses"]
        ]
        return {"Assignments": found}

    def on_ApproveAssignment(self, state: dict[str, Any], value: dict[str, Any]) -> dict[str, Any] | None:
        for one in state["assignments"]:
            if one["AssignmentId"] == value["AssignmentId"] and one["AssignmentStatus"] == "Submitted":
                one["AssignmentStatus"] = "Approved"
                return {}
        return None

    def on_UpdateExpirationForHIT(self, state: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        state["ended"].append((value["HITId"], value["ExpireAt"]))
        return {}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def state() -> dict[str, Any]:
    return {"types": [], "hits": [], "assignments": [], "ended": []}


@pytest.fixture
def endpoint(state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("boto3", reason="boto3 is not installed; it is an extra: segloop[mturk]")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.state = state  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def requester(endpoint: str) -> Iterator[Requester]:
    opened = mturk.client(endpoint)
    yield Requester(opened, "plants")
    opened.close()


LINK = "https://label.example.org/mturk?token=a&b"


def test_tasks_are_offered_as_external_questions(requester: Requester, state: dict[str, Any]) -> None:
    offer = Offer(reward=0.35, countries=("US", "DE"), approval=97, days=2)
    assert requester.post(LINK, offer, 3) == ["H0", "H1", "H2"]
    (kind,) = state["types"]
    assert kind["Reward"] == "0.35" and kind["AutoApprovalDelayInSeconds"] == 172_800
    assert [one["QualificationTypeId"] for one in kind["QualificationRequirements"]] == [
        "000000000000000000L0",
        "00000000000000000071",
    ]
    assert kind["QualificationRequirements"][1]["LocaleValues"] == [{"Country": "US"}, {"Country": "DE"}]
    question = ElementTree.fromstring(state["hits"][0]["Question"])
    names = {one.tag.rpartition("}")[2]: one.text for one in question}
    assert names == {"ExternalURL": LINK, "FrameHeight": "900"}
    assert [one["HITId"] for one in requester.tasks()] == ["H0", "H1", "H2"]
    with pytest.raises(SegloopError, match="over https alone"):
        requester.post("http://localhost/mturk", offer, 1)


def assignment(number: int, hit: str, worker: str, status: str = "Submitted") -> dict[str, Any]:
    return {
        "AssignmentId": f"A{number}",
        "HITId": hit,
        "WorkerId": worker,
        "AssignmentStatus": status,
        "SubmitTime": 1_000_000 + number,
    }


def test_what_was_done_is_approved_and_nothing_is_rejected(requester: Requester, state: dict[str, Any]) -> None:
    requester.post(LINK, Offer(), 3)
    state["hits"].append({"HITId": "OTHER", "RequesterAnnotation": "somebody else's"})
    state["assignments"] += [
        assignment(1, "H0", "W1"),
        assignment(2, "H1", "W1"),
        assignment(3, "H2", "W2"),
        assignment(4, "H2", "W1", "Approved"),
        assignment(5, "OTHER", "W1"),
    ]
    # In A2 no task was accepted, whatever W1 has done in others; what is another's assignment is none of W2's.
    accepted = {("W1", "A1"), ("W1", "A4"), ("W1", "A3")}
    assert requester.approve(accepted) == (["A1"], ["A2", "A3"])
    assert requester.approve(accepted) == ([], ["A2", "A3"])
    assert requester.end() == 3
    assert [name for name, _ in state["ended"]] == ["H0", "H1", "H2"]


def test_what_mturk_refuses_is_told(
    requester: Requester, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "on_ListHITs", lambda *_: None)
    with pytest.raises(SegloopError, match=r"MTurk did not do it: .*no such thing"):
        list(requester.tasks())


def test_assignments_with_an_accepted_task(store: Store) -> None:
    store.write_now(lambda c: keep(c, "salt", "salt"))

    def put(annotator: str, number: int, kind: str, task: str, payload: dict[str, Any], assignment: str) -> None:
        said = payload | {"submission": submission_of("salt", assignment)}
        event = Event("c", number, kind, said, task=task)
        store.write_now(lambda c: events.append(c, annotator, time.time(), event))

    visits = [("p1", "mturk", "A1"), ("p1", "mturk", "A2"), ("p1", "mturk", "A3"), ("p2", "mturk", "A4")]
    for name, kind, assignment in [*visits, ("p3", "study", "S1")]:
        visitor = Visitor(f"W-{name}", {"submission": assignment})
        pay.note(store.folder, 0.0, Person(name, "annotator", kind, ""), kind, visitor)
    put("p1", 1, "close", "t1", {"how": "submitted"}, "A1")
    put("p1", 2, "close", "t2", {"how": "aside"}, "A2")
    put("p1", 3, "bundle_submit", "t3", {}, "A3")
    put("p2", 1, "answer", "t4", {}, "A4")
    put("p3", 1, "close", "t5", {"how": "submitted"}, "S1")
    assert accepted_assignments(store.folder) == {("W-p1", "A1"), ("W-p1", "A3")}
    # The log holds no id of a platform.
    said = store.read_now(lambda c: [row["payload"] for row in c.execute("SELECT payload FROM event")])
    assert len(said) == 5 and not any(name in text for text in said for name in ("A1", "A3", "S1"))
    with pytest.raises(SegloopError, match="holds no database"):
        accepted_assignments(store.folder / "none")


def test_the_command(
    endpoint: str, store: Store, state: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        status = main(["mturk", *arguments, "--project", "plants", "--endpoint", endpoint])
        out = capsys.readouterr()
        return status, out.out + out.err

    assert run("post", "--link", LINK) == (
        1,
        "error: say what a task pays: --reward DOLLARS, or --seconds of one task and --wage\n",
    )
    assert run("approve") == (1, "error: `segloop mturk approve` needs --data\n")
    status, text = run("post", "--link", LINK, "--seconds", "60", "--wage", "18", "--count", "2")
    assert status == 0 and text.startswith("2 tasks at 0.30 dollars")
    state["assignments"].append(assignment(1, "H0", "W1"))
    assert run("list") == (0, "2 tasks; 1 wait for approval\n")
    status, text = run("approve", "--data", str(store.folder))
    assert "0 assignments approved" in text and "judge them yourself: A1" in text
    assert run("end")[1].startswith("2 tasks withdrawn")


@pytest.mark.parametrize(("seconds", "wage", "dollars"), [(60, 18, 0.30), (1, 0.01, 0.01), (42, 15, 0.17)])
def test_prices(seconds: float, wage: float, dollars: float) -> None:
    assert price(seconds, wage) == dollars
