import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from labelmelite.app import create_app
from labelmelite.crowd.answered import read_answers
from labelmelite.crowd.bundles import BundleSession, safe_name
from labelmelite.importing import import_source
from labelmelite.settings import Settings
from labelmelite.sources.coco import CocoSource
from labelmelite.store import Store
from segloop.data import masks
from segloop.errors import SegloopError

from .conftest import Page, rectangle

TRUTH = {1: True, 2: False, 3: True}


def bundle_of(folder: Path) -> dict[str, Any]:
    """A bundle as the author's later code made them: hidden tests, no widths and heights."""
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(folder / "a.png")
    return {
        "bundle_info": {"bundle_id": "12:30 of a"},
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 59, "name": "potted plant"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 59, "segmentation": rectangle(1, 1, 5, 5), "current_task": "yesno"},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 59,
                "segmentation": rectangle(9, 9, 5, 5),
                "hidden_test": {"segmentation": rectangle(9, 9, 9, 9), "iou": 0.31},
            },
            {"id": 3, "image_id": 7, "category_id": 59, "segmentation": rectangle(3, 3, 9, 9), "score": 0.5},
            {
                "id": 4,
                "image_id": 7,
                "category_id": 59,
                "segmentation": rectangle(20, 3, 4, 4),
                "current_task": {"type": "edit"},
                "hidden_test": {"segmentation": rectangle(20, 3, 4, 5), "iou": 0.8},
            },
            {"id": 5, "image_id": 7, "category_id": 59, "segmentation": {"size": [1], "counts": ""}},
        ],
    }


@pytest.fixture
def page(tmp_path: Path, store: Store) -> Iterator[Page]:
    folder = tmp_path / "bundle"
    folder.mkdir()
    path = folder / "b.json"
    path.write_text(json.dumps(bundle_of(folder)))
    settings = Settings(data=store.folder, roots=(str(folder),))
    import_source(store, CocoSource(path, str(folder), kind="bundle"))
    app = create_app(settings, store, lambda s, t, p: BundleSession(path, str(folder), s, t.question))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        guard = client.app.state.guard  # type: ignore[attr-defined]
        token = store.write_now(lambda c: guard.invite(c, "Ann", "annotator", 1)["token"])
        session = client.post("/api/session", json={"token": token}).json()
        assert session["loop"] is None
        client.cookies.clear()
        yield Page(client, session)


def task_of(page: Page, kind: str = "questions") -> Any:
    return page.post("/api/tasks", {"kind": kind}).json()["task"]


def answer(page: Page, task: Any, replies: list[str], seconds: float = 2.0) -> list[Any]:
    answers = []
    for item, reply in zip(task["items"], replies, strict=True):
        page.number += 1
        one = {"client_no": page.number, "item": item["id"], "reply": reply, "seconds": seconds, "default_used": False}
        answers.append(one | {"reason": "bad_boundary" if reply == "no" else None})
    response = page.post(f"/api/tasks/{task['id']}/answers", {"client": "c", "answers": answers})
    acks: list[Any] = response.json()["acks"]
    return acks


def results(store: Store) -> list[Path]:
    return sorted((store.folder / "bundles").glob("*.json"))


def test_a_bundle_is_answered_and_leaves_a_file_of_its_form(page: Page, store: Store) -> None:
    task = task_of(page)
    assert task["category"] == {"id": 59, "name": "potted plant", "definition": ""}
    assert task["text"] == "Is this a good mask of potted plant?"
    assert len(task["items"]) == 3
    # Nothing that a page gets tells of the hidden test.
    assert "hidden" not in json.dumps(task) and "0.31" not in json.dumps(task)
    assert page.get(task["items"][0]["crop_url"]).headers["content-type"] == "image/jpeg"
    assert page.get(task["items"][0]["image_url"]).headers["content-type"] == "image/png"
    early = page.post(f"/api/tasks/{task['id']}/submit", {"seconds": 60})
    assert early.status_code == 400 and "3 masks" in early.json()["error"]["message"]
    acks = answer(page, task, ["yes", "no", "no"], seconds=0.1)
    assert all("seq" in ack for ack in acks)
    fast = page.post(f"/api/tasks/{task['id']}/submit", {"seconds": 1}).json()
    assert fast["accepted"] is False
    # Each answer says how long its item took in all; a page that was loaded again counts from 0 on.
    answer(page, task, ["yes", "no", "no"], seconds=2.0)
    answer(page, task, ["yes", "no", "yes"], seconds=3.0)
    assert [item["answer"]["reply"] for item in task_of(page)["items"]] == ["yes", "no", "yes"]
    assert page.post(f"/api/tasks/{task['id']}/submit", {"seconds": 1}).json()["accepted"] is True
    assert results(store) == []

    edit = task_of(page, "edits")
    (item,) = edit["items"]
    after = rectangle(20, 3, 4, 5)
    page.number += 1
    given = {"client_no": page.number, "item": item["id"], "before": item["mask"], "after": after, "seconds": 9.0}
    assert "seq" in page.post(f"/api/tasks/{edit['id']}/answers", {"client": "c", "answers": [given]}).json()["acks"][0]
    assert page.post(f"/api/tasks/{edit['id']}/submit", {"seconds": 9}).json()["accepted"] is True
    assert page.post("/api/tasks", {"kind": "questions"}).json()["complete"] is True

    (path,) = results(store)
    assert ":" not in path.name and path.name.startswith("12-30-of-a_")
    info, annotations = read_answers(path)
    assert info["worker_id"] == page.session["annotator"]["id"]
    assert info["hidden_tests"] == {"asked": 2, "right": 2}
    found = {one["id"]: one["completed_task"] for one in annotations}
    assert {number: found[number]["accepted"] for number in TRUTH} == TRUTH
    assert found[2] == {
        "type": "yesno",
        "accepted": False,
        "reply": "no",
        "reason": "bad_boundary",
        "annotationTime": 3.0,
    }
    (edited,) = [one for one in annotations if one["id"] == 4]
    assert edited["segmentation"] == after and edited["area"] == 20 and edited["bbox"] == [20.0, 3.0, 4.0, 5.0]
    assert edited["completed_task"]["before"] == rectangle(20, 3, 4, 4)
    assert "current_task" not in edited
    # What could not be asked is as it was.
    assert json.loads(path.read_text())["annotations"][4] == {
        "id": 5,
        "image_id": 7,
        "category_id": 59,
        "segmentation": {"size": [1], "counts": ""},
    }


