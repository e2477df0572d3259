"""A whole iteration of people: the run waits, the server asks, the answers come back, the run goes on."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from labelmelite.app import create_app
from labelmelite.images import as_root
from labelmelite.loop.book import Item
from labelmelite.loop.iteration import waiting_iteration
from labelmelite.loop.session import LoopSession, open_session
from labelmelite.loop.settings import LoopSettings
from labelmelite.settings import Settings
from labelmelite.store import Store
from segloop.annotation.oracle import read_truth_match
from segloop.annotation.verdicts import EDITED, read_verdicts
from segloop.data import masks
from segloop.files import read_json
from segloop.store.index import read_index

from ..loops import Loop

pytestmark = pytest.mark.workflow

T_IOU = 0.1


class Oracle:
    """A browser that knows the truth."""

    def __init__(self, client: TestClient, session: LoopSession, token: str, truth: dict[int, bool]) -> None:
        self.client, self.session, self.truth, self.number = client, session, truth, 0
        signed = client.post("/api/session", json={"token": token}).json()
        client.cookies.clear()
        self.headers = {"X-Labelmelite": signed["csrf"], "Authorization": f"Bearer {signed['session']}"}

    def post(self, path: str, value: dict[str, Any]) -> Any:
        response = self.client.post(path, json=value, headers=self.headers)
        assert response.status_code == 200, response.text
        return response.json()

    def send(self, task: dict[str, Any], answers: list[dict[str, Any]]) -> None:
        for one in answers:
            self.number += 1
            one["client_no"] = self.number
        acks = self.post(f"/api/tasks/{task['id']}/answers", {"client": "page", "answers": answers})["acks"]
        assert all("seq" in ack for ack in acks), acks
        assert self.post(f"/api/tasks/{task['id']}/submit", {"seconds": 90})["accepted"]
        assert self.session.wait()

    def questions(self) -> bool:
        """Answer a task; return whether there was one."""
        task = self.post("/api/tasks", {"kind": "questions"})["task"]
        if task is None:
            return False
        items = self.session.book.tasks[task["id"]].items
        replies = ["yes" if self.is_good(items[item["id"]]) else "no" for item in task["items"]]
        reasons = [None if reply == "yes" else "bad_boundary" for reply in replies]
        rows = zip(task["items"], replies, reasons, strict=True)
        self.send(task, [{"item": i["id"], "reply": r, "reason": w, "seconds": 2.0} for i, r, w in rows])
        return True

    def is_good(self, item: Item) -> bool:
        """Return the truth: of gold from the validation set what gold.json says."""
        return self.session.gold.truth[item.key] if item.purpose == "gold" else self.truth[item.prediction]

    def edit(self) -> int:
        """Mend one mask and return its prediction."""
        task = self.post("/api/tasks", {"kind": "edits"})["task"]
        item = task["items"][0]
        drawn = masks.to_json(masks.encode(np.ones((item["height"], item["width"]), np.bool_)))
        self.send(task, [{"item": item["id"], "before": item["mask"], "after": drawn, "seconds": 30.0}])
        return self.session.book.tasks[task["id"]].items[item["id"]].prediction


def test_the_browser_answers_an_iteration_and_the_run_goes_on(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(
        tmp_path / "run",
        annotation={"annotator": "people", "hourly_wage": 12.0, "gold": 8, "audit": {"questions": 4}},
        index={"score": 0.05},
        loop={"iterations": 2, "control": False, "upper_bound": False},
    )
    loop.remove("results/iter_2", "results/control", "results/upper_bound", "results/summary.json")
    loop.remove("results/iter_1/answers.parquet", "results/iter_1/verdicts.parquet", "results/iter_1/collected.json")
    output = loop.run()
    command = re.search(r"segloop label --run (\S+) --iteration (\d+)", output)
    assert command is not None and Path(command[1]) == loop.directory
    assert waiting_iteration(loop.directory) == int(command[2]) == 1

    match = read_truth_match(loop.directory / "results/iter_1/truth_match.parquet")
    truth = dict(zip(match.prediction.tolist(), (match.iou > np.float32(T_IOU)).tolist(), strict=True))
    store = Store(loop.directory / "data/labelmelite")
    session = open_session(loop.directory, 1, store, LoopSettings(least_seconds=0.0, questions=12))
    assert session.gold.truth and not session.gold.truth.keys() & {
        key.tobytes() for key in session.iteration.index.mask_key
    }
    settings = Settings(data=store.folder, roots=tuple(as_root(str(root)) for root in session.iteration.roots))
    app = create_app(settings, store, lambda *_: session)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        guard = app.state.guard
        tokens = [store.write_now(lambda c: guard.invite(c, "somebody", "annotator", 1)["token"]) for _ in range(2)]
        people = [Oracle(client, session, token, truth) for token in tokens]
        assert people[0].questions()
        mended = people[1].edit()
        while not session.complete:
            worked = [one.questions() for one in people]
            assert any(worked)
        decision, world = session.thinking.reached.decision, session.iteration.world
    store.close()

    loop.run("results/iter_1/summary.json", "results/iter_2/index.zarr")
    verdicts = read_verdicts(loop.directory / "results/iter_1/verdicts.parquet")
    place = np.searchsorted(verdicts.prediction, world.prediction)
    same = verdicts.verdict[place] == decision.verdict
    assert world.prediction[~same].tolist() in ([mended], [])
    row = int(np.searchsorted(verdicts.prediction, np.uint64(mended)))
    assert (verdicts.verdict[row], verdicts.reason[row]) == (1, EDITED)
    collected = read_json(loop.directory / "results/iter_1/collected.json")["annotations"]
    (one,) = [one for one in collected if one["provenance"]["prediction"] == str(mended)]
    assert one["provenance"]["verdict_reason"] == "edited" and one["area"] == 64 * 64
    assert one["provenance"]["edit"]["annotator"] in {task.annotator for task in session.book.tasks.values()}
    people_of = read_json(loop.directory / "results/iter_1/ledger.json")["people"]
    assert people_of["edits"] == 1 and people_of["by_purpose"]["edit"]["seconds"] == 30.0
    assert people_of["dollars"] == pytest.approx(people_of["seconds"] / 3600 * 12)
    assert read_json(loop.directory / "results/iter_1/annotators.json")["gold"] is not None
    # The next iteration compares with it, too (tests/unit/collection/test_index.py shows how).
    assert len(read_index(loop.directory / "results/iter_2/index.zarr"))
