"""An iteration whose run has gone on: it can be looked at, and no longer changed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelmelite.loop.progress import progress, review
from labelmelite.loop.session import LoopSession
from labelmelite.loop.sources import sources_of

AUDITED = {"policy": "thesis", "start": "top:6", "audit": {"questions": 6, "precision": 0.5}}


def finished(served: Any, folder: Path) -> Any:
    """Return the iteration in a run that has gone on with what was answered."""
    served.finish()
    served.replayed()
    (folder / "results" / "iter_1").mkdir(parents=True)
    for path in served.iteration.folder.iterdir():
        (folder / "results" / "iter_1" / path.name).symlink_to(path)
    for name in ("verdicts.parquet", "answers.parquet", "certificates.json"):
        (folder / "results" / "iter_1" / name).symlink_to(served.folder / name)
    (folder / "resources").symlink_to(served.iteration.run / "resources")
    (folder / "images").symlink_to(served.iteration.run / "images")
    return replace(served.iteration, run=folder)


def test_the_tree_of_a_run_is_that_of_its_session(serve, tmp_path):
    served = serve(**AUDITED)
    iteration = finished(served, tmp_path / "run")
    other = LoopSession(iteration, served.store, served.settings)
    try:
        assert iteration.taken and not served.iteration.taken
        before, after = served.session.forest(), other.forest()
        assert after.roots() == before.roots()
        for node in range(iteration.tree.n, len(iteration.tree.size), 7):
            one, two = (forest.look(node, 3, 0, True) for forest in (before, after))
            for name in ("node", "path", "children", "sample", "certificate"):
                assert one[name] == two[name], (node, name)
            assert {answer["item"]["id"] for answer in one["answers"]} == {a["item"]["id"] for a in two["answers"]}
    finally:
        other.close()


def test_a_run_that_has_gone_on_takes_no_answers(serve, tmp_path):
    served = serve(**AUDITED)
    first = served.task()
    iteration = finished(served, tmp_path / "run")
    served.session.close()
    handed_over = (iteration.answers / "answers.jsonl").read_bytes()
    served.session = other = LoopSession(iteration, served.store, served.settings)
    assert other.next_task("ann", "questions", None, [])["complete"]
    assert other.next_task("ann", "edits", None, [])["task"] is None
    acks = other.answer("ann", first["id"], "page", [served.say(first["items"][0], "no")])
    assert acks[0]["error"]["code"] == "conflict"
    assert not any(one["changeable"] for one in review(other, "ann", 0, 100)["answers"])
    assert progress(other, owner=True)["remaining"] == 0
    other.close()
    assert (iteration.answers / "answers.jsonl").read_bytes() == handed_over


def test_an_iteration_is_a_data_set(waiting):
    (source,) = sources_of(waiting)
    assert (source.kind, source.skipped) == ("loop", [])
    assert [one.name for one in source.categories()] == ["kind 1", "kind 2"]
    images = {one.number: one for one in source.images()}
    objects = list(source.objects())
    assert len(objects) == len(waiting.world) and len(images) == 20
    assert all((Path(source.root) / one.file_name).is_file() for one in images.values())
    assert {one.id for one in objects} == {str(one) for one in waiting.world.prediction.tolist()}
    assert all(one.mask["size"] == [24, 32] and one.image in images for one in objects)


def test_what_was_collected_has_the_head_of_its_file(waiting, tmp_path):
    path = tmp_path / "results" / "iter_1" / "collected.json"
    path.parent.mkdir(parents=True)
    head = {"description": "masks", "year": 2026}
    path.write_text(json.dumps({"info": head, "images": [], "annotations": [], "categories": []}))
    source = sources_of(replace(waiting, run=tmp_path))[0]
    assert source.info() == {"info": head}


@pytest.mark.parametrize("outside", [True, False])
def test_images_outside_the_run_are_named(waiting, tmp_path, outside, monkeypatch):
    data = tmp_path / "elsewhere"
    config = waiting.config if outside else waiting.config.model_copy(update={"data_root": str(data)})
    monkeypatch.setattr("labelmelite.loop.sources._pool", lambda _: iter([(1, str(data / "1.png"), 32, 24)]))
    (source,) = sources_of(replace(waiting, config=config))
    assert [one.file_name for one in source.images()] == ([] if outside else ["1.png"])
    assert [one["record"] for one in source.skipped] == (["image 1"] if outside else [])
    assert {one.image for one in source.objects()} == (set() if outside else {1})
