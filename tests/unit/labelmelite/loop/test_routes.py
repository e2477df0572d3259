import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segloop.data import masks

from .conftest import HEIGHT, WIDTH


def session_of(client: Any) -> Any:
    return client.app.state.loop


def begin(page: Any, kind: str = "questions", **more: Any) -> Any:
    response = page.post("/api/tasks", {"kind": kind, **more})
    assert response.status_code == 200, response.text
    return response.json()


def answers_of(page: Any, task: Any, reply: Any) -> list[dict[str, Any]]:
    made = []
    for item in task["items"]:
        page.number += 1
        said = {"client_no": page.number, "item": item["id"], "reply": reply(item), "reason": None}
        made.append(said | {"seconds": 1.5, "default_used": False, "layout": "grid"})
    return made


def work(page: Any, task: Any, reply: Any) -> Any:
    path = f"/api/tasks/{task['id']}"
    acks = page.post(f"{path}/answers", {"client": page.name, "answers": answers_of(page, task, reply)}).json()["acks"]
    assert all("seq" in ack for ack in acks), acks
    done = page.post(f"{path}/submit", {"seconds": 60}).json()
    assert session_of(page.client).wait()
    return done


@pytest.fixture
def reply(client: Any, truth: dict[int, bool]) -> Any:
    """Return a function that knows the truth of an item."""

    def know(item: dict[str, Any]) -> str:
        book = session_of(client).book
        return "yes" if truth[book.item_tasks[item["id"]].items[item["id"]].prediction] else "no"

    return know


def finish(page: Any, reply: Any) -> None:
    while not (got := begin(page))["complete"]:
        if got["task"] is not None:
            work(page, got["task"], reply)


def test_an_iteration_is_answered_from_the_first_page_to_complete(page, reply, client):
    first = begin(page, layout="grid")
    task = first["task"]
    assert (task["kind"], task["layout"], first["complete"]) == ("questions", "grid", False)
    assert begin(page)["task"]["id"] == task["id"]
    assert page.post(f"/api/tasks/{task['id']}/renew", {}).json()["expires"] > task["expires"][:10]
    done = work(page, task, reply)
    assert done == {"accepted": True, "message": "Thank you.", "completion": None, "form": None}
    finish(page, reply)
    assert session_of(client).iteration.complete
    assert "Thank you" in begin(page)["message"]
    assert page.get("/api/session").json()["loop"]["iteration"] == 1


def test_items_bring_their_crop_and_their_image(page, client, join):
    item = begin(page)["task"]["items"][0]
    crop = page.get(item["crop_url"] + "?side=120")
    assert crop.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(crop.content)).size == (120, 120)
    whole = page.get(item["image_url"])
    assert Image.open(io.BytesIO(whole.content)).size == (WIDTH, HEIGHT)
    box = masks.boxes([masks.check(item["mask"], (HEIGHT, WIDTH))])[0].tolist()
    assert item["box"] == box
    square = item["crop"]
    assert square["side"] >= min(2 * max(box[2:]), max(WIDTH, HEIGHT)) - 1
    assert square["x"] <= box[0] and square["x"] + square["side"] >= box[0] + box[2]
    assert 1 <= square["zoom"] <= 5
    assert join("annotator", "other").get(item["crop_url"]).status_code == 404


def test_pictures_of_items_are_asked_about_each_time(page):
    item = begin(page)["task"]["items"][0]
    for path in (item["crop_url"] + "?side=120", item["image_url"]):
        first = page.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        headers = {**page.headers, "If-None-Match": first.headers["etag"]}
        assert page.client.get(path, headers=headers).status_code == 304
        assert page.client.get(f"{path.partition('?')[0]}?side=64", headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["loop", "bundle x", "", "a\nb"])
def test_no_page_takes_the_names_of_the_server(page, name):
    task = begin(page)["task"]
    given = {"client_no": 9, "item": task["items"][0]["id"], "reply": "yes", "seconds": 1}
    refused = page.post(f"/api/tasks/{task['id']}/answers", {"client": name, "answers": [given]})
    assert refused.status_code == 400
    assert page.post("/api/events", {"client": name, "events": []}).status_code == 400