def test_repeats_and_bad_answers(page: Page) -> None:
    task = task_of(page)
    first = {"client_no": 1, "item": task["items"][0]["id"], "reply": "yes", "seconds": 1.0}
    send = lambda *answers: page.post(f"/api/tasks/{task['id']}/answers", {"client": "c", "answers": answers}).json()  # noqa: E731
    (ack,) = send(first)["acks"]
    assert send(first)["acks"] == [ack]
    bad = [
        first | {"client_no": 2, "reply": "maybe"},
        first | {"client_no": 3, "item": "none"},
        5,
        first | {"client_no": 4, "reply": "no", "reason": "not_part_of_cluster"},
    ]
    assert ["error" in one for one in send(*bad)["acks"]] == [True] * 4
    assert page.post("/api/tasks/none/answers", {"client": "c", "answers": []}).status_code == 404
    assert page.get("/api/items/none/crop").status_code == 404
    assert page.post(f"/api/tasks/{task['id']}/renew", {}).json()["expires"]
    assert page.delete(f"/api/tasks/{task['id']}").status_code == 200


def test_reading_it_again_finds_the_answers(page: Page, store: Store, tmp_path: Path) -> None:
    task = task_of(page)
    answer(page, task, ["yes", "no", "other"])
    page.post(f"/api/tasks/{task['id']}/submit", {"seconds": 30})
    folder = tmp_path / "bundle"
    again = BundleSession(folder / "b.json", str(folder), store, Settings(data=folder).question)
    assert again.next_task(page.session["annotator"]["id"], "questions", None, [])["task"] is None
    assert again.next_task("somebody else", "questions", None, [])["task"]["id"] == task["id"]


def test_tasks_count_in_the_submission_that_they_were_submitted_in(page: Page, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    session = BundleSession(folder / "b.json", str(folder), store, Settings(data=folder).question)
    counts = []
    for kind, submission in (("questions", "a"), ("edits", "b")):
        task = session.next_task("p", kind, None, [])["task"]
        said = {"reply": "yes"} if kind == "questions" else {"before": None, "after": None}
        answers = [{"client_no": n, "item": item["id"], "seconds": 2.0} | said for n, item in enumerate(task["items"])]
        session.answer("p", task["id"], kind, answers)
        counts.append(session.submit("p", task["id"], 60.0, submission)["submitted"])
    assert counts == [1, 1] and session.next_task("p", "questions", None, [])["complete"]


def test_files_that_are_no_bundle(tmp_path: Path, store: Store) -> None:
    question = Settings(data=tmp_path).question
    path = tmp_path / "x.json"
    for content, message in (("[]", "is no COCO data set"), ('{"images": [], "annotations": []}', "holds no mask")):
        path.write_text(content)
        with pytest.raises(SegloopError, match=message):
            BundleSession(path, str(tmp_path), store, question)
    path.write_text('{"bundle_info": {}, "annotations": [{"id": 1}]}')
    with pytest.raises(SegloopError, match="holds no answers"):
        read_answers(path)
    path.write_text("{}")
    with pytest.raises(SegloopError, match="is no answered bundle"):
        read_answers(path)


@pytest.mark.parametrize(
    ("text", "name"), [("2019-03-01T12:30:00.5", "2019-03-01T12-30-00.5"), ("../..", "bundle"), ("a/b c", "a-b-c")]
)
def test_names_that_every_file_system_takes(text: str, name: str) -> None:
    assert safe_name(text) == name


SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "formats" / "thesis_yn_bundle"


@pytest.mark.shared
def test_the_authors_bundle_answered_by_an_oracle(store: Store) -> None:
    folder = SHARED
    if not folder.exists():
        pytest.skip(f"{folder} does not exist: the sample data is not beside the project")
    value = json.loads((folder / "033367d2221f4f9f961995e18c979282.json").read_text())
    session = BundleSession(
        folder / "033367d2221f4f9f961995e18c979282.json", str(folder), store, Settings(data=folder).question
    )
    task = session.next_task("p", "questions", None, [])["task"]
    assert len(task["items"]) == 30 and task["category"]["name"] == "potted plant"
    answers = [
        {"client_no": n, "item": item["id"], "reply": "yes" if n % 3 else "no", "seconds": 1.5}
        for n, item in enumerate(task["items"])
    ]
    session.answer("p", task["id"], "c", answers)
    assert session.submit("p", task["id"], 45.0)["accepted"]
    (path,) = results(store)
    _, annotations = read_answers(path)
    assert [one["completed_task"]["accepted"] for one in annotations] == [bool(n % 3) for n in range(30)]
    for before, after in zip(value["annotations"], annotations, strict=True):
        assert {key: after[key] for key in before} == before
    example = BundleSession(folder / "example.json", str(folder), store, Settings(data=folder).question)
    (item,) = example.next_task("p", "questions", None, [])["task"]["items"]
    assert (item["height"], item["width"]) == (183, 275)
    assert masks.decode(masks.check(item["mask"])).any()
