"""Questions of the loop go out as files, are answered on a machine without it, and come back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelmelite.crowd.bundles import BundleSession
from labelmelite.crowd.exchange import receive, send
from labelmelite.images import Pixels
from labelmelite.settings import Settings
from labelmelite.store import Store
from segloop.errors import SegloopError

from .conftest import Served


def answered(bundle: Path, folder: Path, reply: Callable[[dict[str, Any]], str], name: str = "helper") -> Path:
    """Answer a bundle as somebody does with `segloop label --bundle`, and return the file to send back."""
    store = Store(folder)
    session = BundleSession(bundle / "bundle.json", str(bundle), store, Settings(data=folder).question)
    pixels = Pixels(folder / "cache", (str(bundle),), 1 << 30)
    task = session.next_task(name, "questions", None, [])["task"]
    answers = []
    for number, item in enumerate(task["items"]):
        assert session.crop(name, item["id"], 64, pixels)[:2] == b"\xff\xd8"
        given = {"client_no": number, "item": item["id"], "reply": reply(item), "seconds": 2.0}
        answers.append(given | {"reason": "bad_boundary" if reply(item) == "no" else None})
    assert all("seq" in ack for ack in session.answer(name, task["id"], "c", answers))
    assert session.submit(name, task["id"], 100.0)["accepted"]
    store.close()
    (path,) = (folder / "bundles").glob("*.json")
    return path


def test_answers_by_file_count_as_those_of_the_pages(
    serve: Callable[..., Served],
    tmp_path: Path,
) -> None:
    served = serve(gold=None)
    roots = tuple(str(root) for root in served.iteration.roots)
    pixels = Pixels(tmp_path / "cache", roots, 1 << 30)
    first, second = send(served.session, served.store, pixels, "Grandma: home", 2, tmp_path / "out")
    assert first.name.startswith("Grandma-home-") and (first / "images" / "1.png").exists()
    text = (first / "bundle.json").read_text()
    # Nothing in the file tells what the loop thinks of a mask.
    for word in ("prediction", "purpose", "score", "gold", "node"):
        assert word not in text

    path = answered(first, tmp_path / "home", served.truth_of)
    taken, refused = receive(served.session, path)
    assert taken == len(json.loads(text)["annotations"]) and refused == []
    assert served.session.wait()
    records = served.session.records()
    assert len(records) == taken
    assert all(
        record["reply"] == ("yes" if served.truth[record["prediction"]] else "no") and record["seconds"] == 2.0
        for record in records
    )
    assert {record["reason"] for record in records if record["reply"] == "no"} <= {"bad_boundary"}
    # A file that comes twice counts once, also after a restart.
    receive(served.session, path)
    served.kill()
    receive(served.session, path)
    assert len(served.session.records()) == taken

    # The other bundle is still out: its questions are leased.
    pending = {one["item"] for one in json.loads((second / "bundle.json").read_text())["annotations"]}
    assert pending <= set(served.session.book.item_tasks)


def test_files_of_elsewhere(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(gold=None)
    path = tmp_path / "x.json"
    done = {"id": 1, "item": "x", "completed_task": {"type": "yesno", "accepted": True, "annotationTime": 1.0}}
    path.write_text(json.dumps({"bundle_info": {"bundle_id": "t"}, "annotations": [done]}))
    with pytest.raises(SegloopError, match="was not made by `segloop bundle out`"):
        receive(served.session, path)
    path.write_text(json.dumps({"bundle_info": {"bundle_id": "t", "annotator": "a"}, "annotations": [done]}))
    with pytest.raises(SegloopError, match=r"x\.json: "):
        receive(served.session, path)