def test_a_reader_gets_no_tasks_and_changes_nothing(join):
    reader = join("reader")
    assert reader.post("/api/tasks", {"kind": "questions"}).status_code == 403
    assert reader.post("/api/map/questions", {"items": ["p1"], "name": ""}).status_code == 403
    assert reader.put("/api/gold", {"task": "a", "item": "b", "reply": "yes"}).status_code == 403
    assert reader.get("/api/progress").json()["annotators"] == []
    assert reader.get("/api/review").status_code == 403


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("/api/tasks", {"kind": "riddles"}, "bad_request"),
        ("/api/tasks", {}, "bad_request"),
        ("/api/tasks", {"kind": "questions", "layout": "heap"}, "bad_request"),
        ("/api/tasks", {"kind": "edits", "items": [7]}, "bad_request"),
        ("/api/tasks", {"kind": "edits", "items": ["p77"]}, "not_found"),
        ("/api/tasks/none/answers", {"client": "c", "answers": []}, "not_found"),
        ("/api/tasks/none/submit", {"seconds": 1}, "not_found"),
        ("/api/tasks/none/submit", {"seconds": "1"}, "bad_request"),
        ("/api/tasks/none/renew", {}, "not_found"),
        ("/api/map/questions", {"items": [], "name": ""}, "bad_request"),
        ("/api/map/questions", {"items": ["p1"], "name": ""}, "not_found"),
    ],
)
def test_requests_that_make_no_sense(page, path, value, code):
    response = page.post(path, value)
    assert response.json()["error"]["code"] == code


def test_giving_back(page):
    task = begin(page)["task"]
    assert page.delete(f"/api/tasks/{task['id']}").status_code == 200
    assert begin(page)["task"]["id"] != task["id"]


def test_own_answers_are_looked_at_and_changed(page, join, reply, client):
    task = begin(page)["task"]
    work(page, task, reply)
    review = page.get("/api/review?limit=3").json()
    assert review["total"] == len(task["items"]) and len(review["answers"]) == 3
    one = review["answers"][0]
    assert one["changeable"] and one["task"] == task["id"]
    other = "no" if one["reply"] == "yes" else "yes"
    page.number += 1
    change = {"client_no": page.number, "item": one["item"]["id"], "reply": other, "seconds": 1.0}
    assert (
        "seq" in page.post(f"/api/tasks/{one['task']}/answers", {"client": "c", "answers": [change]}).json()["acks"][0]
    )
    assert page.get("/api/review?limit=3").json()["answers"][0]["reply"] == other
    assert join("annotator", "ben").get("/api/review").json()["total"] == 0


def test_progress_tells_what_was_done_what_it_cost_and_who_does_it(page, join, reply, client):
    owner = join("owner")
    page.put("/api/session/name", {"name": "Ada"})
    before = owner.get("/api/progress").json()
    assert (before["answered"], before["complete"], before["policy"]) == (0, False, "thesis")
    work(page, begin(page)["task"], reply)
    now = owner.get("/api/progress").json()
    assert now["answered"] == len(session_of(client).records()) > 0
    assert now["seconds"] == 1.5 * now["answered"]
    assert now["dollars"] == pytest.approx(now["seconds"] / 3600 * 18)
    assert now["remaining_range"][0] <= now["remaining_range"][1]
    (who,) = now["annotators"]
    assert (who["name"], who["answers"], who["median_seconds"], who["active"]) == ("Ada", now["answered"], 1.5, True)
    assert who["wage"] == pytest.approx(18)
    finish(page, reply)
    done = owner.get("/api/progress").json()
    assert (done["remaining"], done["open"], done["complete"]) == (0, 0, True)
    assert done["audits"][0]["asked"] == 6
    assert done["accepted_so_far"] == done["expected_masks"] > 0


def test_an_owner_makes_gold(page, join, reply, client):
    owner = join("owner")
    task = begin(page)["task"]
    work(page, task, reply)
    item = task["items"][0]["id"]
    assert owner.put("/api/gold", {"task": task["id"], "item": item, "reply": "yes"}).status_code == 200
    key = session_of(client).book.item_tasks[item].items[item].key
    assert session_of(client).iteration.gold() == {key: True}
    assert [one.key for some in session_of(client).gold.by_category.values() for one in some] == [key]
    owner.put("/api/gold", {"task": task["id"], "item": item, "reply": "none"})
    assert session_of(client).iteration.gold() == {}
    wrong = owner.put("/api/gold", {"task": task["id"], "item": item, "reply": "perhaps"})
    assert wrong.json()["error"]["code"] == "bad_request"


# --- tree and map -----------------------------------------------------------------------------------------------------


def check_tree(page: Any, world: Any, verdicts: dict[int, int]) -> None:
    """Walk down to the largest child and compare the counts with the verdicts."""
    nodes = page.get("/api/tree").json()["nodes"]
    assert [node["category"] for node in nodes] == ["kind 1", "kind 2"]
    assert sum(node["size"] for node in nodes) == world.leaves
    node, tree, depth = nodes[0], world.tree, nodes[0]["depth"]
    while True:
        seen = page.get(f"/api/tree/{node['id']}?sample=200").json()
        members = [int(world.prediction[leaf]) for leaf in tree.members(node["id"])]
        assert {item["id"] for item in seen["sample"]} == {f"p{one}" for one in members}
        counts = [sum(verdicts[one] == value for one in members) for value in (1, -1, 0)]
        assert [seen["node"][name] for name in ("accepted", "rejected", "undecided")] == counts
        assert seen["node"]["answered"] >= len({answer["item"]["id"] for answer in seen["answers"]})
        assert [one["id"] for one in seen["path"]][-1:] == [seen["parent"]["id"]] if seen["parent"] else True
        assert seen["node"]["depth"] == depth
        if not seen["children"]:
            break
        assert sum(child["size"] for child in seen["children"]) == node["size"]
        node, depth = seen["children"][0], depth + 1


def test_the_tree_shows_why_masks_were_accepted(page, reply, client):
    session = session_of(client)
    world = session.iteration.world
    work(page, begin(page)["task"], reply)
    decision = session.thinking.reached.decision
    check_tree(page, world, dict(zip(world.prediction.tolist(), decision.verdict.tolist(), strict=True)))
    finish(page, reply)
    decision = session.thinking.reached.decision
    check_tree(page, world, dict(zip(world.prediction.tolist(), decision.verdict.tolist(), strict=True)))
    accepted = int(decision.node[(decision.verdict == 1) & (decision.reason == 2)][0])
    seen = page.get(f"/api/tree/{accepted}").json()
    assert seen["node"]["verdict"] == "accepted"
    assert seen["certificate"]["certificate_id"] == "1:all"
    assert {answer["annotator"] for answer in seen["answers"]} == {None}
    crop = page.get(seen["sample"][0]["crop_url"])
    assert crop.status_code == 200
    assert page.get("/api/tree/99999999").status_code == 404


def test_the_map_shows_points_and_takes_picks(page, client):
    points = page.get("/api/map?category=1&limit=50").json()
    assert {len(points[name]) for name in ("x", "y", "item", "verdict", "score")} == {min(50, len(points["x"]))}
    assert 1 >= points["explained"][0] >= points["explained"][1] > 0
    assert page.get("/api/map?category=1&limit=50").json() == points
    both = page.get("/api/map").json()
    assert len(both["x"]) == session_of(client).iteration.world.leaves
    assert np.std(both["x"]) >= np.std(both["y"])
    items = page.get("/api/map/items?items=" + ",".join(points["item"][:4])).json()["items"]
    assert [item["id"] for item in items] == points["item"][:4]
    asked = session_of(client).iteration.world.prediction[session_of(client).thinking.reached.decision.question_row]
    free = [name for name in points["item"] if int(name[1:]) not in asked.tolist()][:3]
    assert page.post("/api/map/questions", {"items": free, "name": "a heap"}).json() == {"queued": 3, "known": 0}
    task = begin(page)["task"]
    book = session_of(client).book
    dealt = {book.item_tasks[item["id"]].items[item["id"]].prediction for item in task["items"]}
    assert {int(name[1:]) for name in free} <= dealt
    assert page.get("/api/map/items?items=px").status_code == 404
    assert page.get("/api/map?category=77").json()["x"] == []
